"""Where machines of an image write, and how that is mounted: nothing there has rights, and no program runs. Pure."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from saltext.immutable.images.stack import Entry
from saltext.immutable.spec.writable_paths import ALWAYS_WRITABLE, never_exec

UNIT = "immutable-mounts.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/mounts.conf"
"""Only read-only images have it; images of former versions have no ``exec`` in their policy, and keep what they had."""
_NO_RIGHTS = "nosuid,nodev"
_DATA = ("var/lib/dpkg/info/", "var/lib/dpkg/alternatives/")
"""Package scripts, which no machine runs."""
_UNIT_FILE = re.compile(
    r"(usr/lib|lib|etc|usr/local/lib)/systemd/system/[^/]+\.(service|socket|mount)(\.d/[^/]+\.conf)?"
)
_MOST = 5
"""Folders that are listed."""


def _places(policy: Mapping[str, Any]) -> list[str]:
    return [*ALWAYS_WRITABLE, *(path for path in policy["writable"] if not path.startswith("/var/"))]


def flags(policy: Mapping[str, Any]) -> dict[str, str]:
    """Return how each writable place is mounted: path -> options of mount(8). Those below another place come last."""
    runs = dict.fromkeys(policy["exec"], _NO_RIGHTS)
    return {path: f"{_NO_RIGHTS},noexec" for path in _places(policy)} | runs


def are_restricted(policy: Mapping[str, Any], read_only: bool) -> bool:
    """Tell whether machines of an image of this policy mount their writable places with `flags`."""
    return read_only and "exec" in policy


def drop_in(policy: Mapping[str, Any], read_only: bool) -> str | None:
    """Return the drop-in of UNIT for an image of this policy, or None."""
    if not are_restricted(policy, read_only):
        return None
    lines = []
    for path, options in flags(policy).items():
        if path not in _places(policy):
            lines += [f"ExecStart=/bin/mkdir -p {path}"] if _is_temporary(path) else []
            lines.append(f"ExecStart=/bin/mount --bind {path} {path}")
        # mount(8) keeps what it is not told to change.
        lines.append(f"ExecStart=/bin/mount -o remount,bind,{options}{'' if 'noexec' in options else ',exec'} {path}")
    return "\n".join(["[Service]", *lines, ""])


def folders(policy: Mapping[str, Any]) -> list[str]:
    """Return the folders that an image must have for its machines to mount them."""
    writable = [path for path in policy["writable"] if not path.startswith("/var/")]
    return writable + [path for path in policy.get("exec", ()) if path not in writable and not _is_temporary(path)]


def _is_temporary(path: str) -> bool:
    """Tell whether a path is in memory, so that each boot makes it again."""
    return f"{path}/".startswith(("/dev/shm/", "/run/", "/tmp/"))


def warnings(policy: Mapping[str, Any], files: Mapping[str, Entry], programs: Iterable[tuple[str, str]]) -> list[str]:
    """Return a sentence for each folder with programs that would not run, and for each unit that names one.

    ``files``: those of the image; ``programs``: pairs of a unit file and a program that it runs.
    """
    stopped = [path for path, entry in files.items() if _is_program(path, entry) and _is_stopped(f"/{path}", policy)]
    folders = Counter(os.path.dirname(f"/{path}") for path in stopped)
    found = [
        f"{folder} has {_programs(folders[folder])} that machines do not run: {_advice(folder)}"
        for folder in sorted(folders)[:_MOST]
    ]
    if len(folders) > _MOST:
        found.append(f"... and {len(folders) - _MOST} more folders with programs")
    for unit, program in programs:
        if _is_stopped(program, policy):
            found.append(f"{unit} runs {program}, which machines do not run: {_advice(os.path.dirname(program))}")
    return found


def _is_program(path: str, entry: Entry) -> bool:
    return entry.kind == "file" and bool(entry.mode & 0o111) and not path.startswith(_DATA)


def _programs(number: int) -> str:
    return "a program" if number == 1 else f"{number} programs"


def _advice(folder: str) -> str:
    mend = "let a state put it elsewhere"
    return mend if never_exec(folder) else f"{mend}, or add exec: [{folder}] to the recipe"


def _is_stopped(path: str, policy: Mapping[str, Any]) -> bool:
    """Tell whether a program at a path would not run: it is where machines write, and not below ``exec``."""
    places = [path for path in flags(policy) if path not in policy["exec"]]
    return _is_below(path, places) and not _is_below(path, policy["exec"])


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return path.startswith(tuple(f"{folder}/" for folder in folders))


def concerned(policy: Mapping[str, Any]) -> re.Pattern[bytes]:
    """Return a pattern of the lines of manifests that `warnings` and `unit_files` need: the others are most of them."""
    tops = "|".join(sorted({re.escape(path.split("/")[1]) for path in flags(policy)}))
    return re.compile(f'"path":"(?:{tops}|[^"]*systemd|(?:usr/)?lib")|"type":"whiteout"|overlay\\.opaque'.encode())


def unit_files(files: Mapping[str, Entry]) -> Iterator[str]:
    """Yield the paths of the units of an image that may run programs."""
    for path, entry in files.items():
        if entry.kind == "file" and _UNIT_FILE.fullmatch(path):
            yield path

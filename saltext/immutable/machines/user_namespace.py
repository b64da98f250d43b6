"""User namespaces: root in a machine is nobody on this host, and nobody in another machine.

The layers of an image belong to root of this host. Each machine sees them through mounts that shift their owners into
its own range of ids, so the layers are shared as before (mount_setattr(2), MOUNT_ATTR_IDMAP).
"""

from __future__ import annotations

import errno
import os
import platform
import re
import secrets
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from saltext.immutable import kernel

IDS = 1 << 16
"""Ids of a machine: 0 to 65535 inside."""
_MOST = Path("/proc/sys/user/max_user_namespaces")
_NEVER = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
"""Errors of a kernel, or of a file system, that cannot do it."""
_FIRST, _RANGES = 1 << 30, 12_000
"""Part of the range that systemd keeps for containers (524288 to 1879048191, systemd's UIDS-GIDS)."""


def impossible(layers: Path) -> str:
    """Return why machines cannot have user namespaces on this host, or '' if they can. ``layers``: their folder.

    Raises CommandExecutionError where one cannot be made only now: a machine does not run without because of that.
    """
    # Overlays take layers whose owners are shifted since then; the root is shifted before it is a layer.
    if tuple(map(int, re.findall(r"[0-9]+", platform.release())[:2])) < (5, 19):
        return f"Linux {platform.release()} cannot stack layers with shifted owners (5.19 can)"
    if _MOST.exists() and _MOST.read_text().strip() == "0":
        return f"user namespaces are switched off ({_MOST})"
    try:
        with _namespace(_FIRST) as namespace:
            os.close(kernel.idmapped(str(layers), namespace))
    except OSError as err:
        if err.errno in _NEVER:
            return f"the kernel or the file system of {layers} cannot shift owners: {err}"
        from salt.exceptions import CommandExecutionError  # not for the program below, which each launch waits for

        raise CommandExecutionError(f"no user namespace for the machine: {err}; repeat the command") from err
    return ""


def of_image(image: Mapping[str, Any]) -> str:
    """Return why machines of an image cannot have user namespaces, or ''. ``image``: its metadata."""
    highest = image.get("highest_id")
    if highest is None:
        return "its image was baked by a former version of this pack"
    return "" if highest < IDS else f"its image has files of id {highest}, and a user namespace has {IDS}"


def free(taken: Collection[int]) -> int:
    """Return the first id of a range that no machine has; ``taken``: those of the others.

    By chance, because another directory on this host may have machines, too.
    """
    while (found := _FIRST + secrets.randbelow(_RANGES) * IDS) in taken:
        pass
    return found


def mount(first: int, layers: Path, names: Sequence[str], target: Path) -> None:
    """Mount layers below ``target`` by their names, with the ids of a machine whose first one is ``first``."""
    with _namespace(first) as namespace:
        for name in names:
            (target / name).mkdir()
            shifted = kernel.idmapped(str((layers / name).resolve()), namespace)
            try:
                kernel.attach(shifted, str(target / name))
            finally:
                os.close(shifted)


@contextmanager
def _namespace(first: int) -> Iterator[int]:
    """Give the descriptor of a user namespace that has IDS ids of this host from ``first`` on. Raises OSError."""
    command = ["unshare", "--user", "--", "/bin/sh", "-c", "echo && read -r end"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        try:
            if not process.stdout.readline():
                raise OSError(errno.ENOSPC, "none can be made (sysctl user.max_user_namespaces)")
            for kind in ("uid", "gid"):
                Path("/proc", str(process.pid), f"{kind}_map").write_text(f"0 {first} {IDS}")
            namespace = os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
    try:
        yield namespace
    finally:
        os.close(namespace)


if __name__ == "__main__":  # in the machine's mount namespace: FIRST LAYERS TARGET NAME ...
    mount(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[4:], Path(sys.argv[3]))

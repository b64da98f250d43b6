"""The root of a Debian or Ubuntu image, by mmdebstrap."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors
from saltext.immutable.host import Host, remove, run, tail
from saltext.immutable.images.manifest import digest
from saltext.immutable.machines.cgroup import Cgroup

# What mmdebstrap copied from this host, and what a machine's own files are mounted over.
ETC = {
    "hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    "machine-id": "",
    "resolv.conf": "",
}
_ARCHIVES = "var/cache/apt/archives"
_LISTS = "var/lib/apt/lists"
_COMPLAINT = re.compile(r"^(?:[EW]: .*|.*: No space left on device)$", re.MULTILINE)
_UNFETCHED = re.compile(r"^E: Failed to fetch (\S+)", re.MULTILINE)


def sources(suite: str, components: list[str], mirror: str | None, cache: Path | None = None) -> list[str]:
    """Return the sources.list lines that a bake of this suite uses; [] leaves the choice to mmdebstrap."""
    if mirror is None:
        return mirrors.apt_sources(suite, tuple(components), cache)
    return [f"deb {mirror} {suite} {' '.join(components)}"]


def build(host: Host, workspace: Path, processes: Cgroup, order: Mapping[str, Any]) -> None:
    """Make ``workspace``/fs a Debian root, by processes in that cgroup.

    ``order`` has suite, packages, components, mirror; ``offline``: from what is in the cache, or not at all.
    """
    target, suite, offline = workspace / "fs", order["suite"], bool(order.get("offline"))
    lines = sources(suite, order["components"], order["mirror"], host.cache)
    places = _cache(host, suite, lines)
    if offline and not any(places[_LISTS].glob("*Packages*")):
        raise CommandExecutionError(f"no package lists of {suite} from these sources are in the cache")
    command = [*processes.starter(), *_command(order, places, mirrors.keyring(suite, order["mirror"]))]
    with host.lock(f"cache-{suite}", wait=1800):
        done = run([*command, suite, target, *lines], env={"TMPDIR": str(workspace)}, check=False)
    if done.returncode:
        raise CommandExecutionError(_why(suite, done.stderr + done.stdout, offline))
    (target / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    for name, text in ETC.items():
        remove(target / "etc" / name)
        (target / "etc" / name).write_text(text)


def _cache(host: Host, suite: str, lines: list[str]) -> dict[str, Path]:
    """Return where packages and their lists stay: the packages of a suite, and the lists of exactly these sources."""
    place = host.cache / "debian" / suite
    places = {_ARCHIVES: place / "archives", _LISTS: place / f"lists-{digest(lines)[:12]}"}
    for folder in places.values():
        (folder / "partial").mkdir(parents=True, exist_ok=True)
    return places


def _command(order: Mapping[str, Any], places: Mapping[str, Path], keyring: Path | None) -> list[str]:
    """Return mmdebstrap's command line, up to its suite."""
    offline = bool(order.get("offline"))
    # In a mount namespace of its own: what it mounts cannot outlive it. Offline there is no network in it, either.
    command = ["unshare", "--mount", "--propagation=private", *(["--net"] if offline else []), "mmdebstrap"]
    command += ["--variant=minbase", "--format=directory", "--mode=root", "--verbose"]
    command += [f"--include={','.join(order['packages'])}"] if order["packages"] else []
    command += [f"--aptopt={option}" for option in mirrors.apt_options(offline)]
    command += [f"--keyring={keyring}"] if keyring else []
    # What was fetched stays in the cache: bound over its places, and neither emptied nor unlinked by mmdebstrap.
    for inside, place in places.items():
        bind = f'mkdir -p "$1"/{inside}; mount --bind {shlex.quote(str(place))} "$1"/{inside}'
        command += [f"--setup-hook={bind}", f'--customize-hook=umount "$1"/{inside}']
    skipped = ["download/empty", "essential/unlink", "cleanup/apt/cache", *(["update"] if offline else [])]
    return [*command, f"--skip={','.join(skipped)}"]


def _why(suite: str, said: str, offline: bool) -> str:
    """Return a sentence about what failed, as apt and mmdebstrap said it; offline, what the cache does not have."""
    missing = sorted({url.rpartition("/")[2] for url in _UNFETCHED.findall(said)})
    if offline and missing:
        return f"debian {suite}: not in the cache: {', '.join(missing)}"
    complaints = "\n".join(_COMPLAINT.findall(said))
    return f"debian {suite} could not be made{' from the cache' if offline else ''}:\n{tail(complaints or said, 12)}"


def package_cache(host: Host, name: str) -> dict[str, str]:
    """Return directories of this host to bind so that apt's downloads and package lists outlive a bake.

    One ``name`` for each use that may be under way at one time: apt lets nobody share them.
    """
    places = {}
    for kind, inside in (("archives", "/var/cache/apt/archives"), ("lists", "/var/lib/apt/lists")):
        folder = host.cache / "apt" / name / kind
        folder.mkdir(parents=True, exist_ok=True)
        places[inside] = str(folder)
    return places


def installed(status: Path | None) -> dict[str, str]:
    """Return what dpkg's status file says is installed: name:arch -> version."""
    if status is None:
        return {}
    found = {}
    for stanza in status.read_text(errors="replace").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Architecture|Version): (.*)$", stanza, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            found[f"{fields['Package']}:{fields['Architecture']}"] = fields["Version"]
    return found

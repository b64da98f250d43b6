"""Make the root of a Debian or Ubuntu image with mmdebstrap."""

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

# Files of /etc that mmdebstrap copies from this host. A machine's own files are mounted over them.
ETC = {
    "hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    "machine-id": "",
    "resolv.conf": "",
}
_ARCHIVES = "var/cache/apt/archives"
_LISTS = "var/lib/apt/lists"
_ERROR = re.compile(r"^(?:[EW]: .*|.*: No space left on device)$", re.MULTILINE)
_UNFETCHED = re.compile(r"^E: Failed to fetch (\S+)", re.MULTILINE)


def sources(suite: str, components: list[str], mirror: str | None, cache: Path | None = None) -> list[str]:
    """Return the sources.list lines for a suite. An empty list leaves the choice to mmdebstrap.

    ``mirror``: the recipe's mirror, or None for those of this host. ``cache``: see `mirrors.apt_sources`.
    """
    if mirror is None:
        return mirrors.apt_sources(suite, tuple(components), cache)
    return [f"deb {mirror} {suite} {' '.join(components)}"]

_REPRODUCIBLE = (
    'conf="$1"/usr/share/initramfs-tools/conf.d; mkdir -p "$conf"; echo SOURCE_DATE_EPOCH=1577836800 >"$conf"/immutable'
)
"""A hook by which initramfs-tools makes the same initial RAM disk each time, where the image gets that package."""


def build(host: Host, workspace: Path, processes: Cgroup, order: Mapping[str, Any]) -> None:
    """Make ``workspace``/fs a Debian or Ubuntu root, with processes in the cgroup ``processes``.

    ``order``: suite, packages, components, mirror, offline (use the cache only). Raises CommandExecutionError where a
    package cannot be fetched or installed.
    """
    target, suite, offline = workspace / "fs", order["suite"], bool(order.get("offline"))
    apt_sources = sources(suite, order["components"], order["mirror"], host.cache)
    folders = _cache_folders(host, suite, apt_sources)
    if offline and not any(folders[_LISTS].glob("*Packages*")):
        raise CommandExecutionError(f"{suite}: the cache has no package lists of it; bake once with cache=use")
    command = [*processes.start_command(), *_command(order, folders, mirrors.keyring(suite, order["mirror"]))]
    with host.lock(f"cache-{suite}", wait=1800):
        done = run([*command, suite, target, *apt_sources], env={"TMPDIR": str(workspace)}, check=False)
    if done.returncode:
        raise _error(suite, done.stderr + done.stdout, offline)
    (target / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    for name, text in ETC.items():
        remove(target / "etc" / name)
        (target / "etc" / name).write_text(text)


def _cache_folders(host: Host, suite: str, apt_sources: list[str]) -> dict[str, Path]:
    """Return the folders of the cache to mount, by path inside: packages of the suite, lists of these sources."""
    cache = host.cache / "debian" / suite
    folders = {_ARCHIVES: cache / "archives", _LISTS: cache / f"lists-{digest(apt_sources)[:12]}"}
    for folder in folders.values():
        (folder / "partial").mkdir(parents=True, exist_ok=True)
    return folders


def _command(order: Mapping[str, Any], folders: Mapping[str, Path], keyring: Path | None) -> list[str]:
    """Return the command line of mmdebstrap without suite, target and sources."""
    offline = bool(order.get("offline"))
    # In its own mount namespace, so that no mount outlives it. Offline also in a network namespace without network.
    command = ["unshare", "--mount", "--propagation=private", *(["--net"] if offline else []), "mmdebstrap"]
    command += ["--variant=minbase", "--format=directory", "--mode=root", "--verbose"]
    command += [f"--include={','.join(order['packages'])}"] if order["packages"] else []
    command += [f"--aptopt={option}" for option in mirrors.apt_options(offline)]
    command += [f"--keyring={keyring}"] if keyring else []
    command += [f"--setup-hook={_REPRODUCIBLE}"]
    # Downloads stay in the cache: its folders are mounted, and mmdebstrap must neither empty nor delete them.
    for inside, folder in folders.items():
        bind = f'mkdir -p "$1"/{inside}; mount --bind {shlex.quote(str(folder))} "$1"/{inside}'
        command += [f"--setup-hook={bind}", f'--customize-hook=umount "$1"/{inside}']
    skipped = ["download/empty", "essential/unlink", "cleanup/apt/cache", *(["update"] if offline else [])]
    return [*command, f"--skip={','.join(skipped)}"]


def _error(suite: str, output: str, offline: bool) -> CommandExecutionError:
    """Return the error for the output of mmdebstrap: the packages that the cache lacks, or apt's errors."""
    missing = sorted({url.rpartition("/")[2] for url in _UNFETCHED.findall(output)})
    if offline and missing:
        return CommandExecutionError(
            f"debian {suite}: not in the cache: {', '.join(missing)}; bake once with cache=use"
        )
    errors = "\n".join(_ERROR.findall(output))
    return CommandExecutionError(
        f"debian {suite} could not be made{' from the cache' if offline else ''}; correct what apt says, and bake "
        f"again:\n{tail(errors or output, 12)}"
    )


def package_cache(host: Host, name: str) -> dict[str, str]:
    """Return the folders of this host that keep apt's downloads and lists, to be mounted: path inside -> path here.

    ``name``: one for each use that may run at the same time, because apt locks these folders.
    """
    folders = {}
    for kind, inside in (("archives", "/var/cache/apt/archives"), ("lists", "/var/lib/apt/lists")):
        folder = host.cache / "apt" / name / kind
        folder.mkdir(parents=True, exist_ok=True)
        folders[inside] = str(folder)
    return folders


def installed(status: Path | None) -> dict[str, str]:
    """Return the packages that dpkg's status file lists as installed: name:arch -> version. None gives {}."""
    if status is None:
        return {}
    found = {}
    for stanza in status.read_text(errors="replace").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Architecture|Version): (.*)$", stanza, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            found[f"{fields['Package']}:{fields['Architecture']}"] = fields["Version"]
    return found

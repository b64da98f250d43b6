"""The root of a Debian or Ubuntu image, by mmdebstrap."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saltext.immutable.bake import outside
from saltext.immutable.host import Host, remove, run
from saltext.immutable.machines.cgroup import Cgroup

# What mmdebstrap copied from this host, and what a machine's own files are mounted over.
_ETC = {
    "hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    "machine-id": "",
    "resolv.conf": "",
}
_ARCHIVES = "var/cache/apt/archives"


def sources(suite: str, components: list[str], mirror: str | None) -> list[str]:
    """Return the sources.list lines that a bake of this suite uses; [] leaves the choice to mmdebstrap."""
    if mirror is None:
        return outside.apt_sources(suite, tuple(components))
    return [f"deb {mirror} {suite} {' '.join(components)}"]


def build(host: Host, workspace: Path, processes: Cgroup, order: Mapping[str, Any]) -> None:
    """Make ``workspace``/fs a Debian root, by processes in that cgroup.

    ``order`` has suite, packages, components, mirror.
    """
    cache = host.cache / "debian" / order["suite"]
    cache.mkdir(parents=True, exist_ok=True)
    lines = sources(order["suite"], order["components"], order["mirror"])
    # In a mount namespace of its own: what it mounts cannot outlive it.
    command = [*processes.starter(), "unshare", "--mount", "--propagation=private", "mmdebstrap"]
    command += ["--variant=minbase", "--format=directory", "--quiet", "--mode=root"]
    command += [f"--include={','.join(order['packages'])}"] if order["packages"] else []
    command += [f"--aptopt={option}" for option in outside.apt_options()]
    # Packages stay in the cache: bound over the archives, and neither emptied nor unlinked by mmdebstrap.
    command += [
        f'--setup-hook=mkdir -p "$1"/{_ARCHIVES}/partial; mount --bind {shlex.quote(str(cache))} "$1"/{_ARCHIVES}',
        f'--customize-hook=umount "$1"/{_ARCHIVES}',
        "--skip=download/empty,essential/unlink,cleanup/apt/cache",
    ]
    target = workspace / "fs"
    with host.lock(f"cache-{order['suite']}", wait=1800):
        run([*command, order["suite"], target, *lines], env={"TMPDIR": str(workspace)})
    (target / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    for name, text in _ETC.items():
        remove(target / "etc" / name)
        (target / "etc" / name).write_text(text)


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

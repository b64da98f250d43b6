"""Which packages of a stack of layers have a newer version at the mirrors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors
from saltext.immutable.host import tail
from saltext.immutable.machines.machine import Machine

_VERSIONS = re.compile(r"^ (?:   |\*\*\*|\+\+\+) (\S+) -?\d+\n((?:        .*\n)+)", re.MULTILINE)
_SECURITY = re.compile(r"-security\b|/security\b|debian-security")
_POLICY = re.compile(r"^(\S+):\n(?:  .*\n)*?  Candidate: (\S+)$", re.MULTILINE)


def candidates(machine: Machine, packages: Mapping[str, str]) -> dict[str, str]:
    """Return the version that apt would install today of each of ``packages`` (name:arch -> installed version)."""
    newest = dict(_POLICY.findall(_policies(machine, packages)))
    return {name: _candidate(name, version, newest) for name, version in packages.items()}


def pending(machine: Machine, packages: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the packages that apt would install another version of: installed, candidate, and whether the mirror
    calls that a security update: an archive such as ``bookworm-security`` has it.
    """
    said = _policies(machine, packages)
    newest, secure = dict(_POLICY.findall(said)), set(_secure(said))
    found = {}
    for name, version in packages.items():
        candidate = _candidate(name, version, newest)
        if candidate != version:
            security = (name if name in newest else name.rpartition(":")[0]) in secure
            found[name] = {"installed": version, "candidate": candidate, "security": security}
    return found


def _secure(said: str) -> Iterator[str]:
    """Yield the packages whose candidate comes from an archive for security."""
    for stanza in re.split(r"^(?=\S)", said, flags=re.MULTILINE):
        name, _, rest = stanza.partition(":\n")
        candidate = re.search(r"^  Candidate: (\S+)$", rest, re.MULTILINE)
        for version, sources in _VERSIONS.findall(rest) if candidate else ():
            if candidate and version == candidate[1] and _SECURITY.search(sources):
                yield name


def _policies(machine: Machine, packages: Mapping[str, str]) -> str:
    """Return what apt says of packages, with lists that are as new as the mirrors."""
    if not packages:
        return ""
    done = machine.run(["apt-get", "--quiet", "--error-on=any", "update"], env=mirrors.environment())
    if done.returncode:
        raise CommandExecutionError(f"the mirrors could not be asked for updates:\n{tail(done.stderr + done.stdout)}")
    return machine.run(["apt-cache", "policy", *packages]).stdout + "\n"


def _candidate(name: str, installed: str, newest: Mapping[str, str]) -> str:
    """apt names a package of the native architecture, or of `all`, without it."""
    version = newest.get(name) or newest.get(name.rpartition(":")[0]) or installed
    return installed if version == "(none)" else version

"""Which packages of a stack of layers have a newer version at the mirrors: apt or dnf says so, in a machine of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors
from saltext.immutable.host import tail
from saltext.immutable.machines.description import Machine

_VERSIONS = re.compile(r"^ (?:   |\*\*\*|\+\+\+) (\S+) -?\d+\n((?:        .*\n)+)", re.MULTILINE)
_SECURITY = re.compile(r"-security\b|/security\b|debian-security")
_DNF = re.compile(r"^(\S+)\.([^.\s]+)\s+(\S+)\s+\S+$", re.MULTILINE)
_OBSOLETING = re.compile(r"^Obsoleting [Pp]ackages", re.MULTILINE)
"""How dnf begins another list: the big letter is that of dnf before 5."""
_DNF_PROGRAMS = ("dnf", "yum")
_HAS_UPDATES = 100
"""What dnf exits with where there are updates."""
_POLICY = re.compile(r"^(\S+):\n(?:  .*\n)*?  Candidate: (\S+)$", re.MULTILINE)


def candidates(machine: Machine, packages: Mapping[str, str]) -> dict[str, str]:
    """Return the version of each package that apt or dnf would install today.

    ``packages``: name:arch -> installed version. Raises CommandExecutionError where the mirrors cannot be reached.
    """
    if packages and not _has(machine, "apt-get"):
        return {**packages, **_of_dnf(machine, packages)}
    newest = dict(_POLICY.findall(_policies(machine, packages)))
    return {name: _candidate(name, version, newest) for name, version in packages.items()}


def pending(machine: Machine, packages: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the packages of which apt or dnf would install another version: installed, candidate, security.

    ``security`` is True where an archive for security updates (``bookworm-security``) has the candidate, or where dnf
    says so. ``packages`` and errors as in `candidates`.
    """
    if packages and not _has(machine, "apt-get"):
        newer = _of_dnf(machine, packages)
        urgent = _of_dnf(machine, packages, "--security") if newer else {}
        return {
            name: {"installed": packages[name], "candidate": version, "security": urgent.get(name) == version}
            for name, version in newer.items()
        }
    policies = _policies(machine, packages)
    newest, secure = dict(_POLICY.findall(policies)), set(_security_updates(policies))
    found = {}
    for name, version in packages.items():
        candidate = _candidate(name, version, newest)
        if candidate != version:
            security = (name if name in newest else name.rpartition(":")[0]) in secure
            found[name] = {"installed": version, "candidate": candidate, "security": security}
    return found


def _has(machine: Machine, program: str) -> bool:
    return not machine.run(["sh", "-c", f"command -v {program}"]).returncode


def _of_dnf(machine: Machine, packages: Mapping[str, str], *only: str) -> dict[str, str]:
    """Return the packages of which dnf would install another version, with that; ``only``: a filter of its own."""
    program = next((name for name in _DNF_PROGRAMS if _has(machine, name)), None)
    if program is None:
        raise CommandExecutionError(
            "updates are known of apt, dnf and yum only, and this image has none of them; use refresh=always, which "
            "builds every layer again, or refresh=never"
        )
    done = machine.run([program, "--quiet", "check-update", *only], env=mirrors.environment())
    if done.returncode not in (0, _HAS_UPDATES):
        raise CommandExecutionError(
            f"{program} check-update failed, so no updates are known; let the builder reach the mirrors, and repeat:\n"
            + tail(done.stderr + done.stdout)
        )
    lines = re.sub(r"\n\s+", " ", _OBSOLETING.split(done.stdout)[0])  # yum breaks long ones
    found = {f"{name}:{arch}": version.removeprefix("0:") for name, arch, version in _DNF.findall(lines)}
    return {name: version for name, version in found.items() if name in packages}


def _security_updates(policies: str) -> Iterator[str]:
    """Yield the packages whose candidate comes from an archive for security updates."""
    for stanza in re.split(r"^(?=\S)", policies, flags=re.MULTILINE):
        name, _, rest = stanza.partition(":\n")
        candidate = re.search(r"^  Candidate: (\S+)$", rest, re.MULTILINE)
        for version, sources in _VERSIONS.findall(rest) if candidate else ():
            if candidate and version == candidate[1] and _SECURITY.search(sources):
                yield name


def _policies(machine: Machine, packages: Mapping[str, str]) -> str:
    """Return the output of ``apt-cache policy``, after an update of the package lists."""
    if not packages:
        return ""
    done = machine.run(["apt-get", "--quiet", "--error-on=any", "update"], env=mirrors.environment())
    if done.returncode:
        raise CommandExecutionError(
            "apt-get update failed, so no updates are known; let the builder reach the mirrors, and repeat:\n"
            + tail(done.stderr + done.stdout)
        )
    return machine.run(["apt-cache", "policy", *packages]).stdout + "\n"


def _candidate(name: str, installed: str, newest: Mapping[str, str]) -> str:
    """Return the version that apt would install of one package.

    apt-cache names packages of the native architecture, and of `all`, without the architecture.
    """
    version = newest.get(name) or newest.get(name.rpartition(":")[0]) or installed
    return installed if version == "(none)" else version

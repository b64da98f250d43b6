"""Which packages of a stack of layers have a newer version at the mirrors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from salt.exceptions import CommandExecutionError

from saltext.immutable.bake import outside
from saltext.immutable.host import tail
from saltext.immutable.machines.machine import Machine

_POLICY = re.compile(r"^(\S+):\n(?:  .*\n)*?  Candidate: (\S+)$", re.MULTILINE)


def candidates(machine: Machine, packages: Mapping[str, str]) -> dict[str, str]:
    """Return the version that apt would install today of each of ``packages`` (name:arch -> installed version)."""
    if not packages:
        return {}
    done = machine.run(["apt-get", "--quiet", "--error-on=any", "update"], env=outside.environment())
    if done.returncode:
        raise CommandExecutionError(f"the mirrors could not be asked for updates:\n{tail(done.stderr + done.stdout)}")
    said = machine.run(["apt-cache", "policy", *packages]).stdout
    newest = dict(_POLICY.findall(said + "\n"))
    return {name: _candidate(name, version, newest) for name, version in packages.items()}


def _candidate(name: str, installed: str, newest: Mapping[str, str]) -> str:
    """apt names a package of the native architecture, or of `all`, without it."""
    version = newest.get(name) or newest.get(name.rpartition(":")[0]) or installed
    return installed if version == "(none)" else version

"""What apt says of a stack's packages."""

from __future__ import annotations

from subprocess import CompletedProcess

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.bake import updates

POLICY = """\
nginx-light:
  Installed: 1.22.1-9
  Candidate: 1.22.1-9+deb12u2
  Version table:
     1.22.1-9+deb12u2 500
        500 http://mirror bookworm/main amd64 Packages
 *** 1.22.1-9 100
tzdata:
  Installed: 2024a
  Candidate: 2024a
  Version table:
 *** 2024a 100
libc6:i386:
  Installed: 2.36-9
  Candidate: 2.36-10
  Version table:
ours:
  Installed: 1
  Candidate: (none)
  Version table:
"""


class Machine:
    def __init__(self, update: int = 0) -> None:
        self.update = update

    def run(self, command, **_):
        if "update" in command:
            return CompletedProcess(command, self.update, "", "E: no route to the mirror")
        return CompletedProcess(command, 0, POLICY, "")


@pytest.mark.parametrize(
    ("package", "version", "newest"),
    [
        pytest.param("nginx-light:amd64", "1.22.1-9", "1.22.1-9+deb12u2", id="an update"),
        pytest.param("tzdata:all", "2024a", "2024a", id="none"),
        pytest.param("libc6:i386", "2.36-9", "2.36-10", id="of a foreign architecture"),
        pytest.param("ours:amd64", "1", "1", id="a package that no mirror has"),
        pytest.param("gone:amd64", "3", "3", id="one that apt does not know any more"),
    ],
)
def test_candidates(package, version, newest):
    assert updates.candidates(Machine(), {package: version}) == {package: newest}


def test_mirrors_that_cannot_be_asked_are_no_answer():
    with pytest.raises(CommandExecutionError, match="no route to the mirror"):
        updates.candidates(Machine(update=100), {"nginx-light:amd64": "1"})

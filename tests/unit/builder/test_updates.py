"""Which updates apt reports for the packages of a stack."""

from __future__ import annotations

from subprocess import CompletedProcess

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import updates

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
        pytest.param("gone:amd64", "3", "3", id="a package that apt does not know any more"),
    ],
)
def test_candidates(package, version, newest):
    assert updates.candidates(Machine(), {package: version}) == {package: newest}


SECURITY = """\
openssl:
  Installed: 3.0.11-1
  Candidate: 3.0.14-1
  Version table:
     3.0.14-1 500
        500 http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
     3.0.13-1 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
 *** 3.0.11-1 100
        100 /var/lib/dpkg/status
zlib1g:
  Installed: 1
  Candidate: 3
  Version table:
     3 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
     2 500
        500 http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
 *** 1 100
        100 /var/lib/dpkg/status
bash:
  Installed: 1
  Candidate: 1
  Version table:
 *** 1 500
        500 http://archive.ubuntu.com/ubuntu noble-security/main amd64 Packages
        100 /var/lib/dpkg/status
"""


def test_updates_that_come_from_an_archive_for_security_are_marked(monkeypatch):
    monkeypatch.setitem(globals(), "POLICY", SECURITY)
    installed = {"openssl:amd64": "3.0.11-1", "zlib1g:amd64": "1", "bash:amd64": "1"}
    assert updates.pending(Machine(), installed) == {
        "openssl:amd64": {"installed": "3.0.11-1", "candidate": "3.0.14-1", "security": True},
        "zlib1g:amd64": {"installed": "1", "candidate": "3", "security": False},
    }


def test_mirrors_that_cannot_be_reached_are_an_error():
    with pytest.raises(CommandExecutionError, match="no route to the mirror"):
        updates.candidates(Machine(update=100), {"nginx-light:amd64": "1"})

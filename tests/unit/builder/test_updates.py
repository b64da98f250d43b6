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


# The RPM family

DNF = """
bash.x86_64                    5.2.32-1.fc41                   updates
openssl-libs.x86_64            1:3.2.2-9.fc41                  updates
kernel-core.x86_64             6.12.4-200.fc41                 updates
a-package-with-a-name-that-is-as-long-as-that.noarch
                               2.0-1                           updates
not-installed.x86_64           1-1                             updates
Obsoleting Packages
gone.x86_64                    9-9                             updates
"""
INSTALLED = {
    "bash:x86_64": "5.2.26-1.fc41",
    "openssl-libs:x86_64": "1:3.2.1-1.fc41",
    "kernel-core:x86_64": "6.11.1-1, 6.12.0-1",
    "a-package-with-a-name-that-is-as-long-as-that:noarch": "1.0-1",
    "tzdata:noarch": "2024b-1",
    "gone:x86_64": "1-1",
}


class Fedora:
    """A machine whose packages are those of ``program``."""

    def __init__(self, program: str = "dnf", retcode: int = 100) -> None:
        self.program, self.retcode = program, retcode

    def run(self, command, **_):
        if command[0] == "sh":
            return CompletedProcess(command, int(command[-1] != f"command -v {self.program}"), "", "")
        assert command[:3] == [self.program, "--quiet", "check-update"], "dnf 5 takes --security only after its command"
        found = "".join(line for line in DNF.splitlines(True) if "openssl" in line) if "--security" in command else DNF
        return CompletedProcess(command, self.retcode, found, "no mirror")


@pytest.mark.parametrize(
    ("program", "word"),
    [("dnf", "Packages"), pytest.param("dnf", "packages", id="dnf 5"), ("yum", "Packages")],
)
def test_dnf_says_what_it_would_install(monkeypatch, program, word):
    monkeypatch.setitem(globals(), "DNF", DNF.replace("Obsoleting Packages", f"Obsoleting {word}"))
    assert updates.candidates(Fedora(program), INSTALLED) == {
        **INSTALLED,
        "bash:x86_64": "5.2.32-1.fc41",
        "openssl-libs:x86_64": "1:3.2.2-9.fc41",
        "kernel-core:x86_64": "6.12.4-200.fc41",
        "a-package-with-a-name-that-is-as-long-as-that:noarch": "2.0-1",
    }


def test_dnf_says_which_updates_are_for_security():
    found = updates.pending(Fedora(), INSTALLED)
    assert [name for name, one in found.items() if one["security"]] == ["openssl-libs:x86_64"]
    assert found["bash:x86_64"] == {"installed": "5.2.26-1.fc41", "candidate": "5.2.32-1.fc41", "security": False}
    assert len(found) == 4


@pytest.mark.parametrize(
    ("machine", "error"),
    [
        pytest.param(Fedora("zypper"), "updates are known of apt, dnf and yum only.*use refresh=always", id="zypper"),
        pytest.param(Fedora(retcode=1), "dnf check-update failed, so no updates are known; let the", id="no mirror"),
    ],
)
def test_what_keeps_updates_unknown_is_said(machine, error):
    with pytest.raises(CommandExecutionError, match=error):
        updates.candidates(machine, INSTALLED)
    assert updates.candidates(machine, {}) == {}

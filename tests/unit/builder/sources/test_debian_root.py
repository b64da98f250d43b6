"""The command line of mmdebstrap, its cache, and the errors that its output becomes."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors
from saltext.immutable.builder.sources import debian
from saltext.immutable.machines.cgroup import Cgroup

ORDER = {"suite": "bookworm", "packages": ["python3", "dbus"], "components": ["main"], "mirror": "http://m/debian"}


@pytest.fixture
def commands_of(host, monkeypatch):
    """Build a root with an mmdebstrap that prints the given text; return its command lines."""
    commands: list[list[str]] = []
    answers: list[CompletedProcess[str]] = []

    def run(command, **how):
        commands.append([str(word) for word in command])
        done = answers.pop() if answers else CompletedProcess(command, 0, "", "")
        if not done.returncode:
            (Path(command[command.index("bookworm") + 1]) / "etc").mkdir(parents=True)
        return done

    monkeypatch.setattr(debian, "run", run)
    monkeypatch.setattr(Cgroup, "start_command", lambda self: [])
    monkeypatch.setattr(mirrors, "run", lambda *_, **__: CompletedProcess([], 0, 'Acquire::Retries "3";\n', ""))

    def build(answer: CompletedProcess[str] | None = None, **order):
        answers.extend([answer] if answer else [])
        with host.workspace() as place:
            debian.build(host, place, Cgroup("none"), {**ORDER, **order})
        return commands[-1]

    return build


def lists(host) -> Path:
    """Put a package list into the cache, as an earlier bake would have done."""
    place = next((host.cache / "debian/bookworm").glob("lists-*"))
    (place / "m_debian_dists_bookworm_main_binary-amd64_Packages").touch()
    return place


def test_packages_and_lists_stay_in_the_cache(commands_of, host):
    words = commands_of()
    assert words[-3:-2] == ["bookworm"] and words[-1] == "deb http://m/debian bookworm main"
    assert "--include=python3,dbus" in words and '--aptopt=Acquire::Retries "3";' in words
    hooks = [word for word in words if "-hook=" in word]
    for inside, place in (("var/cache/apt/archives", "archives"), ("var/lib/apt/lists", "lists-")):
        assert any(str(host.cache / "debian/bookworm" / place) in hook and inside in hook for hook in hooks)
        assert f'--customize-hook=umount "$1"/{inside}' in hooks
    assert "--net" not in words and not any("update" in word for word in words if word.startswith("--skip"))


def test_other_sources_have_other_lists(commands_of, host):
    commands_of()
    commands_of(mirror="http://other/debian")
    assert len(list((host.cache / "debian/bookworm").glob("lists-*"))) == 2


def test_offline_mmdebstrap_has_no_network_and_updates_no_lists(commands_of, host):
    commands_of()
    lists(host)
    words = commands_of(offline=True)
    assert words[: words.index("mmdebstrap")] == ["unshare", "--mount", "--propagation=private", "--net"]
    assert [word for word in words if word.startswith("--skip=")][0].endswith(",update")


def test_offline_without_lists_is_an_error_before_anything_is_done(commands_of):
    with pytest.raises(CommandExecutionError, match="bookworm: the cache has no package lists of it; bake once"):
        commands_of(offline=True)


def test_packages_that_the_cache_lacks_are_named(commands_of, host):
    commands_of()
    lists(host)
    said = "E: Failed to fetch http://m/debian/pool/main/s/sl/sl_5.02_amd64.deb  No route\nE: x\n"
    with pytest.raises(CommandExecutionError, match="not in the cache: sl_5.02_amd64.deb; bake once with cache=use$"):
        commands_of(CompletedProcess([], 25, "", said), offline=True)
    with pytest.raises(CommandExecutionError, match="could not be made from the cache; .*:\nE: no such package"):
        commands_of(CompletedProcess([], 25, "", "E: no such package"), offline=True)


@pytest.fixture
def keyrings(tmp_path, monkeypatch):
    monkeypatch.setattr(mirrors, "KEYRINGS", tmp_path)
    return tmp_path


def test_ubuntu_is_verified_by_its_own_keys(keyrings):
    (keyrings / "ubuntu-archive-keyring.gpg").touch()
    assert mirrors.keyring("noble", None) == keyrings / "ubuntu-archive-keyring.gpg"
    assert mirrors.keyring("bookworm", None) is None
    command = debian._command({**ORDER, "suite": "noble"}, {}, mirrors.keyring("noble", None))
    assert f"--keyring={keyrings}/ubuntu-archive-keyring.gpg" in command


def test_without_ubuntus_keys_the_error_names_their_package(keyrings):
    with pytest.raises(CommandExecutionError, match="jammy is a suite of Ubuntu.*apt-get install ubuntu-keyring"):
        mirrors.keyring("jammy", None)
    assert mirrors.keyring("jammy", "http://mine/ubuntu") is None, "a mirror of one's own may have keys of its own"


@pytest.mark.parametrize(
    ("suite", "is_it"), [("noble", True), ("bookworm", False), ("zesty", False), ("aardvark", True), ("", False)]
)
def test_future_suites_are_known_from_distro_info_data(tmp_path, monkeypatch, suite, is_it):
    csv = tmp_path / "ubuntu.csv"
    csv.write_text("version,codename,series,created\n28.04 LTS,Able Aardvark,aardvark,2027-10-09\n\n")
    monkeypatch.setattr(mirrors, "_UBUNTU_CSV", csv)
    assert mirrors.is_ubuntu(suite) is is_it


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param(
            "I: running apt-get update...\nE: Write error - write (28: No space left on device)\nE: it failed\n",
            "E: Write error - write (28: No space left on device)\nE: it failed",
            id="errors of apt only",
        ),
        pytest.param(
            "tar: ./x: Cannot write: No space left on device\nI: setup...\n", "tar: ./x: Cannot write: No", id="tar"
        ),
        pytest.param(
            "unshare: failed to execute mmdebstrap\n", "unshare: failed to execute mmdebstrap", id="no program"
        ),
    ],
)
def test_the_error_has_the_lines_that_matter(commands_of, said, told):
    with pytest.raises(CommandExecutionError) as raised:
        commands_of(CompletedProcess([], 1, "", said))
    what, _, output = str(raised.value).partition("\n")
    assert what == "debian bookworm could not be made; correct what apt says, and bake again:"
    assert output.startswith(told)
    assert "I: " not in str(raised.value)

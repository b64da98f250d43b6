"""Checkouts of git are alike in each bake, and git finds nothing wrong with them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from saltext.immutable.builder.finish import checkouts

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
NAMES = ("a", "folder/longer name", "folder/ünïcode", "x" * 61, "x" * 62, "x" * 63)


def git(folder, *words):
    config = ("-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "index.skipHash=false")
    done = subprocess.run(["git", *config, "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return done.stdout


def checkout(folder, version):
    """Make a checkout with one commit, whose index has this version."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    for name in NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one", "--date", "2020-01-01T00:00:00Z")
    (folder / "new").write_text("meant to be added")
    git(folder, "add", "--intent-to-add", "new")  # an entry with extended flags: version 3
    if version == 2:
        git(folder, "reset", "-q")
    git(folder, "update-index", "--index-version", str(version))
    return folder


@pytest.mark.parametrize("version", [2, 3])
def test_two_checkouts_of_the_same_files_become_alike(tmp_path, version):
    found = [checkout(tmp_path / each / "srv/app", version) for each in ("one", "two")]
    before = [git(each, "status", "--porcelain") for each in found]
    for each in ("one", "two"):
        checkouts.level(tmp_path / each)
    indexes = [(each / ".git/index").read_bytes() for each in found]
    assert indexes[0] == indexes[1] and int.from_bytes(indexes[0][4:8], "big") == version
    assert not any((each / ".git/logs").exists() for each in found)
    assert [git(each, "status", "--porcelain") for each in found] == before
    assert [git(each, "fsck", "--no-dangling") for each in found] == ["", ""]


def test_an_index_of_another_form_is_left_as_it_is(tmp_path):
    folder = checkout(tmp_path / "app", 4)
    whole = (checkout(tmp_path / "other", 2) / ".git/index").read_bytes()
    for data in ((folder / ".git/index").read_bytes(), b"", b"DIRC", whole[:-1], whole[:100], b"x" * 100):
        assert checkouts.without_stat(data) == data


def test_submodules_become_alike_too_and_a_branch_called_logs_stays(tmp_path):
    module, inner = checkout(tmp_path / "outside", 2), []
    for each in ("one", "two"):
        folder = checkout(tmp_path / each / "app", 2)
        allowed = ("-c", "protocol.file.allow=always")
        git(folder, *allowed, "submodule", "--quiet", "add", "--name", "lib/deep", str(module), "lib")
        git(folder, "branch", "logs/kept")
        checkouts.level(tmp_path / each)
        inner.append((folder / ".git/modules/lib/deep/index").read_bytes())
        assert git(folder, "branch", "--list", "logs/*").strip() == "logs/kept"
        assert not list((folder / ".git/modules/lib/deep").glob("logs"))
        assert git(folder / "lib", "status", "--porcelain") == ""
    assert inner[0] == inner[1]


def test_links_lead_nowhere(tmp_path):
    outside = checkout(tmp_path / "outside", 2)
    before = (outside / ".git/index").read_bytes()
    tree = tmp_path / "tree"
    (tree / "srv/app").mkdir(parents=True)
    (tree / "srv/app/.git").symlink_to(outside / ".git")
    (tree / "srv/two/.git").mkdir(parents=True)
    (tree / "srv/two/.git/index").symlink_to(outside / ".git/index")
    (tree / "srv/two/.git/logs").symlink_to(outside / ".git/logs")
    checkouts.level(tree)
    assert (outside / ".git/index").read_bytes() == before and (outside / ".git/logs/HEAD").exists()

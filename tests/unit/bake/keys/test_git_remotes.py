"""The commits that a bake reads are named, and pinned where Salt's gitfs can; Salt itself fetches and serves here."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.fileserver
import salt.utils.gitfs

from saltext.immutable.bake.keys import git_remotes, layer_key

ENVS = {"saltenv": None, "pillarenv": None}
WHO = ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL")
HAS_PYGIT2 = importlib.util.find_spec("pygit2") is not None
PROVIDERS = [
    "gitpython",
    pytest.param("pygit2", marks=pytest.mark.skipif(not HAS_PYGIT2, reason="needs pygit2: pip install pygit2")),
]


class Repository:
    """A remote."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *words: str) -> str:
        who = {f"GIT_{each}": "ops@example.com" for each in WHO}
        command = ["git", "-C", str(self.place), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **who}).stdout

    def push(self, **files: str) -> str:
        """Commit files, ``web`` as web.sls, and return the commit."""
        for name, text in files.items():
            (self.place / f"{name}.sls").write_text(text)
        self.git("add", ".")
        self.git("commit", "--quiet", "--message=x")
        return self.git("rev-parse", "HEAD").strip()


class World:
    """A master whose states come from gitfs."""

    def __init__(self, place: Path, provider: str) -> None:
        self.place = place
        self.own, self.formula = Repository(place / "own"), Repository(place / "formula")
        remotes = [f"file://{each.place}" for each in (self.own, self.formula)]
        self.opts: dict[str, Any] = {
            **salt.config.master_config(None),
            "__role": "master",
            "cachedir": str(place / "cache"),
            "extension_modules": str(place / "extmods"),
            "fileserver_backend": ["gitfs"],
            "file_roots": {"base": [str(place / "roots")]},
            "gitfs_base": "main",
            "gitfs_provider": provider,
            "gitfs_remotes": remotes,
            "git_pillar_provider": provider,
        }

    def serves(self, path: str = "web.sls", env: str = "base") -> str:
        """Return what the master gives to a minion that is not the bake's."""
        server = salt.fileserver.Fileserver({**self.opts, "fileserver_list_cache_time": 0})
        server.update()
        return str(server.serve_file({"path": path, "saltenv": env, "loc": 0})["data"])

    def envs(self) -> list[str]:
        return sorted(salt.fileserver.Fileserver(self.opts).envs())

    def pinned(self) -> Any:
        return git_remotes.pinned(self.opts, "web-bake", ENVS)

    def left(self) -> list[str]:
        """Return what is in the master's cache under the name of a pin."""
        return [str(path) for path in (self.place / "cache").rglob(f"{git_remotes._name('web-bake')}*")]


@pytest.fixture(autouse=True)
def no_other_gitfs():
    salt.utils.gitfs.GitFS.instance_map.clear()  # Salt has one a process, which would be that of the test before


@pytest.fixture(params=PROVIDERS)
def world(tmp_path, request) -> World:
    return World(tmp_path, request.param)


def hashes(tree: dict[str, Any]) -> dict[str, Any]:
    return layer_key.whole(tree)


def test_what_was_there_at_the_beginning_is_served_under_the_pins_and_what_is_pushed_to_all_others(world):
    own, formula = world.own.push(web="1"), world.formula.push(nginx="1")
    before = hashes(layer_key.tree(world.opts))
    with world.pinned() as remotes:
        assert remotes.reason == "" and list(remotes.pins) == ["base"]
        world.own.push(web="2")
        world.formula.push(nginx="2", more="2")
        assert (world.serves(), world.serves("nginx.sls"), world.serves("more.sls")) == ("2", "2", "2")
        assert world.envs() == ["base"], "nobody else sees an environment more"
        assert [world.serves(each, remotes.pins["base"]) for each in ("web.sls", "nginx.sls")] == ["1", "1"]
        assert hashes(layer_key.tree(world.opts, remotes.pins)) == before, "so the key is that of an unpinned bake"
        assert remotes.moved(world.opts, ENVS) == ""
    urls = [f"git+file://{each.place}" for each in (world.own, world.formula)]
    assert remotes.used(["base"], pinned=True) == [
        {"of": "states", "url": url, "ref": "main", "commit": commit, "pinned": True}
        for url, commit in zip(urls, (own, formula), strict=True)
    ]
    assert world.left() == [] and hashes(layer_key.tree(world.opts)) != before


def test_the_hash_of_a_file_is_that_of_its_content_each_time(world):
    world.own.push(web="1")
    assert hashes(layer_key.tree(world.opts)) == hashes(layer_key.tree(world.opts))
    mode, found = layer_key.tree(world.opts)["base"]["web.sls"].split()
    assert (mode, found) == ("33188", hashlib.sha256(b"1").hexdigest())


def test_what_a_killed_bake_left_is_no_hindrance_and_goes_with_the_next(world):
    world.own.push(web="1")
    killed = world.pinned()
    world.serves(env=killed.__enter__().pins["base"])
    assert world.left()
    world.own.push(web="2")
    assert world.serves() == "2"
    with world.pinned() as remotes:
        assert world.serves(env=remotes.pins["base"]) == "2"
    assert world.left() == []


def test_a_branch_is_an_environment_with_a_commit_of_its_own(world):
    base = world.own.push(web="1")
    world.own.git("checkout", "--quiet", "-b", "dev/ops")
    dev = world.own.push(web="dev")
    with world.pinned() as remotes:
        assert sorted(remotes.pins) == ["base", "dev/ops"]
        assert world.serves(env=remotes.pins["dev/ops"]) == "dev"
        assert [(each["ref"], each["commit"]) for each in remotes.commits["base"]] == [("main", base)]
        assert [(each["ref"], each["commit"]) for each in remotes.commits["dev/ops"]] == [("dev/ops", dev)]


def test_a_fallback_is_pinned_too(world):
    world.own.push(web="1")
    world.own.git("branch", "dev")
    main = world.formula.push(nginx="1")
    world.opts["gitfs_fallback"] = "main"
    with world.pinned() as remotes:
        world.formula.push(nginx="2")
        assert (world.serves("nginx.sls", "dev"), world.serves("nginx.sls", remotes.pins["dev"])) == ("2", "1")
        found = remotes.used(["dev"], pinned=False)
        assert [(each["ref"], each["commit"], each["pinned"]) for each in found[1:]] == [("main", main, False)]


def of_remote(**settings: Any) -> Any:
    """Return what gives the first remote settings of its own."""

    def change(world: World) -> dict[str, Any]:
        url, more = world.opts["gitfs_remotes"]
        return {"gitfs_remotes": [{url: [{name: value} for name, value in settings.items()]}, more]}

    return change


def with_roots(world: World) -> dict[str, Any]:
    (world.place / "roots").mkdir()
    (world.place / "roots/top.sls").write_text("base: {}")
    return {"fileserver_backend": ["roots", "gitfs"]}


@pytest.mark.parametrize("world", ["gitpython"], indirect=True)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda world: {"fileserver_backend": ["roots", "gitfs"]}, "", id="roots without a file"),
        pytest.param(with_roots, "the fileserver backend roots serves files beside gitfs", id="roots with files"),
        pytest.param(of_remote(ref_types=["branch"]), "gitfs_ref_types of .*/own has no sha", id="no commits"),
        pytest.param(of_remote(all_saltenvs="main"), "own depend on the environment", id="one branch for all"),
        pytest.param(of_remote(disable_saltenv_mapping=True), "own depend on the environment", id="no mapping"),
        pytest.param(of_remote(saltenv_whitelist=["base"]), "own depend on the environment", id="a list of them"),
        pytest.param(
            of_remote(saltenv=[{"base": [{"root": "states"}]}]), "own depend on the environment", id="a root of one"
        ),
        pytest.param(of_remote(root="states"), "", id="a root of all"),
        pytest.param(lambda world: {"gitfs_provider": "gitcli"}, "_provider gitcli serves no commits", id="gitcli"),
    ],
)
def test_what_gitfs_cannot_pin_is_not_pinned_and_its_commits_are_known_all_the_same(world, change, reason):
    (world.own.place / "states").mkdir()
    (world.own.place / "states/web.sls").write_text("1")
    commit = world.own.push(web="1")
    world.opts |= change(world)
    with world.pinned() as remotes:
        assert re.search(reason, remotes.reason) and bool(reason) == bool(remotes.reason)
        assert [each["commit"] for each in remotes.commits["base"]] == [commit]
        assert bool(remotes.pins) != bool(reason)
        assert remotes.moved(world.opts, ENVS) == ""
        later = world.own.push(web="2")
        world.serves()
        moved = f"main of git+file://{world.own.place} moved from {commit[:12]} to {later[:12]}"
        assert remotes.moved(world.opts, ENVS) == (moved if reason else "")


def test_the_commit_of_an_external_pillar_is_known(world):
    commit = world.own.push(top="{}")
    remote = f"main file://{world.own.place}"
    world.opts |= {"fileserver_backend": ["roots"], "ext_pillar": [{"git": [remote]}]}
    for each in git_remotes._pillars(world.opts, ENVS):
        each.fetch()
    with world.pinned() as remotes:
        assert (remotes.pins, remotes.reason) == ({}, "")
    known = {"of": "pillar", "url": f"git+file://{world.own.place}", "ref": "main", "commit": commit, "pinned": False}
    assert remotes.used([], pinned=True) == [known]


def test_a_master_without_repositories_has_nothing_to_pin():
    with git_remotes.pinned({}, "web-bake", ENVS) as remotes:
        assert remotes == git_remotes.Remotes()
    assert remotes.moved({}, ENVS) == ""


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("https://git.example.com/states.git", "git+https://git.example.com/states.git"),
        ("https://ops:hunter2@git.example.com/states.git", "git+https://git.example.com/states.git"),
        ("https://hun@ter2@git.example.com/states.git", "git+https://git.example.com/states.git"),
        ("https://git.example.com/states.git?private_token=hunter2", "git+https://git.example.com/states.git"),
        ("ssh://git@git.example.com:2222/states.git", "git+ssh://git.example.com:2222/states.git"),
        ("git@git.example.com:ops/states.git", "git+ssh://git.example.com/ops/states.git"),
        ("git.example.com:/srv/states.git", "git+ssh://git.example.com/srv/states.git"),
        ("file:///srv/states.git", "git+file:///srv/states.git"),
        ("/srv/states.git", "git+file:///srv/states.git"),
    ],
)
def test_a_url_has_no_credentials(url, plain):
    assert git_remotes.plain_url(url) == plain

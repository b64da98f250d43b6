"""A tree in gitfs is baked as it was at the beginning, whatever is pushed meanwhile; provenance names its commit."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BAKE_ID = "web-repository.tests.example.com"
WHO = {f"GIT_{role}_{what}": "ops" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
FILES = {
    "repository/init.sls": """
/etc/before: {file.managed: [{contents: 'rendered VERSION, module {{ salt["repository.version"]() }}'}]}
sleep 4: {cmd.run: [{creates: /etc/repository}]}
/etc/repository: {file.managed: [{source: 'salt://repository/served'}]}
""",
    "repository/served": "served VERSION\n",
    "repository/saltcheck-tests/init.tst": """
served: {module_and_function: file.contains, args: [/etc/repository, VERSION], assertion: assertTrue}
""",
    "_modules/repository.py": "def version():\n    return VERSION\n",
}


class Repository:
    """A remote whose every commit changes all that a bake reads of it."""

    def __init__(self, place: Path) -> None:
        self.place, self.commits = place, dict[str, int]()
        place.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *words: str) -> str:
        command = ["git", "-C", str(self.place), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **WHO}).stdout

    def push(self) -> str:
        version = 1000 + len(self.commits)
        for name, text in FILES.items():
            file = self.place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("VERSION", str(version)))
        self.git("add", ".")
        self.git("commit", "--quiet", "--message=x")
        commit = self.git("rev-parse", "HEAD").strip()
        self.commits[commit] = version
        return commit

    @contextmanager
    def pushed_while(self, key: Path) -> Iterator[None]:
        """Push each second as long as a file is there: the key of the machine that bakes."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(1.0):
                if key.exists():
                    self.push()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Repository:
    return Repository(tmp_path_factory.mktemp("remotes") / "states")


def settings(repository: Repository, **more: Any) -> dict[str, Any]:
    """Return master config: states come from gitfs, and the master fetches every second."""
    gitfs = {"remotes": [f"file://{repository.place}"], "base": "main", "provider": "gitpython", "update_interval": 1}
    own = {f"gitfs_{name}": value for name, value in {**gitfs, **more}.items()}
    return {"fileserver_backend": ["gitfs"], "loop_interval": 1, **own}


def baked(estate) -> tuple[dict[str, Any], list[str], str]:
    """Bake; return the report, the files that the states wrote, and what was said."""
    answer = estate.salt_run("image.bake", "repository")
    report = answer.data
    tree = estate.host.layers / report["layers"][-1]["digest"] / "fs/etc"
    return report, [(tree / name).read_text().strip() for name in ("before", "repository")], answer.stderr


def written(version: int) -> list[str]:
    return [f"rendered {version}, module {version}", f"served {version}"]


def test_a_push_during_each_build_neither_fails_the_bake_nor_comes_into_the_image(estate, configured, repository):
    first = repository.push()
    with configured(**settings(repository)):
        with repository.pushed_while(estate.pki / "minions" / BAKE_ID):
            report, files, said = baked(estate)
        assert "pinned to the commits" in said and "building the layer again" not in said
        assert len(repository.commits) > 2, "it was pushed to"
        assert files == written(repository.commits[first])
        commit = {"of": "states", "url": f"git+file://{repository.place}", "ref": "main", "commit": first}
        assert report["layers"][-1]["git"] == [{**commit, "pinned": True}]
        made = estate.salt_run("image.provenance", report["image"]).data["predicate"]["buildDefinition"]
        [remote] = [each for each in made["resolvedDependencies"] if "uri" in each]
        assert (remote["uri"], remote["digest"]) == (commit["url"], {"gitCommit": first})
        gitfs = estate.home / "run/cache/gitfs"
        assert gitfs.is_dir() and not [path for path in gitfs.rglob("refs/heads/*") if path.is_file()], "a pin is left"

        last = list(repository.commits)[-1]
        later, files, _ = baked(estate)
        assert files == written(repository.commits[last]) and later["digest"] != report["digest"]
        assert [each["commit"] for each in later["layers"][-1]["git"]] == [last]

    repository.git("reset", "--quiet", "--hard", first)
    with configured(**settings(repository, ref_types=["branch", "tag"])):
        again, _, said = baked(estate)
    assert "has no sha), so a push that changes them has the layer built again" in said
    assert [each["pinned"] for each in again["layers"][-1]["git"]] == [False]
    assert again["digest"] == report["digest"]

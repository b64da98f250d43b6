"""What is written down of an image so that it can be compared with the next one."""

from __future__ import annotations

import pytest

from saltext.immutable.bake import contents
from saltext.immutable.spec.model import Recipe
from saltext.immutable.spec.origins import Parent
from saltext.immutable.store import Image, Store

WEB = Recipe("web", Parent("base"), "web-bake", states="highstate", secrets=("db:password",))
BASE_FILES = {
    "top.sls": "33188 aaaaaaaaaaaaaaaa",
    "common.sls": "33188 bbbbbbbbbbbbbbbb",
    "motd": "33188 cccccccccccccccc",
    "web/": "",
    "web.sls": "",  # asked for first, and not there
    "web/init.sls": "33188 dddddddddddddddd",
    "web/tls.sls": "33188 eeeeeeeeeeeeeeee",
    "web/files/nginx.conf": "33188 ffffffffffffffff",
    "db/my.cnf": "33188 0000000000000000",
}


def made_from(**files):
    return {"files": files or {"base": BASE_FILES}, "pillar": "1" * 64, "tops": "2" * 64}


def test_of_each_sls_that_was_applied_the_hash_is_kept():
    told = contents.of_states(WEB, made_from(), ["web", "web.tls", "common", "generated"])
    assert told["sls"] == {"common": "b" * 12, "generated": "", "web": "d" * 12, "web.tls": "e" * 12}
    assert (told["pillar"], told["tops"]) == ("1" * 12, "2" * 12)
    assert told["recipe"]["secrets"] == ("db:password",), "the paths, never the values"


@pytest.mark.parametrize(
    ("sls", "files"),
    [
        pytest.param(["web"], {"web/files/nginx.conf"}, id="beside a formula: its folder and below"),
        pytest.param(["common"], {"motd"}, id="beside an SLS of the root: only what lies right there"),
        pytest.param([], set(), id="beside nothing"),
        pytest.param(None, set(), id="unknown"),
    ],
)
def test_files_are_kept_that_lie_beside_the_states(sls, files):
    assert set(contents.of_states(WEB, made_from(), sls)["files"]) == files


def test_the_recipes_own_environment_counts_where_two_have_a_file():
    both = made_from(base={"web.sls": "33188 base00000000"}, prod={"web.sls": "33188 prod00000000"})
    assert contents.of_states(WEB, both, ["web"])["sls"] == {"web": "base00000000"}


def test_a_change_anywhere_in_the_tree_is_seen():
    before, after = made_from(), made_from(base={**BASE_FILES, "db/my.cnf": "33188 1111"})
    trees = {contents.of_states(WEB, made, ["web"])["tree"] for made in (before, after)}
    assert len(trees) == 2


def test_contents_are_kept_as_long_as_their_image():
    store = Store.open("sqlite://")
    store.add_image(Image("a" * 64, "web", ("l",), 1.0, True, {}))
    assert contents.find(store, "a" * 64) is None
    for version in ("1", "2"):
        contents.keep(store, "a" * 64, {"packages": {"nginx": version}})
    assert contents.find(store, "a" * 64) == {"packages": {"nginx": "2"}}
    store.delete_image("a" * 64)
    assert contents.find(store, "a" * 64) is None

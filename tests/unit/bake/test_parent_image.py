"""A recipe that begins with a baked image: what it stands on, what it inherits, when it is built again."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest
import sqlalchemy as sa
from salt.exceptions import CommandExecutionError, SaltInvocationError
from test_baking import WEB, baked, master, store  # noqa: F401

from saltext.immutable.bake import bake as baking
from saltext.immutable.bake import contents
from saltext.immutable.bake.commands import catalog
from saltext.immutable.bake.commands.prune import Prune
from saltext.immutable.bake.commands.revoke import Revocations
from saltext.immutable.bake.context import silent
from saltext.immutable.bake.keys import changed_inputs, last_bake
from saltext.immutable.bake.steps.commit import commit
from saltext.immutable.spec.model import Definitions, Guard, Recipe, Settings, Slim
from saltext.immutable.spec.origins import Parent, ParentImage
from saltext.immutable.store import Image, Store
from saltext.immutable.store.schema import contents as table

SITE = Recipe("site", ParentImage("web:stable"), "site-bake", states="highstate")
CHILD = Recipe("child", Parent("web"), "child-bake", states="highstate")
FULL = replace(
    WEB,
    grains={"roles": ["web"]},
    secrets=("db:password",),
    at_boot=("auditd",),
    slim=Slim(docs="keep"),
    guard=Guard(allow=("cp.get_url",), dry_runs=False, returners=("mysql",)),
    writable=("/srv/data",),
    exec=("/srv/data/bin",),
    limits={"nginx.service": {"memory": 1 << 27}},
    mutable=("/etc/motd",),
    at_launch=("peers",),
)
"""With something of all that a child inherits."""


@pytest.fixture
def site(master, baked):
    master.recipes |= {"site": SITE, "child": CHILD, "web": FULL}
    return lambda **more: baked("site", **more)


def described(master, store, name, report):
    """Return what follows from the recipes above of an image, and how its layer of states was ordered."""
    found = {what: master.images[report["digest"]][what] for what in ("layers", "grains", "policy")}
    order = {what: master.orders[-1][what] for what in ("secrets", "at_boot", "slim", "running", "minion", "below")}
    kept = contents.find(store, report["digest"])
    about = {what: kept[what] for what in ("packages", "size", "files")}
    below = {what: kept["children"][what] for what in ("secrets", "at_boot", "slim", "machine")}
    return found | {"layers": len(found["layers"]), "recipes": len(kept["states"])}, order, about, below


def test_a_child_of_an_image_inherits_what_a_child_of_its_recipe_does(master, baked, store, site):
    built = master._layer
    services = {"services": {"nginx.service": True}, "deferred": [{"state": "vm.x", "what": "x", "applied_by": "y"}]}
    master._layer = lambda order, **about: built(order, **about, **(services if "web" in order["what"] else {}))
    parent = baked("web")
    by_recipe = described(master, store, "child", baked("child"))
    assert master.built == ["states of child"]
    report = site()
    by_image = described(master, store, "site", report)
    assert master.built == ["states of site"], "the layers of the parent are those that are there"
    assert by_image == by_recipe
    policy = by_image[0]["policy"]
    assert (policy["running"], policy["not_previewed"]) == (["nginx.service"], ["vm.x"])
    assert policy["guard"]["returners"] == ["mysql"] and len(policy["states"]) == 2
    image, above = store.image(report["digest"]), store.image(parent["digest"])
    assert image.layers[:-1] == above.layers
    assert [layer["what"] for layer in report["layers"]] == [*(f["what"] for f in parent["layers"]), "states of site"]
    provenance = master.proofs[image.digest]["provenance"]["predicate"]["buildDefinition"]["resolvedDependencies"]
    origin = {"image": above.name, "digest": above.digest}
    assert [each["annotations"]["from"] for each in provenance[:-1]] == [origin] * 3


def test_a_grandchild_inherits_over_an_image(master, baked, store, site):
    baked("web")
    site()
    master.recipes["leaf"] = Recipe("leaf", ParentImage("site:stable"), "leaf-bake", states="highstate")
    baked("leaf")
    assert master.orders[-1]["secrets"] == ["db:password"]
    assert master.orders[-1]["slim"]["docs"] == "keep"


def test_the_image_is_pinned_until_the_channel_moves_and_why_names_it(master, baked, store, site):
    first = store.image(baked("web")["digest"]).name
    site()
    assert site()["cached"]
    master.tree = "2"
    second = store.image(baked("web")["digest"]).name
    master.tree = "1"
    builds, changed = site(preview=True), f"parent image web:stable moved from {first} to {second}"
    assert not builds["cached"]
    assert site()["changed"]
    why = last_bake.last(store, "site")
    assert why["because"] == [changed]
    assert changed_inputs.of_layers({**why["layers"], "x": {}}, why["layers"]) == ["x is gone"]


def test_one_image_stays_the_parent(master, baked, store, site):
    digest = baked("web")["digest"]
    master.recipes["site"] = replace(SITE, source=ParentImage(f"web@{digest[:6]}"))
    first = site()
    master.tree = "2"
    baked("web")
    master.tree = "1"
    assert site()["digest"] == first["digest"]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        pytest.param("nothing", "no image is in web:stable", id="none was baked"),
        pytest.param("revoked", "was revoked on .*: old; promote another", id="revoked"),
        pytest.param("ancestor", "site would be built on base@.* was revoked", id="built on a revoked one"),
        pytest.param("damaged", r"site cannot be built on web:stable \(from: image\): image .* is dam", id="damaged"),
        pytest.param("older", "was baked before images could be parents", id="of an earlier version"),
    ],
)
def test_an_image_that_may_not_be_used_is_no_parent(master, baked, store, site, wrong, error):
    if wrong != "nothing":
        base, web = baked("base")["digest"], baked("web")["digest"]
        if wrong in ("revoked", "ancestor"):
            Revocations(store, silent).revoke(web if wrong == "revoked" else base, "old")
        elif wrong == "damaged":
            master.damaged.add(web)
        else:
            with store.write() as tx:
                made_from = contents.find(store, web)
                del made_from["children"]
                tx.execute(sa.update(table).where(table.c.digest == web).values(made_from=made_from))
    master.built.clear()
    with pytest.raises((CommandExecutionError, SaltInvocationError), match=error):
        site()
    assert "states of site" not in master.built


@pytest.mark.parametrize(
    ("paths", "error"),
    [
        pytest.param({"writable": ("/srv",)}, "site:writable: /srv/data is within /srv \\(the image", id="writable"),
        pytest.param({"exec": ("/opt/tool",)}, "site:exec: /opt/tool is not where machines write", id="exec"),
        pytest.param({"exec": ("/srv/data/tool",)}, None, id="exec in what the image has"),
    ],
)
def test_paths_have_to_go_with_those_of_the_image(master, baked, site, paths, error):
    baked("web")
    master.recipes["site"] = replace(SITE, **paths)
    if error is None:
        assert site()["changed"]
        return
    with pytest.raises(SaltInvocationError, match=error):
        site()


def test_updates_of_packages_that_the_parent_has_come_with_its_next_image(master, baked, site):
    baked("web")
    site()
    master.candidates = {"nginx:amd64": "2"}
    assert site(refresh="updates")["cached"], "the state layer has nginx as its parent has it"


def test_prune_keeps_the_one_image_that_a_recipe_names(master, baked, store, site):
    old = baked("web")["digest"]
    master.tree = "2"
    baked("web")
    recipes = {"web": replace(WEB, keep=1), "site": replace(SITE, source=ParentImage(old))}
    builder = {"image_users": {}, "collect": {"images": [], "layers": {}, "caches": {}, "leftovers": {}}}
    work = Prune(store, lambda name, **_: builder[name], Definitions(recipes, {}))
    assert work.prune("web", test=True)["kept"][store.image(old).name] == "needed by recipe site (from: image)"




def test_a_parent_that_is_revoked_while_its_child_is_baked_has_no_child(master, baked, store, site, monkeypatch):
    web = baked("web")["digest"]
    before = baking.IMAGE.index(commit)

    def revoked_meanwhile(context, stack):
        Revocations(store, silent).revoke(web, "openssl 3.0.11")
        return stack

    monkeypatch.setattr(baking, "IMAGE", (*baking.IMAGE[:before], revoked_meanwhile, *baking.IMAGE[before:]))
    with pytest.raises(CommandExecutionError, match="site would be built on web@.* was revoked .*openssl 3.0.11"):
        site()
    assert store.channel("site", "stable") is None


@pytest.mark.parametrize("test", [True, False])
def test_the_one_image_that_a_recipe_names_is_not_deleted(tmp_path, monkeypatch, test):
    url = f"sqlite:///{tmp_path}/store.sqlite"
    digest = "3f2a9c1d04be" + "0" * 52
    with closing(Store.open(url)) as opened:
        opened.add_image(Image(digest, "web", ("a" * 64,), 1.0, True, {}))
    recipes = {"site": replace(SITE, source=ParentImage("web@3f2a9c"))}
    monkeypatch.setattr(catalog.spec, "settings", lambda opts: Settings(root=tmp_path, store=url))
    monkeypatch.setattr(catalog.minions, "definitions", lambda opts: Definitions(recipes, {}))
    with pytest.raises(CommandExecutionError, match=r"needed by recipe site \(from: image\); give them another one"):
        catalog.delete({}, "web@3f2a9c", with_channels=False, test=test)

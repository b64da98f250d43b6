"""The lifecycle of images in Salt's own loader, and what fleets say to it; nothing is baked, machines are simulated."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

import copy
import json
import time

import pytest
import yaml
from test_fleet_runner import ONE, PILLAR, TWO, bus, opts, publish, rack, run, store  # noqa: F401

from saltext.immutable import spec
from saltext.immutable.bake import bake, signatures
from saltext.immutable.bake.commands import catalog, prune
from saltext.immutable.host import Host
from saltext.immutable.machines import images
from saltext.immutable.store import Image

THREE = "3" * 64


@pytest.fixture
def host(tmp_path, monkeypatch):
    """The builder: this host, whoever runs the tests."""
    monkeypatch.setattr("saltext.immutable.host.require_root", lambda: None)
    host = Host(tmp_path / "root-of-builder")
    host.prepare()
    worker = lambda *_: lambda name, **kwargs: bake.LOCAL[name](host, **kwargs)  # noqa: E731
    monkeypatch.setattr(prune, "Worker", worker)
    monkeypatch.setattr(catalog, "Worker", worker)
    return host


@pytest.fixture
def baked(host, store):
    """Return what makes an image that is on the builder too, so many days old."""

    def baked(digest, days, recipe="web"):
        (host.images / digest).mkdir()
        images.metadata_file(host, digest).write_text(json.dumps({"layers": []}))
        store.add_image(Image(digest, recipe, (digest,), time.time() - days * 86400, True, {}))

    return baked


def test_a_channel_is_moved_shown_and_rolled_back(run, store, bus, opts):
    publish(store, ONE)
    image = Image(TWO, "web", (TWO,), time.time(), True, {})
    store.add_image(image)
    ok, said = run("image.promote", "web@222222222222")
    assert not ok and "web@222222222222 is not signed" in said
    order = {"recipe": "web", "layers": [TWO], "read_only": True, "grains": {}, "policy": {}}
    made = {**order, "above": [], "proof": None}
    signatures.sign_image(lambda *_, **__: None, store, spec.settings(opts), image, made, None)
    assert run("image.promote", "web@222222222222", test=True)[1]["comment"] == "web:stable would name web@222222222222"
    ok, told = run("image.promote", "web@222222222222", reason="a good week")
    assert ok and (told["from"], told["changed"]) == ("web@111111111111", True), told
    assert "immutable/image/promote" in [tag for tag, _ in bus.said]
    ok, shown = run("image.channels", "web")
    assert shown["channels"] == {"stable": "web@222222222222"}
    assert (shown["history"][0]["reason"], bool(shown["history"][0]["who"])) == ("a good week", True)
    assert run("image.rollback", "web", reason="slow")[1]["image"] == "web@111111111111"
    ok, said = run("image.rollback", "web")
    assert not ok and "image.promote" in said


def test_a_revoked_image_is_told_of_by_whoever_meets_it(run, store, bus):
    publish(store, ONE)
    assert run("fleet.roll", "web")[0]
    ok, said = run("image.revoke", "web:stable")
    assert not ok and "reason: say why" in said
    ok, told = run("image.revoke", "web:stable", reason="openssl")
    assert ok and told["fleets"] == {"web": {"web@111111111111": 3}}, told
    assert "immutable/image/revoked" in [tag for tag, _ in bus.said]
    assert run("image.list")[1]["web@111111111111"]["revoked"] == "openssl"
    assert "openssl" in run("image.show", "web:stable")[1]["revoked"]
    assert "openssl" in run("fleet.status", "web")[1]["revoked"][0]
    for fun in ("fleet.plan", "fleet.roll"):
        ok, said = run(fun, "web")
        assert not ok and "openssl; promote another: salt-run image.promote web@... channel=stable" in said
    assert run("image.unrevoke", "web:stable", reason="a false alarm")[1]["changed"]
    assert run("fleet.plan", "web")[1]["verdict"] == "done"


def test_reconcile_leaves_a_revoked_image_where_the_pillar_asks_for_it(run, rack, store, tmp_path):
    publish(store, ONE)
    assert run("fleet.roll", "web")[0]
    pillar = copy.deepcopy(PILLAR)
    pillar["immutable"]["fleets"]["web"]["revoked"] = "replace"
    (tmp_path / "pillar/immutable.sls").write_text(yaml.safe_dump(pillar))
    assert run("image.revoke", ONE, reason="openssl")[0], "Salt makes a number of it"
    publish(store, TWO)
    ok, told = run("fleet.reconcile", "web", orphans=False)
    assert ok and told["fleets"]["web"]["did"] == "rolled", told
    assert {machine.image for machine in rack.machines.values()} == {TWO}


def test_prune_keeps_what_the_pillar_and_the_fleets_need(run, rack, store, host, baked, tmp_path):
    pillar = copy.deepcopy(PILLAR)
    pillar["immutable"]["recipes"]["web"] |= {"keep": 1, "keep_for": "30d"}
    (tmp_path / "pillar/immutable.sls").write_text(yaml.safe_dump(pillar))
    for days, digest in enumerate((ONE, TWO, THREE, "4" * 64)):
        baked(digest, 100 - days)
    baked("5" * 64, 200, "base")
    store.set_channel("web", "stable", ONE)
    assert run("fleet.roll", "web")[0]
    store.set_channel("web", "stable", TWO)
    ok, told = run("image.prune", test=True)
    assert ok and list(told["deleted"]) == ["web@333333333333"], told
    assert told["kept"] == {
        "base@555555555555": "recipe base has neither keep nor keep_for",
        "web@111111111111": "needed by generation 1 of fleet web",
        "web@222222222222": "needed by channel web:stable",
        "web@444444444444": "number 1 of the newest 1",
    }
    assert len(store.images()) == 5
    assert run("image.prune", "web")[1]["deleted"] == told["deleted"]
    assert not images.metadata_file(host, THREE).exists() and images.metadata_file(host, ONE).exists()
    with store.lease("baking web 1234", 60):
        ok, said = run("image.prune")
        assert not ok and "bakes web, and no image is deleted meanwhile" in said
        ok, said = run("image.delete", "web@444444444444")
        assert not ok and "bakes web" in said
    assert run("image.delete", "web@444444444444")[1]["deleted"]
    assert not images.metadata_file(host, "4" * 64).exists()

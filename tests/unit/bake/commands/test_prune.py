"""Images beyond what their recipe keeps go, from the books and from the builder; a real one, without machines."""

from __future__ import annotations

import json

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.bake import bake
from saltext.immutable.bake.commands import prune
from saltext.immutable.bake.commands.revoke import Revocations
from saltext.immutable.bake.context import silent
from saltext.immutable.builder import garbage
from saltext.immutable.images import layers
from saltext.immutable.machines import images, overlay
from saltext.immutable.spec.model import Definitions, Recipe
from saltext.immutable.spec.origins import Debian
from saltext.immutable.store import Image, Store

DAY = 86400.0
NOW = 1000 * DAY
WEB = Recipe("web", Debian("bookworm"), "web-bake", keep=2)


@pytest.fixture
def store():
    opened = Store.open("sqlite://", clock=lambda: NOW)
    yield opened
    opened.close()


@pytest.fixture
def builder(host):
    return lambda name, **kwargs: bake.LOCAL[name](host, **kwargs)


@pytest.fixture
def work(store, builder):
    return prune.Prune(store, builder, Definitions({"web": WEB}, {}), "jane")


@pytest.fixture
def baked(host, store, monkeypatch):
    """Bake an image of a common layer and one of its own, so many days ago; return its name."""
    monkeypatch.setattr(layers, "run", lambda command: None)

    def layer(text):
        with host.workspace() as place:
            (place / "fs").mkdir()
            (place / "fs/a").write_text(text)
            return layers.commit(host, place, what=text).digest

    def baked(age, recipe="web"):
        digest = f"{age:03}{recipe}".ljust(64, "0")
        stack = [layer("base"), layer(f"{recipe} of {age}")]
        (host.images / digest).mkdir()
        images.metadata_file(host, digest).write_text(json.dumps({"layers": stack}))
        store.add_image(Image(digest, recipe, tuple(stack), NOW - age * DAY, True, {}))
        return store.image(digest).name

    return baked


def test_what_is_beyond_goes_with_the_layers_that_nothing_else_needs(host, store, work, baked):
    one, two, old = baked(1), baked(2), baked(3)
    told = work.prune(None, test=True)
    assert len(store.images()) == len(list(host.images.iterdir())) == 3
    done = work.prune(None, test=False)
    assert done["deleted"] == told["deleted"] == {old: "number 3, and the newest 2 are kept"}
    assert done["kept"] == {one: "number 1 of the newest 2", two: "number 2 of the newest 2"}
    assert [layer["what"] for layer in done["layers"].values()] == ["web of 3"]
    assert (done["layers"], done["freed"]) == (told["layers"], told["freed"])
    assert done["freed"] == len("web of 3")
    assert [image.name for image in store.images()] == [one, two]
    assert len(list(host.layers.iterdir())) == 3
    assert work.prune(None, test=False)["deleted"] == {}


def test_the_key_that_a_killed_bake_left_on_the_master_goes(store, builder):
    store.add_enrolled("web-bake")
    forgotten: list[str] = []
    work = prune.Prune(store, builder, Definitions({"web": WEB}, {}), "jane", forgotten.append)
    work.prune(None, test=True)
    assert (forgotten, store.enrolled()) == ([], {"web-bake"})
    work.prune(None, test=False)
    assert (forgotten, store.enrolled()) == (["web-bake"], set())


def test_what_a_channel_names_stays(store, work, baked):
    names = [baked(age) for age in (1, 2, 3)]
    store.set_channel("web", "stable", store.image(names[2]).digest)
    assert work.prune(None, test=False)["kept"][names[2]] == "needed by channel web:stable"
    assert len(store.images()) == 3


def test_what_a_machine_runs_on_stays_though_no_book_says_so(host, store, work, baked):
    names = [baked(age) for age in (1, 2, 3)]
    digest = store.image(names[2]).digest
    (host.machines / "web-1").mkdir()
    machine = {"minion_id": "web-1", "image": digest, "lower": [overlay.seal_name(digest)], "minion": {}}
    (host.machines / "web-1/machine.json").write_text(json.dumps({**machine, "bridge": "b", "subnet": "s"}))
    assert work.prune(None, test=False)["kept"][names[2]] == "needed by machine web-1"


def test_what_came_to_be_needed_meanwhile_stays(store, work, baked, monkeypatch):
    names = [baked(age) for age in (1, 2, 3)]
    before = prune.decide

    def decide(*args):
        verdicts = before(*args)
        store.set_channel("web", "beta", store.image(names[2]).digest)
        return verdicts

    monkeypatch.setattr(prune, "decide", decide)
    done = work.prune(None, test=False)
    assert (done["deleted"], done["layers"]) == ({}, {})
    assert "needed by channel web:beta" in done["kept"][names[2]]


def test_a_revoked_image_goes_when_nothing_needs_it_and_stays_revoked(store, work, baked):
    names = [baked(age) for age in (1, 2, 3)]
    digest = store.image(names[0]).digest
    Revocations(store, silent).revoke(digest, "openssl")
    assert work.prune(None, test=False)["deleted"] == {names[0]: "revoked, and the newest 2 are kept"}
    assert set(store.revoked()) == {digest}


def test_another_recipe_is_left_alone_when_one_is_named(store, work, baked):
    old = baked(5, "db")
    for age in (1, 2, 3):
        baked(age)
    assert list(work.prune("db", test=False)["kept"]) == [old]
    assert len(store.images()) == 4
    with pytest.raises(SaltInvocationError, match="no recipe 'shop', and no image of it; there are: db, web"):
        work.prune("shop", test=False)


def test_an_image_that_a_kill_left_on_the_builder_goes_with_the_next_prune(host, store, work, baked, monkeypatch):
    for age in (1, 2, 3):
        baked(age)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bake.LOCAL, "collect", _die)
        with pytest.raises(KeyboardInterrupt):
            work.prune(None, test=False)
    assert (len(store.images()), len(list(host.images.iterdir()))) == (2, 3)
    done = work.prune(None, test=False)
    assert [digest[:3] for digest in done["unknown"]] == ["003"]
    assert len(list(host.images.iterdir())) == 2


def _die(*_args, **_kwargs):
    raise KeyboardInterrupt


def test_the_command_is_refused_while_one_bakes_but_not_its_preview(tmp_path, host, monkeypatch):
    opts = {"immutable": {"store": f"sqlite:///{tmp_path}/store.sqlite", "root": str(host.root)}}
    monkeypatch.setattr(prune.minions, "definitions", lambda opts: Definitions({"web": WEB}, {}))
    monkeypatch.setattr(prune, "Worker", lambda *_: lambda name, **kwargs: bake.LOCAL[name](host, **kwargs))
    said = []
    tell = lambda message, tag, **data: said.append(tag)  # noqa: E731
    store = Store.open(opts["immutable"]["store"])
    with prune.locks.baking(store, "web", silent):
        with pytest.raises(CommandExecutionError, match="bakes web, and no image is deleted meanwhile"):
            prune.prune(opts, None, tell, test=False)
        assert prune.prune(opts, None, tell, test=True)["deleted"] == {}
    assert said == []
    prune.prune(opts, None, tell, test=False)
    assert said == ["image/pruned"]
    store.close()


def test_the_local_table_has_the_functions_of_garbage():
    assert (bake.LOCAL["collect"], bake.LOCAL["image_users"]) == (garbage.collect, garbage.image_users)

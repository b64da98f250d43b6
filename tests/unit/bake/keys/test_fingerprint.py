"""A fingerprint changes with everything that images are made from; where it cannot tell of all, there is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saltext.immutable.bake.keys import fingerprint, last_bake, up_to_date
from saltext.immutable.spec.model import Minion, Recipe, Settings, VirtualMachine
from saltext.immutable.spec.origins import Debian, Directory, Parent
from saltext.immutable.store import Image, Store, revocations

CHAIN = [Recipe("base", Debian("bookworm"), "base-bake", Minion()), Recipe("web", Parent("base"), "web-bake")]
DIGEST = "d" * 64
KEY = "k" * 64


class World:
    """A master's folders and options."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in ("states/web/init.sls", "pillar/top.sls"):
            self.write(name, "a: b")
        self.opts: dict[str, Any] = {
            "file_roots": {"base": [str(place / "states")]},
            "pillar_roots": {"base": [str(place / "pillar")]},
            "fileserver_backend": ["roots"],
            "renderer": "jinja|yaml",
            "grains": {"os": "Debian"},
            "__cli": "salt-run",
            "fun": "image.bake",
            "sets": {"b", "a"},
        }
        self.settings = Settings(root=place)

    def write(self, name: str, text: str) -> None:
        (self.place / name).parent.mkdir(parents=True, exist_ok=True)
        (self.place / name).write_text(text)

    def take(self) -> str | None:
        return fingerprint.take(self.opts, self.settings, b"s")

    def lasting(self, chain: list[Recipe] = CHAIN, later: float = 10) -> bool:
        return fingerprint.lasting(self.opts, chain, (self.place / "states/web/init.sls").stat().st_mtime + later)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def test_nothing_changed(world):
    first = world.take()
    assert first is not None and world.take() == first
    world.opts["__cli"], world.opts["fun"] = "salt", "fleet.rebuild"
    assert world.take() == first, "how it was called does not count"


def same_size_and_time(world: World) -> None:
    file = world.place / "states/web/init.sls"
    stat = file.stat()
    file.write_text("a: c")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda world: world.write("states/web/init.sls", "a: bc"), id="a state"),
        pytest.param(same_size_and_time, id="a state that looks as old and as long"),
        pytest.param(lambda world: world.write("states/web/new", ""), id="a file more"),
        pytest.param(lambda world: (world.place / "states/web/init.sls").unlink(), id="a file less"),
        pytest.param(lambda world: (world.place / "states/web/init.sls").chmod(0o600), id="a mode"),
        pytest.param(lambda world: (world.place / "states/empty").mkdir(), id="an empty folder"),
        pytest.param(lambda world: world.write("states/web/__pycache__/a", "b"), id="a file in a folder of that name"),
        pytest.param(lambda world: (world.place / "states/link").symlink_to("web"), id="a link"),
        pytest.param(lambda world: world.write("pillar/top.sls", "a: bc"), id="the pillar"),
        pytest.param(lambda world: world.opts.update(state_top="x"), id="an option of the master"),
        pytest.param(lambda world: world.opts["grains"].update(os="Other"), id="a grain of the master"),
    ],
)
def test_a_change_gives_another(world, change: Callable[[World], None]):
    before = world.take()
    change(world)
    assert world.take() not in (before, None)


def test_what_a_link_leads_to_counts(world):
    world.write("elsewhere/file", "1")
    (world.place / "states/link").symlink_to(world.place / "elsewhere")
    before = world.take()
    world.write("elsewhere/file", "12")
    assert world.take() != before


def test_links_that_lead_in_circles_or_nowhere_end(world):
    (world.place / "states/circle").symlink_to(world.place / "states")
    (world.place / "states/nowhere").symlink_to("-")
    assert world.take() == world.take() is not None


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"ext_pillar": [{"cmd_yaml": "x"}]}, id="an external pillar"),
        pytest.param({"master_tops": {"x": 1}}, id="external tops"),
        pytest.param({"fileserver_backend": ["roots", "gitfs"]}, id="a repository"),
        pytest.param({"file_roots": {"__env__": ["/srv/__env__"]}}, id="environments of any name"),
        pytest.param({"renderer": "py"}, id="pillar in Python"),
    ],
)
def test_what_is_not_in_folders_of_this_host_gives_none(world, more):
    world.opts.update(more)
    assert world.take() is None


def test_another_host_that_bakes_gives_none(world):
    world.settings = replace(world.settings, builder="builder.example.com")
    assert world.take() is None


@pytest.mark.parametrize(
    ("text", "lasts"),
    [
        ("minion: {pip: salt}", True),
        ("a: {{ grains['os'] }}", True),
        ("a: {{ salt['cmd.run']('date') }}", False),
        ("{% set s = salt %}", False),
        ("a: {{ None | strftime }}", False),
        ("a: {{ None | date_format('%d') }}", False),
        ("a: {{ '/etc/hostname' | file_hashsum }}", False),
        ("{% load_yaml as day %}2026-01-01{% endload %}\na: {{ day.today() }}", False),
        ("#!py\ndef run(): return {}", False),
    ],
)
def test_a_pillar_that_asks_for_more_than_its_files_lasts_for_no_time(world, text, lasts):
    world.write("pillar/top.sls", text)
    assert world.lasting() is lasts


def test_what_changed_a_moment_ago_could_change_once_more_unseen(world):
    assert not world.lasting(later=1)


def test_roots_that_lie_elsewhere_are_looked_at_each_time(world):
    assert not world.lasting([Recipe("base", Directory("/srv/root"), "base-bake", Minion()), CHAIN[1]])


def test_so_is_a_kernel_of_the_builder(world):
    vm = VirtualMachine(vmlinuz="/boot/vmlinuz", initrd="/boot/initrd.img")
    base, web = CHAIN
    assert world.lasting([base, replace(web, vm=vm)])
    assert not world.lasting([base, replace(web, vm=vm, bake_in="vm")])


# The answer


@pytest.fixture
def store():
    opened = Store.open("sqlite://")
    layer = {"what": "states of web", "digest": "1" * 64, "cached": False, "damaged": "was", "unusable": ["web@1"]}
    report = {"layers": [layer], "warnings": ["w"], "packages": 3, "policy": {}, "salt": "1"}
    opened.add_image(Image(DIGEST, "web", ("1" * 64,), 1.0, True, report))
    opened.set_channel("web", "stable", DIGEST)
    yield opened
    opened.close()


class Builder:
    def __init__(self) -> None:
        self.has, self.swept = True, 0
        self.leads: dict[str, dict[str, str]] = {KEY: {"digest": "1" * 64, "damaged": ""}}

    def __call__(self, name: str, **kwargs: Any) -> Any:
        if name == "sweep":
            self.swept += 1
        if name == "find_layer":
            return self.leads.get(kwargs["key"])
        return self.has


@pytest.fixture
def ask(world, store, monkeypatch):
    """Return what asks for the answer to a bake."""
    monkeypatch.setattr(fingerprint, "_SETTLED", -10.0)
    builder = Builder()

    def ask(**how: Any) -> Any:
        builder.has = how.get("has", True)
        return up_to_date.UpToDateCheck.begin(store, world.opts, world.settings, "web", "stable").answer(builder)

    def bake(**how: Any) -> None:
        chain = [CHAIN[0], replace(CHAIN[1], **how.get("recipe", {}))]
        check = up_to_date.UpToDateCheck.begin(store, world.opts, world.settings, "web", "stable")
        how.get("during", lambda: None)()
        layers = [{"key": KEY, "digest": "1" * 64, **layer} for layer in how.get("layers", [{}])]
        check.keep(chain, layers, DIGEST)

    ask.bake, ask.builder = bake, builder
    return ask


def test_the_answer_is_that_of_a_bake_that_builds_nothing(ask):
    assert ask() is None
    ask.bake()
    told = ask()
    assert (told["image"], told["digest"], told["changed"], told["cached"]) == ("web@dddddddddddd", DIGEST, False, True)
    assert (told["warnings"], told["packages"], told["layers"][0]["cached"]) == (["w"], 3, True)
    assert not {"policy", "salt"} & set(told) and set(told["layers"][0]) == {"what", "digest", "cached"}
    assert ask.builder.swept == 1


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(lambda world, store: world.write("states/web/init.sls", "other"), id="a change"),
        pytest.param(lambda world, store: store.add_enrolled("web-bake"), id="a bake that was killed"),
        pytest.param(lambda world, store: last_bake.keep_fingerprint(store, "web", "stable", None), id="nothing kept"),
    ],
)
def test_there_is_no_answer_after(ask, world, store, happens):
    ask.bake()
    happens(world, store)
    assert ask() is None


def test_there_is_no_answer_for_an_image_that_stands_on_a_revoked_one(ask, store):
    ask.bake()
    base = "b" * 64
    store.add_image(Image(base, "base", store.image(DIGEST).layers[:1], 1.0, True, {}))
    other = "c" * 64
    store.add_image(Image(other, "other", ("2" * 64,), 1.0, True, {}))
    with store.write() as tx:
        revocations.add(tx, revocations.Revocation(other, "other@cccccccccccc", 1.0, "openssl", None))
    assert ask() is not None
    with store.write() as tx:
        revocations.add(tx, revocations.Revocation(base, "base@bbbbbbbbbbbb", 1.0, "openssl", None))
    assert ask() is None


def test_there_is_no_answer_for_an_image_that_the_builder_lacks(ask):
    ask.bake()
    assert ask(has=False) is None


@pytest.mark.parametrize(
    "leads",
    [
        pytest.param({KEY: {"digest": "2" * 64}}, id="a parent baked with updates"),
        pytest.param({}, id="a layer that went"),
        pytest.param({KEY: {"digest": "1" * 64, "damaged": "layer.json is missing"}}, id="a damaged layer"),
    ],
)
def test_there_is_no_answer_where_another_bake_built_a_layer_anew(ask, leads):
    ask.bake()
    ask.builder.leads = leads
    assert ask() is None


def test_a_layer_whose_key_nobody_knows_is_not_kept(ask):
    ask.bake(layers=[{}, {"key": None}])
    assert ask() is None


def test_what_changes_while_it_is_baked_is_not_kept(ask, world):
    ask.bake(during=lambda: world.write("states/web/init.sls", "other"))
    assert ask() is None


def test_what_cannot_be_proven_is_not_kept_unless_it_counts_as_stable(ask):
    doubtful = [{"what": "states of web", "unproven": ["a command"]}]
    ask.bake(layers=doubtful)
    assert ask() is None
    ask.bake(layers=doubtful, recipe={"assume_stable": True})
    assert ask() is not None

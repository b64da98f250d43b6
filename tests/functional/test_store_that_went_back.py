"""The store put back, emptied or lost: each command of fleet.* and image.* says that before anything else."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
import sqlalchemy as sa
from salt.exceptions import CommandExecutionError
from test_fleet_runner import ONE, bus, machines, opts, publish, rack, run, store  # noqa: F401
from test_image_runner import host  # noqa: F401

from saltext.immutable.bake import bake, parallel
from saltext.immutable.machines import images
from saltext.immutable.store.schema import metadata
from tests.support.surface.functions import read

RUNNERS = read()["runners"]
MACHINE = "<machine>"
"""Stands for the id of a machine that runs."""
FLEETS = {
    "fleet.abort": ("web",),
    "fleet.adopt_store": ("web",),
    "fleet.approve": ("web",),
    "fleet.break_glass": (MACHINE, "why"),
    "fleet.destroy": ("web",),
    "fleet.drift": ("web",),
    "fleet.end_break_glass": (MACHINE,),
    "fleet.history": ("web",),
    "fleet.pause": ("web",),
    "fleet.plan": ("web",),
    "fleet.protect": (MACHINE, "why"),
    "fleet.rebuild": ("web",),
    "fleet.reconcile": ("web",),
    "fleet.relaunch_phase": ("web",),
    "fleet.replace": (MACHINE, "why"),
    "fleet.resume": ("web",),
    "fleet.roll": ("web",),
    "fleet.rollback": ("web",),
    "fleet.scale": ("web", 4),
    "fleet.show": (1, "web"),
    "fleet.status": ("web",),
    "fleet.taint": (MACHINE, "why"),
    "fleet.unprotect": (MACHINE, "why"),
    "fleet.untaint": (MACHINE, "why"),
}
OF_ALL = {"fleet.drift": ("all",), "fleet.history": ("all",), "fleet.reconcile": ("all",), "fleet.status": ("all",)}
DRY = {name: args for name, args in FLEETS.items() if "test=" in RUNNERS[name]}
SAYS_IT_ITSELF = "fleet.adopt_store"
"""Its answer is what it wrote back."""
DESTROYS = ("fleet.destroy", "fleet.roll", "fleet.rollback", "fleet.scale", "fleet.replace", "fleet.rebuild")
REFUSE = {*DESTROYS, "fleet.break_glass", "fleet.protect", "fleet.relaunch_phase", "fleet.taint", "fleet.unprotect"}
TABLES = [table for table in metadata.sorted_tables if table.name != "meta"]
SAYS = {"old": "the store is older than the machines", "emptied": "the store is older than the machines"}
SAYS |= {"lost": "the store of fleet web was lost"}


def rows(store) -> dict[sa.Table, list[dict]]:
    with store.read() as connection:
        return {table: [dict(row) for row in connection.execute(sa.select(table)).mappings()] for table in TABLES}


def put_back(store, backup) -> None:
    with store.write() as tx:
        for table in reversed(TABLES):
            tx.execute(sa.delete(table))
        for table, found in backup.items():
            if found:
                tx.execute(sa.insert(table), found)


@pytest.fixture
def first_line(run, rack, opts, capsys):
    """Return what runs a function as salt-run does: the first line printed, whether it succeeded, its answer."""
    opts.update({"__cli": "salt-run", "output": "json"})

    def said(fun, *args, **kwargs):
        capsys.readouterr()
        machine = min(rack.machines, default="")
        ok, answer = run(fun, *(machine if one == MACHINE else one for one in args), **kwargs)
        return capsys.readouterr().err.partition("\n")[0], ok, answer

    return said


@pytest.fixture(params=SAYS)
def gone_back(request, run, rack, store, monkeypatch):
    """Return what puts the store and the machines to where they are when a command begins, and what is to be said."""
    publish(store, ONE)
    before = {} if request.param == "emptied" else rows(store)
    assert run("fleet.roll", "web")[0]
    there, keys = dict(rack.machines), set(rack.keys)
    tags = (f"{number:016x}" for number in itertools.count())

    def again():
        put_back(store, before)
        tag = {"installation": next(tags)} if request.param == "lost" else {}
        rack.machines, rack.keys = {name: replace(one, **tag) for name, one in there.items()}, set(keys)
        return SAYS[request.param]

    report = {"image": "web@1", "digest": ONE, "channel": "stable", "changed": False, "cached": True, "layers": []}
    report |= {"seconds": 0.0, "deferred": [], "warnings": []}
    monkeypatch.setattr(bake, "bake", lambda *_, test, **__: report if test else {**report, "packages": 0})
    return again


def test_each_command_is_tried():
    assert set(FLEETS) == {name for name in RUNNERS if name.startswith("fleet.")}
    assert set(IMAGES) == {name for name in RUNNERS if name.startswith("image.")}


def test_each_command_on_fleets_says_it_first(gone_back, first_line):
    for fun, args in [*FLEETS.items(), *OF_ALL.items()]:
        says = gone_back()
        first, _, answer = first_line(fun, *args)
        assert first.startswith(f"warning: {says}"), f"{fun} {args} says first: {first!r}"
        if isinstance(answer, dict) and fun != SAYS_IT_ITSELF:
            assert answer["warnings"][0].startswith(says), fun


def test_a_dry_run_says_it_first_and_writes_nothing(gone_back, first_line, store):
    for fun, args in DRY.items():
        says = gone_back()
        before = rows(store)
        first, ok, answer = first_line(fun, *args, test=True)
        assert first.startswith(f"warning: {says}"), f"{fun} says first: {first!r}"
        assert rows(store) == before, f"{fun} test=True wrote"
        assert not (ok and "was lost" in says and fun in REFUSE), f"{fun} test=True does what {fun} refuses: {answer}"


def test_machines_that_the_store_does_not_know_are_not_clean(gone_back, first_line, rack):
    for args, kwargs in ((("web",), {}), (("all",), {}), (("web",), {"minion": min(rack.machines)})):
        gone_back()
        answer = first_line("fleet.drift", *args, **kwargs)[2]
        asked = [kwargs["minion"]] if kwargs else sorted(rack.machines)
        assert (answer["clean"], sorted(answer["unknown"]), answer["retcode"]) == (0, asked, 1)
        assert sorted(answer["machines"]) == asked


def test_what_refuses_without_a_store_names_the_way_back(gone_back, first_line):
    for fun in REFUSE:
        if "was lost" in gone_back():
            _, ok, answer = first_line(fun, *FLEETS[fun])
            assert not ok and "`salt-run fleet.adopt_store`" in answer, f"{fun}: {answer}"


def test_a_machine_that_was_opened_is_closed_also_without_a_store(gone_back, first_line):
    gone_back()
    _, ok, answer = first_line("fleet.end_break_glass", MACHINE)
    assert ok and answer["fleet"] == "web"


def test_with_a_store_that_knows_all_nothing_is_said(first_line, machines):
    for fun in ("fleet.status", "fleet.plan", "fleet.history", "fleet.drift", "fleet.roll"):
        first, ok, answer = first_line(fun, "web")
        assert ok and answer["warnings"] == [] and "warning" not in first, fun


IMAGES = {name: ("nothing",) for name in RUNNERS if name.startswith("image.")}
IMAGES |= {"image.list": (), "image.outdated": (), "image.prune": (), "image.show": ("web:stable",)}
IMAGES |= {"image.diff": ("nothing", "nothing"), "image.export": ("nothing", "tar", "/nothing")}
IMAGES |= {"image.promote": ("web:stable",), "image.channels": ("web",), "image.delete": ("web:stable",)}
WITH_KEY = ("image.show", "image.channels", "image.prune")


def test_each_command_on_images_says_first_that_images_are_unknown(first_line, host, store, rack, monkeypatch):
    def refuse(*_, **__):
        raise CommandExecutionError("nothing is baked here")

    monkeypatch.setattr(parallel, "bake", refuse)
    publish(store, ONE)
    for fun, args in IMAGES.items():
        for digest in ("2" * 64, "3" * 64):
            (host.images / digest).mkdir(exist_ok=True)
            images.metadata_file(host, digest).write_text(json.dumps({"layers": [], "image": f"web@{digest[:12]}"}))
        first, ok, answer = first_line(fun, *args, **({"test": True} if fun == "image.prune" else {}))
        assert first.startswith(
            "warning: 2 images on the builder are unknown to the store "
            "(web@222222222222, web@333333333333): it may be older than they are, or a bake or a deletion was ended "
            "half-way; "
        ), f"{fun} says first: {first!r}"
        assert fun not in WITH_KEY or (ok and answer["warnings"] == [first.removeprefix("warning: ")]), (fun, answer)


def test_of_images_nothing_is_said_while_a_bake_makes_one(first_line, host, store, rack):
    publish(store, ONE)
    (host.images / ("2" * 64)).mkdir()
    images.metadata_file(host, "2" * 64).write_text(json.dumps({"layers": []}))
    assert first_line("image.list")[0].startswith("warning: 1 image on the builder is unknown to the store")
    with store.lease("baking web 1", 60.0):
        assert first_line("image.list")[0] == ""
    (host.images / ONE).mkdir()
    images.metadata_file(host, ONE).write_text(json.dumps({"layers": []}))
    images.metadata_file(host, "2" * 64).unlink()
    assert first_line("image.list")[0] == ""

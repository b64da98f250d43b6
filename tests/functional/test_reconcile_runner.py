"""``fleet.reconcile`` in Salt's own loader: several fleets at a time, each in a thread, on one rack of machines."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

import copy
import time
from dataclasses import replace

import pytest
import yaml
from test_fleet_runner import ONE, PILLAR, Rack, bus, opts, publish, run, store  # noqa: F401

from saltext.immutable import minions, providers
from saltext.immutable.fleet.books.ledger import Ledger
from saltext.immutable.providers import Instance

NAMES = ["api", "db", "shop", "web", "zoo"]


class Racks(Rack):
    """A rack that several fleets share."""

    def list(self, fleet: str | None = None) -> list[Instance]:
        return [one for one in super().list() if fleet in (None, one.fleet)]

    def known(self) -> set[str]:
        return set(self.keys)

    def stop(self, minion_id: str) -> None:
        self.machines[minion_id] = replace(self.machines[minion_id], running=False)


@pytest.fixture
def rack(bus, monkeypatch):
    rack = Racks()
    monkeypatch.setattr(minions, "Minions", lambda opts: rack)
    monkeypatch.setattr(providers, "load", lambda name, settings, opts: rack)
    monkeypatch.setattr(providers, "check", lambda name, settings: None)
    return rack


@pytest.fixture
def pillar(tmp_path):
    """Return what writes the pillar of these fleets."""

    def write(*names: str, **changes: object) -> None:
        data = copy.deepcopy(PILLAR)
        one = {**data["immutable"]["fleets"]["web"], **changes}
        data["immutable"]["fleets"] = {n: {**one, "minion_id": n + "-{token}.example.com"} for n in names}
        (tmp_path / "pillar/immutable.sls").write_text(yaml.safe_dump(data))

    return write


@pytest.fixture
def fleets(run, rack, store, pillar):
    """Five fleets of three machines."""
    pillar(*NAMES, strategy={"max_surge": 1, "ready_within": "1m"})  # five at once take their time on a busy host
    publish(store, ONE)
    for name in NAMES:
        assert run("fleet.roll", name)[0]
    return lambda name: sorted(Ledger(store, name).records())


def test_all_fleets_are_tended_and_one_that_fails_stops_no_other(run, rack, bus, pillar, fleets):
    lost = [fleets(name)[0] for name in ("api", "db", "shop", "zoo")]
    for minion_id in [*lost, *fleets("web")[:2]]:
        rack.stop(minion_id)
    before = fleets("web")
    ok, told = run("fleet.reconcile", test=True)
    assert {name: one["did"] for name, one in told["fleets"].items()} == {
        **dict.fromkeys(NAMES, "would mend"), "web": "alarm"
    }  # fmt: skip
    ok, told = run("fleet.reconcile", "all")
    assert {name: one["did"] for name, one in told["fleets"].items()} == {
        **dict.fromkeys(NAMES, "mended"), "web": "alarm"
    }, told  # fmt: skip
    assert told["retcode"] == 1 and fleets("web") == before
    assert [data["fleet"] for tag, data in bus.said if tag.endswith("/alarm")] == ["web"]
    assert {tag for tag, _ in bus.said} >= {f"immutable/{name}/done" for name in ("api", "db", "shop", "zoo")}
    for name in ("api", "db", "shop", "zoo"):
        assert len(fleets(name)) == 3 and not set(lost) & set(fleets(name))
    assert rack.keys == set(rack.machines)
    pillar(*NAMES, sick_limit="100%", strategy={"max_surge": 1, "ready_within": "1m"})
    ok, told = run("fleet.reconcile", "all")
    assert ok and told["retcode"] == 0 and told["fleets"]["web"]["did"] == "mended", told
    assert run("fleet.reconcile")[1]["retcode"] == 0


def test_one_fleet_is_tended_alone_and_a_wrong_name_is_told(run, rack, fleets):
    rack.stop(fleets("web")[0])
    rack.stop(fleets("db")[0])
    ok, told = run("fleet.reconcile", "web")
    assert list(told["fleets"]) == ["web"] and told["fleets"]["web"]["did"] == "mended"
    assert not rack.machines[fleets("db")[0]].running
    ok, said = run("fleet.reconcile", "wbe")
    assert not ok and "immutable:fleets:wbe is not in the pillar" in said


def test_a_provider_that_does_not_list_is_told_and_nothing_is_done(run, rack, fleets, monkeypatch):
    before = {name: fleets(name) for name in NAMES}
    rack.keys.add("web-0123456789abcdef.example.com")

    def fail(fleet=None):
        raise minions.NoAnswer("the cloud is down")

    monkeypatch.setattr(rack, "list", fail)
    ok, told = run("fleet.reconcile", "all")
    assert told["retcode"] == 1 and {one["did"] for one in told["fleets"].values()} == {"failed"}
    assert "the cloud is down" in told["waits"] and "orphans" not in told
    assert {name: fleets(name) for name in NAMES} == before


def test_orphans_of_a_fleet_that_nobody_knows_any_more_go(run, rack, store, pillar, fleets):
    gone = fleets("zoo")
    with store.write() as tx:
        tx.exec_driver_sql("DELETE FROM machines WHERE fleet = 'zoo'")
    pillar(*NAMES[:-1])
    ok, told = run("fleet.reconcile", "all")
    assert [(one["minion_id"], one["done"]) for one in told["orphans"]] == [(one, "reported") for one in gone], told
    assert run("fleet.reconcile", "all", orphans=False)[1].get("orphans") is None
    with store.write() as tx:
        tx.exec_driver_sql("UPDATE orphans SET since = ?", (time.time() - 3600,))
    ok, told = run("fleet.reconcile", "all")
    assert ok and {one["done"] for one in told["orphans"]} == {"removed"}
    assert not set(gone) & set(rack.machines) and rack.keys == set(rack.machines)

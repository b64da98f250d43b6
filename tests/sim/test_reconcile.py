"""``fleet.reconcile`` every five minutes in virtual time, for a fleet whose machines die, fall ill or drift."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from saltext.immutable.fleet.drive.loop import Interrupted
from saltext.immutable.fleet.orphans import Orphans
from saltext.immutable.fleet.reconcile import FleetReconciler
from saltext.immutable.providers import Identity
from saltext.immutable.spec.model import Amount, Strategy, TrafficSpec, Window

from .simulated import Fate, Faults, Killed, Simulated

EVERY = 300.0


@dataclass
class Schedule:
    """The master's schedule, and the tags of the events that it saw."""

    estate: Any
    events: list[str] = field(default_factory=list)

    def notify(self, message: str, tag: str, **data: Any) -> None:
        self.events.append(tag)

    def reconcile(self, test: bool = False) -> dict[str, Any]:
        """Reconcile once, as the schedule does."""
        return FleetReconciler(self.estate.operations(), self.notify, "web", lambda: False).reconcile(test)

    def wait(self, seconds: float = EVERY) -> None:
        self.estate.world.wait(self.estate.world.now + seconds) if not self.estate.world._heap else self._pass(seconds)

    def _pass(self, seconds: float) -> None:
        until = self.estate.world.now + seconds
        while self.estate.world.now < until:
            self.estate.world.wait(until)

    def again(self, times: int = 1, every: float = EVERY) -> dict[str, Any]:
        """Reconcile a few times more, and return the last result."""
        for _ in range(times):
            self._pass(every)
            result = self.reconcile()
        return result

    @property
    def audit(self) -> list[str]:
        return [entry.what for entry in reversed(self.estate.operations().audit.entries("web"))]


@pytest.fixture
def rolled(estate):
    """Return what makes a fleet that was rolled, and its schedule."""

    def make(faults: Faults | None = None, **changes: Any) -> Schedule:
        made = estate(Simulated(1, faults), **{"size": 5, **changes})
        made.publish("1" * 64)
        made.operations().roll("web")
        return Schedule(made)

    return make


def machines(schedule: Schedule) -> list[str]:
    return sorted(schedule.estate.ledger.records())


def test_a_fleet_that_is_well_is_left_alone(rolled):
    schedule = rolled()
    before, rollouts = machines(schedule), len(schedule.estate.ledger.rollouts())
    result = schedule.again(5)
    assert (result["did"], result["result"]) == ("nothing", True)
    assert machines(schedule) == before and len(schedule.estate.ledger.rollouts()) == rollouts
    assert schedule.events == [] and schedule.audit == []


@pytest.mark.parametrize("how", ["stops", "vanishes"])
def test_a_dead_machine_is_replaced_at_the_next_look(rolled, how):
    schedule = rolled()
    victim = machines(schedule)[2]
    if how == "stops":
        schedule.estate.world._die(victim)
    else:
        del schedule.estate.world.machines[victim]
    assert schedule.reconcile(test=True)["did"] == "would mend" and victim in machines(schedule)
    result = schedule.reconcile()
    assert (result["did"], result["result"]) == ("mended", True), result
    assert len(machines(schedule)) == 5 and victim not in machines(schedule)
    schedule.estate.assert_in_order()
    assert schedule.estate.ledger.rollouts()[0].kind == "reconcile"


def test_a_machine_that_a_lagging_list_misses_is_no_dead_one(rolled):
    schedule = rolled(Faults(lags=True))
    schedule._pass(60)
    victim = machines(schedule)[0]
    hidden = schedule.estate.world.machines.pop(victim)
    assert schedule.reconcile()["did"] == "nothing"
    schedule.estate.world.machines[victim] = hidden
    assert schedule.again(2)["did"] == "nothing" and victim in machines(schedule)


@pytest.mark.parametrize("ill", ["unreachable", "unhealthy"])
def test_a_machine_that_runs_is_replaced_after_a_while(rolled, ill):
    schedule = rolled(unreachable_for=600.0)
    world, victim = schedule.estate.world, machines(schedule)[2]
    if ill == "unreachable":
        world.machines[victim].up = False
    else:
        world.sick.add(victim)
    first = schedule.reconcile()
    assert (first["did"], list(first["sick"])) == ("nothing", [victim])
    assert schedule.again()["did"] == "nothing"
    result = schedule.again()
    assert (result["did"], result["sick"][victim]["for"]) == ("mended", 600), result
    assert victim not in machines(schedule) and len(machines(schedule)) == 5
    assert schedule.audit == ["tainted"] and schedule.events == ["web/tainted"]
    schedule.estate.assert_in_order()
    assert schedule.again()["did"] == "nothing"


def test_one_that_is_ill_meanwhile_does_not_hold_up_what_replaces_another(rolled):
    schedule = rolled(size=10, unreachable_for=600.0)
    dead, silent, ill = machines(schedule)[:3]
    schedule.estate.fleet = replace(schedule.estate.fleet, sick_limit=Amount(3))
    schedule.estate.world._die(dead)
    schedule.estate.world.machines[silent].up = False
    schedule.estate.world.sick.add(ill)
    result = schedule.reconcile()
    assert (result["did"], set(result["sick"])) == ("mended", {dead, silent, ill}), result
    assert dead not in machines(schedule) and {silent, ill} < set(machines(schedule))
    result = schedule.again(2)
    assert result["did"] == "mended" and not {silent, ill} & set(machines(schedule))
    assert schedule.audit == ["tainted", "tainted"]
    schedule.estate.assert_in_order()


def test_one_that_recovers_is_not_replaced(rolled):
    schedule = rolled(unreachable_for=600.0)
    victim = machines(schedule)[2]
    for _ in range(3):
        schedule.estate.world.sick.add(victim)
        schedule.reconcile()
        schedule.again()
        schedule.estate.world.sick.discard(victim)
        schedule.again()
    assert victim in machines(schedule) and schedule.audit == []


def test_a_network_that_is_gone_replaces_nobody(rolled):
    schedule = rolled(unreachable_for=600.0)
    before, world = machines(schedule), schedule.estate.world
    for machine in world.machines.values():
        machine.up = False
    result = schedule.again(20)
    assert (result["did"], result["result"]) == ("alarm", False) and "could be the master" in result["reason"]
    assert machines(schedule) == before
    for machine in world.machines.values():
        machine.up = True
    assert schedule.again(2)["did"] == "nothing" and machines(schedule) == before
    assert schedule.audit == ["alarm", "alarm over"] and schedule.events == ["web/alarm"] * 20


def test_a_master_that_was_down_replaces_nobody_at_its_first_look(rolled):
    schedule = rolled(unreachable_for=600.0)
    world, victim = schedule.estate.world, machines(schedule)[2]
    schedule.again(3)
    world.sick.add(victim)
    schedule.again()
    assert schedule.again(every=36_000.0)["did"] == "nothing", "who knows how it was meanwhile"
    assert schedule.again(2)["did"] == "mended" and victim not in machines(schedule)


def test_too_many_sick_machines_are_not_replaced_until_somebody_looked(rolled):
    schedule = rolled()
    world, before = schedule.estate.world, machines(schedule)
    for name in before[:2]:
        world._die(name)
    result = schedule.again(4)
    assert (result["did"], result["result"]) == ("alarm", False) and "2 machines of 5 are sick" in result["reason"]
    assert machines(schedule) == before and schedule.audit == ["alarm"]
    schedule.estate.fleet = replace(schedule.estate.fleet, sick_limit=Amount(2))
    assert schedule.again()["did"] == "mended"
    assert schedule.audit == ["alarm", "alarm over"]
    schedule.estate.assert_in_order()


def test_tainted_and_old_machines_are_replaced_in_a_window_and_dead_ones_at_any_time(rolled):
    schedule = rolled()
    closed = Window("0 0 1 1 *", 60.0)
    schedule.estate.fleet = replace(schedule.estate.fleet, windows=(closed,), max_age=3 * 86400.0)
    tainted, dead = machines(schedule)[:2]
    schedule.estate.taint(tainted)
    result = schedule.reconcile()
    assert result["did"] == "nothing" and "vim /etc/motd" in result["waits"][0] and "closed" in result["waits"][0]
    schedule.estate.world._die(dead)
    result = schedule.again()
    assert result["did"] == "mended", result
    assert tainted in machines(schedule) and dead not in machines(schedule)
    assert len(machines(schedule)) == 5 and schedule.again()["did"] == "nothing"
    schedule.estate.fleet = replace(schedule.estate.fleet, windows=())
    assert schedule.again()["did"] == "mended" and tainted not in machines(schedule)
    before = machines(schedule)
    assert schedule.again(every=3 * 86400.0)["did"] == "mended"
    assert not set(before) & set(machines(schedule)) and len(machines(schedule)) == 5
    schedule.estate.assert_in_order()


def test_one_that_is_tainted_and_ill_is_replaced_outside_windows_too(rolled):
    schedule = rolled(unreachable_for=600.0)
    schedule.estate.fleet = replace(schedule.estate.fleet, windows=(Window("0 0 1 1 *", 60.0),))
    well, ill = machines(schedule)[:2]
    schedule.estate.taint(well)
    schedule.estate.taint(ill)
    schedule.estate.world.sick.add(ill)
    schedule.reconcile()
    result = schedule.again(2)
    assert result["did"] == "mended" and well in machines(schedule) and ill not in machines(schedule), result
    assert len(machines(schedule)) == 5 and schedule.again()["did"] == "nothing"
    schedule.estate.assert_in_order()


def test_the_size_is_corrected(rolled):
    schedule = rolled()
    schedule.estate.resize(3)
    assert schedule.reconcile()["did"] == "mended" and len(machines(schedule)) == 3
    schedule.estate.resize(6)
    assert schedule.reconcile()["did"] == "mended" and len(machines(schedule)) == 6
    schedule.estate.assert_in_order()


def test_a_roll_that_was_killed_is_carried_on(rolled):
    schedule = rolled()
    schedule.estate.publish("2" * 64)
    kill_after(schedule, launches=2)
    with pytest.raises(Killed):
        schedule.estate.operations().roll("web")
    schedule.estate.say = schedule.estate.story.append
    free(schedule)
    assert schedule.reconcile(test=True)["did"] == "would carry on"
    result = schedule.reconcile()
    assert (result["did"], result["result"]) == ("carried on", True)
    assert schedule.estate.running() == ["2" * 64] * 5
    schedule.estate.assert_in_order()


def kill_after(schedule: Schedule, launches: int) -> None:
    """Let the process die when it says that it launches its n-th machine."""
    said: list[str] = []

    def say(entry: Any) -> None:
        said.append(entry.what)
        if said.count("launch") >= launches:
            raise Killed

    schedule.estate.say = say


def free(schedule: Schedule) -> None:
    """Let the lease of the dead run out."""
    schedule._pass(60.0)


FATES: dict[str, Callable[[int], Fate]] = {
    "all come back": lambda number: "comes back",
    "some never start": lambda number: "never starts" if number % 2 else "comes back",
    "some never answer": lambda number: "never answers" if number % 2 else "comes back",
    "none starts": lambda number: "never starts",
    "none answers": lambda number: "never answers",
    "some of each": lambda number: ("comes back", "never starts", "never answers")[number % 3],  # type: ignore[return-value]
}


@pytest.mark.parametrize("traffic", [None, TrafficSpec("simulated")], ids=["bare", "routed"])
@pytest.mark.parametrize("rollout", ["none", "driven", "killed"])
@pytest.mark.parametrize("fate", FATES)
def test_a_fleet_serves_again_after_its_host_has_booted(rolled, fate, rollout, traffic):
    """Nobody types anything but what the schedule does, and no rollout goes back or is paused for the boot."""
    schedule = rolled(traffic=traffic)
    estate, world = schedule.estate, schedule.estate.world
    estate.fleet = replace(estate.fleet, strategy=replace(estate.fleet.strategy, on_failure="pause"))

    def boot() -> None:
        numbers = {name: number for number, name in enumerate(sorted(world.machines))}
        world.boot_host(lambda name: FATES[fate](numbers[name]))

    if rollout == "none":
        boot()
    else:
        estate.publish("2" * 64)
    if rollout == "driven":
        world.later(7.0, boot)
        estate.operations().roll("web")
    elif rollout == "killed":
        kill_after(schedule, launches=3)
        with pytest.raises(Killed):
            estate.operations().roll("web")
        estate.say = estate.story.append
        boot()
        free(schedule)
    results = [schedule.reconcile(), *(schedule.again() for _ in range(4))]
    assert (results[-1]["did"], {one["result"] for one in results}) == ("nothing", {True}), results
    assert len(machines(schedule)) == 5 and all(world.is_well(name) for name in machines(schedule))
    assert estate.running() == [("1" if rollout == "none" else "2") * 64] * 5
    assert {one.outcome for one in estate.ledger.rollouts()} == {"done"} and "web/alarm" not in schedule.events
    estate.assert_in_order()


def test_where_no_machine_is_heard_after_a_boot_a_repair_removes_none(rolled):
    """It launches one, which does not answer either: the network is the cause, not the machines."""
    schedule = rolled()
    world, before = schedule.estate.world, machines(schedule)
    world.boot_host(lambda name: "never answers")
    world.dead_on_arrival = 1000
    results = [schedule.again() for _ in range(10)]
    assert set(before) <= set(machines(schedule)) and not results[-1]["result"]
    assert "web/alarm" in schedule.events


def test_machines_that_came_back_with_their_host_are_of_the_fleet_again(rolled):
    """Once they were healthy, their silence is the fleet's sickness: more than `sick_limit` are not replaced."""
    schedule = rolled(unreachable_for=600.0)
    world, before = schedule.estate.world, machines(schedule)
    world.boot_host(lambda name: "comes back")
    schedule.again()
    for name in before[:3]:
        world.machines[name].up = False
    result = schedule.again(4)
    assert result["did"] == "alarm" and "3 machines of 5 are sick" in result["reason"]
    assert machines(schedule) == before


def test_machines_that_haproxy_forgot_have_visitors_again(rolled):
    schedule = rolled(traffic=TrafficSpec("simulated"))
    before, visitors = machines(schedule), schedule.estate.world.visitors
    visitors.reload()
    dry = schedule.reconcile(test=True)
    assert dry["did"] == "would mend" and dry["reason"].count("is sent no visitors") == 5
    assert schedule.reconcile()["did"] == "mended"
    assert (machines(schedule), sorted(visitors.servers)) == (before, before)
    assert schedule.reconcile()["did"] == "nothing"


def test_nothing_is_done_about_visitors_while_nobody_knows_who_has_some(rolled):
    schedule = rolled(traffic=TrafficSpec("simulated"))
    schedule.estate.world.faults.traffic_fails = 1.0
    rollouts = len(schedule.estate.ledger.rollouts())
    result = schedule.reconcile()
    assert (result["did"], result["reason"]) == (
        "nothing",
        "the state of the traffic cannot be read: the socket cannot be reached",
    )
    schedule.estate.world.faults.traffic_fails = 0.0
    assert len(schedule.estate.ledger.rollouts()) == rollouts


def test_who_is_driven_is_left_alone(rolled):
    schedule = rolled()
    schedule.estate.world._die(machines(schedule)[0])
    with schedule.estate.store.lease("fleet web"):
        result = schedule.reconcile()
        assert (result["did"], result["result"]) == ("busy", True)
    assert schedule.reconcile()["did"] == "mended"


def test_a_fleet_that_left_the_pillar_is_never_touched(rolled):
    schedule = rolled()
    schedule.estate.world._die(machines(schedule)[0])
    schedule.estate.pillar = {}
    before = machines(schedule)
    result = schedule.again(3)
    assert (result["did"], result["result"]) == ("alarm", False) and "not in the pillar" in result["reason"]
    assert machines(schedule) == before and schedule.audit == ["alarm"]


def test_mending_that_fails_alarms_and_is_tried_ever_more_rarely(rolled):
    schedule = rolled(strategy=Strategy(max_surge=Amount(1), ready_within=600.0))
    world = schedule.estate.world
    world._die(machines(schedule)[0])
    world.dead_on_arrival = 3
    began = []
    for _ in range(30):
        before = len(schedule.estate.ledger.rollouts())
        result = schedule.again()
        if len(schedule.estate.ledger.rollouts()) > before:
            began.append(world.now)
        if result["did"] == "mended":
            break
    assert result["did"] == "mended" and len(began) == 4
    assert schedule.audit.count("alarm") <= 3 and schedule.audit[-1] == "alarm over"
    assert schedule.events.count("web/alarm") > 3, "it is result of at each look"
    schedule.estate.assert_in_order()


def test_a_roll_that_failed_is_left_to_its_operator(rolled):
    schedule = rolled(strategy=Strategy(max_surge=Amount(1), ready_within=30.0, on_failure="pause"))
    schedule.estate.publish("2" * 64)
    schedule.estate.world.faults.ill["2" * 64] = "unhealthy"
    with pytest.raises(Exception, match="paused"):
        schedule.estate.operations().roll("web")
    count = len(schedule.estate.ledger.rollouts())
    result = schedule.again(3)
    assert (result["did"], result["result"]) == ("left", True) and "fleet.rollback web" in result["reason"]
    assert len(schedule.estate.ledger.rollouts()) == count


def test_ctrl_c_while_looking_ends_it(rolled):
    schedule = rolled()
    with pytest.raises(Interrupted):
        FleetReconciler(schedule.estate.operations(), schedule.notify, "web", lambda: True).reconcile()
    assert schedule.reconcile()["did"] == "nothing"


def test_orphans_go_with_their_keys_after_the_grace(rolled):
    schedule = rolled(minion_id="web-{token}", orphan_grace=3600.0)
    world = schedule.estate.world
    gone = machines(schedule)[0]
    world._die(gone)
    schedule.reconcile()

    def collect() -> list[tuple[str, str]]:
        orphans = Orphans(schedule.estate.operations(), schedule.estate.load, schedule.notify)
        return [(one["what"], one["done"]) for one in orphans.collect("all")]

    assert collect() == []
    identity = Identity(gone, "web", 1, schedule.estate.store.installation)
    world.expect(gone)
    world._create("1" * 64, identity)  # a launch call that was given up comes through after all
    assert collect() == [("machine", "reported")]
    world.now += 3600
    assert collect() == [("machine", "removed")]
    assert gone not in world.machines and gone not in world.keys
    schedule.estate.assert_in_order()


@pytest.mark.parametrize("seed", range(25))
def test_whatever_befalls_a_fleet_it_is_mended_once_the_world_is_calm(rolled, seed):
    """Machines die, fall ill, fall silent, recover or drift; the network goes and comes; sometimes we are killed."""
    schedule = rolled(unreachable_for=600.0, size=6)
    estate, world = schedule.estate, schedule.estate.world
    dice = random.Random(seed)
    world.faults.launch_fails, world.faults.list_fails = 0.1, 0.05
    for _ in range(20):
        befall(schedule, dice)
        world.faults.killed = dice.choice([0.0, 0.0, 0.02])
        with suppress(Killed):
            schedule.again()
        world.faults.killed = 0.0
    calm(schedule)
    result = {}
    for _ in range(40):
        result = schedule.again()
        if result["did"] == "nothing":
            break
    assert result["did"] == "nothing" and len(machines(schedule)) == 6, f"seed {seed}: {result}"
    estate.assert_in_order()


def befall(schedule: Schedule, dice: random.Random) -> None:
    """Let something happen to one machine, or to the network."""
    world, names = schedule.estate.world, sorted(schedule.estate.world.machines)
    victim = dice.choice(names) if names else None
    what = dice.choice(["dies", "ill", "silent", "tainted", "recovers", "network", "nothing", "nothing"])
    up = all(not one.instance.running or one.up for one in world.machines.values())
    if what == "network":
        for one in world.machines.values():
            one.up = not up
    elif victim is not None and what == "dies":
        world._die(victim)
    elif victim is not None and what == "ill":
        world.sick.add(victim)
    elif victim is not None and what == "silent":
        world.machines[victim].up = False
    elif victim is not None and what == "tainted":
        schedule.estate.taint(victim)
    elif what == "recovers":
        world.sick.clear()


def calm(schedule: Schedule) -> None:
    """End all that is wrong but the dead, whom somebody lets be replaced, however many they are."""
    estate, world = schedule.estate, schedule.estate.world
    world.faults.launch_fails = world.faults.list_fails = 0.0
    world.sick.clear()
    for one in world.machines.values():
        one.up = one.instance.running
    estate.fleet = replace(estate.fleet, sick_limit=Amount(100, percent=True))

"""What the peers' documents promise, asked of our plan from outside: the same numbers, in our words.

Kubernetes Deployments, Argo Rollouts, EC2 Auto Scaling instance refresh, Nomad and Swarm updates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.immutable.fleet.decide.plan import plan
from saltext.immutable.fleet.decide.state import UNLIMITED, Limits, Machine, Rollout
from saltext.immutable.spec.model import Amount, Fleet, ProviderSpec, Strategy, TrafficSpec
from saltext.immutable.spec.reading import amount

NOW = 1000.0
BOOT = 10.0
OLD, NEW = 1, 2


def fleet_of(size: int, surge: object = 1, unavailable: object = 0, traffic: bool = False, **knobs: object) -> Fleet:
    knobs["steps"] = tuple(amount(step) for step in knobs.get("steps", ()))
    strategy = Strategy(max_surge=amount(surge), max_unavailable=amount(unavailable), **knobs)
    sender = TrafficSpec("haproxy") if traffic else None
    return Fleet("web", "web", size, "web-{token}", ProviderSpec("p"), strategy=strategy, traffic=sender)


def old(number: int, **changes: object) -> list[Machine]:
    """So many machines of the old generation, healthy for long."""
    one = Machine("", OLD, "serving", 0.0, 0.0, "yes", ready_since=0.0, healthy_since=0.0)
    return [replace(one, minion_id=f"old-{n:03}", born=float(n), **changes) for n in range(number)]


class Walk:
    """A rollout in a world where all goes well, except where ``boots`` says otherwise."""

    def __init__(
        self,
        fleet: Fleet,
        machines: list[Machine],
        boots: Callable[[int], bool] = lambda number: True,
        limits: Limits = UNLIMITED,
        **rollout: object,
    ) -> None:
        self.fleet, self.boots, self.limits, self.now = fleet, boots, limits, NOW
        self.machines = {machine.minion_id: machine for machine in machines}
        begun = Rollout(1, "web", "roll", OLD, NEW, len(machines), NOW, NOW, replaces=fleet.size)
        self.rollout = replace(begun, **rollout)
        self.most, self.least, self.launched = len(machines), len(machines), 0
        self.reached: list[int] = []
        """New machines that served when a step was reached."""
        self.waves: list[tuple[int, int]] = []
        """Launches and removals of each plan that had any."""

    def count(self, generation: int) -> int:
        return sum(m.generation == generation and m.phase == "serving" for m in self.machines.values())

    def go(self) -> Walk:
        """Walk until it ends, or waits for somebody."""
        for _ in range(10_000):
            waited = self.look()
            if self.rollout.outcome or waited == inf:
                return self
            self.pass_time(waited)
        raise AssertionError(f"it never ends: {self.rollout.verdict}")

    def look(self) -> float:
        """Obey one plan; return when to look again."""
        before = self.rollout
        step = plan(self.fleet, before, list(self.machines.values()), self.limits, self.now)
        self.rollout = step.rollout
        if step.rollout.step_reached_at is not None and before.step_reached_at != step.rollout.step_reached_at:
            self.reached.append(self.count(NEW))
        for action in step.actions:
            self.obey(action)
        if step.actions:
            launches = sum(action.kind == "launch" for action in step.actions)
            self.waves.append((launches, sum(action.kind in ("drain", "destroy") for action in step.actions)))
            self.most = max(self.most, len(self.machines))
            healthy = (m.phase == "serving" and m.health == "yes" for m in self.machines.values())
            self.least = min(self.least, sum(healthy))
        return self.now if step.actions else inf if step.wake is None else step.wake

    def obey(self, action) -> None:
        if action.kind == "launch":
            self.launched += 1
            name = f"new-{self.launched:03}"
            self.machines[name] = Machine(name, action.generation, "booting", self.now, self.now)
        elif action.kind == "destroy":
            del self.machines[action.minion_id]
        else:
            after = {
                "attach": {"phase": "serving", "attached": True, "kept_until": None},
                "drain": {"phase": "draining", "attached": False, "drain_since": self.now, "sessions": 0},
                "keep": {"phase": "standby", "kept_until": action.until},
            }[action.kind]
            self.machines[action.minion_id] = replace(self.machines[action.minion_id], **after)

    def pass_time(self, until: float) -> None:
        """Let all that boots come up, or fail; else let time pass."""
        booting = [m for m in self.machines.values() if m.phase == "booting" and m.fault is None]
        self.now = self.now + BOOT if booting else max(self.now + 1.0, until)
        for machine in booting:
            up = self.boots(int(machine.minion_id.removeprefix("new-")))
            phase = "standby" if self.fleet.traffic else "serving"
            ready = {"since": self.now, "ready_since": self.now, "healthy_since": self.now}
            come = {"phase": phase, "health": "yes", "attached": not self.fleet.traffic, **ready}
            gone = {"fault": "it has stopped"}
            self.machines[machine.minion_id] = replace(machine, **(come if up else gone))


# Kubernetes: maxSurge is rounded up, maxUnavailable down


@pytest.mark.parametrize(
    ("size", "surge", "unavailable", "most", "least"),
    [
        pytest.param(10, "25%", "25%", 13, 8, id="the defaults, 10 replicas: 13 at most, 8 at least"),
        pytest.param(4, "25%", "25%", 5, 3, id="4 replicas: 5 and 3"),
        pytest.param(3, "25%", "25%", 4, 3, id="3 replicas: a quarter is one up and none down"),
        pytest.param(1, "25%", "25%", 2, 1, id="1 replica"),
        pytest.param(7, "30%", "30%", 10, 5, id="30 % of 7 is 3 up and 2 down"),
        pytest.param(10, "30%", 0, 13, 10, id="maxSurge 30 %: 130 % at most"),
        pytest.param(10, 0, "30%", 10, 7, id="maxUnavailable 30 %: 70 % at least"),
        pytest.param(5, 2, 1, 7, 4, id="numbers are taken as they are"),
        pytest.param(5, "100%", 0, 10, 5, id="twice as many"),
        pytest.param(100, "1%", "1%", 101, 99, id="one percent of a hundred"),
    ],
)
def test_kubernetes_rounds_surge_up_and_unavailable_down(size, surge, unavailable, most, least):
    walk = Walk(fleet_of(size, surge, unavailable), old(size)).go()
    assert (walk.rollout.outcome, walk.most, walk.least) == ("done", most, least)
    assert (walk.count(OLD), walk.count(NEW), walk.launched) == (0, size, size)


def test_kubernetes_takes_the_unhealthy_first():
    machines = [*old(4)[:3], replace(old(4)[3], health="no", since=NOW)]
    step = plan(fleet_of(4, 0, 1), Walk(fleet_of(4), machines).rollout, machines, UNLIMITED, NOW)
    assert [action.minion_id for action in step.actions if action.kind == "destroy"] == ["old-003"]


def test_kubernetes_reports_no_progress_and_we_stop():
    stuck = fleet_of(3, progress_within=600.0, ready_within=500.0, on_failure="pause")
    newcomer = Machine("newcomer", NEW, "serving", NOW, NOW, "unknown", ready_since=NOW, healthy_since=NOW)
    walk = Walk(stuck, [*old(3), newcomer], old_size=3)
    assert walk.look() <= NOW + 600.0
    walk.now = NOW + 599.0
    walk.machines["newcomer"] = replace(newcomer, since=NOW + 400.0)
    walk.look()
    assert walk.rollout.outcome is None
    walk.now = NOW + 600.0
    walk.look()
    assert (walk.rollout.outcome, walk.rollout.paused_by, walk.count(OLD)) == ("paused", "failure", 3)


# Argo Rollouts: setWeight, pause, rollbackWindow


@pytest.mark.parametrize(
    ("size", "weights", "reached"),
    [
        pytest.param(5, ["20%", "40%", "60%", "80%", "100%"], [1, 2, 3, 4, 5], id="the canary of the guide"),
        pytest.param(10, ["25%", "75%", "100%"], [3, 8, 10], id="what does not divide is rounded up"),
        pytest.param(3, ["10%", "100%"], [1, 3], id="a tenth of three is one"),
        pytest.param(1, ["20%", "100%"], [1, 1], id="one machine"),
        pytest.param(8, [1, "50%", "100%"], [1, 4, 8], id="a number, then shares"),
    ],
)
def test_argo_pauses_at_each_weight(size, weights, reached):
    walk = Walk(fleet_of(size, "25%", steps=weights, soak=60.0), old(size)).go()
    assert (walk.rollout.outcome, walk.reached) == ("done", reached)
    assert walk.now >= NOW + 60.0 * len(weights), "every pause has its duration"
    assert walk.least >= size


def test_argo_waits_for_promotion_at_a_pause_without_duration():
    walk = Walk(fleet_of(5, steps=["20%", "60%", "100%"], approve=True), old(5)).go()
    for promoted, serving in enumerate([1, 3]):
        assert (walk.rollout.outcome, walk.count(NEW), walk.count(OLD)) == (None, serving, 5 - serving)
        assert "fleet.approve" in walk.rollout.verdict
        walk.rollout = replace(walk.rollout, approved=promoted + 1)
        walk.go()
    assert (walk.rollout.outcome, walk.count(NEW)) == ("done", 5)


def test_argo_restores_what_was_lost_while_it_waits_for_promotion():
    walk = Walk(fleet_of(5, steps=["20%", "100%"], approve=True), old(5)).go()
    for lost in ("old-002", "old-003"):
        walk.machines[lost] = replace(walk.machines[lost], fault="it has stopped")
    walk.go()
    assert walk.rollout.outcome is None
    assert walk.count(NEW) + walk.count(OLD) == 5


@pytest.mark.parametrize(
    ("back_to", "quick"),
    [
        pytest.param(6, True, id="the one before"),
        pytest.param(4, True, id="the third before, within a window of 3 revisions"),
        pytest.param(3, False, id="the fourth before takes the steps"),
    ],
)
def test_argo_skips_steps_within_the_rollback_window(back_to, quick):
    fleet = fleet_of(4, steps=[1, "100%"], soak=600.0, fast_rollback=3)
    machines = [replace(machine, generation=7) for machine in old(4)]
    walk = Walk(fleet, machines, kind="rollback", source=7, target=back_to).go()
    assert walk.rollout.outcome == "done"
    assert (walk.now < NOW + 600.0) == quick


def test_argo_aborts_to_the_stable_version():
    walk = Walk(fleet_of(5, steps=["40%", "100%"], soak=60.0), old(5), boots=lambda number: number != 2).go()
    assert (walk.rollout.outcome, walk.count(NEW), walk.count(OLD)) == ("rolled back", 0, 5)


def test_argo_keeps_the_stable_one_until_blue_green_has_switched():
    walk = Walk(fleet_of(4, blue_green=True, soak=300.0, traffic=True), old(4))
    walk.look()
    assert walk.waves == [(4, 0)]
    walk.pass_time(inf)
    while walk.rollout.switched_at is None:
        assert walk.count(OLD) == 4
        walk.look()
    walk.go()
    assert (walk.rollout.outcome, walk.count(NEW), walk.least, walk.most) == ("done", 4, 4, 8)
    assert walk.now >= walk.rollout.switched_at + 300.0


def test_argo_waits_for_promotion_before_the_blue_green_switch():
    walk = Walk(fleet_of(4, blue_green=True, approve=True, traffic=True), old(4)).go()
    assert (walk.rollout.outcome, walk.rollout.switched_at, walk.count(OLD)) == (None, None, 4)
    walk.rollout = replace(walk.rollout, approved=1)
    assert walk.go().rollout.outcome == "done"


# EC2 Auto Scaling: instance refresh


@given(st.integers(1, 2000), st.integers(0, 100))
def test_auto_scaling_rounds_min_healthy_up(size, percent):
    unavailable = Amount(100 - percent, percent=True)
    assert size - unavailable.down(size) == ceil(size * percent / 100)


@pytest.mark.parametrize(
    ("size", "min_healthy", "least"),
    [
        pytest.param(10, 90, 9, id="the default: one of ten at a time"),
        pytest.param(15, 90, 14, id="13.5 is rounded up"),
        pytest.param(4, 50, 2, id="half"),
    ],
)
def test_auto_scaling_keeps_min_healthy(size, min_healthy, least):
    walk = Walk(fleet_of(size, 0, f"{100 - min_healthy}%"), old(size)).go()
    assert (walk.rollout.outcome, walk.least, walk.most) == ("done", least, size)
    assert walk.waves[0] == (size - least, size - least), "terminated and launched in the same breath"


def test_auto_scaling_waits_at_checkpoints():
    walk = Walk(fleet_of(10, 0, "20%", steps=["20%", "50%", "100%"], soak=3600.0), old(10)).go()
    assert (walk.rollout.outcome, walk.reached) == ("done", [2, 5, 10])
    assert NOW + 3 * 3600.0 <= walk.now < NOW + 3 * 3600.0 + 600.0


@pytest.mark.parametrize(("skip", "launched"), [pytest.param(True, 2, id="skip"), pytest.param(False, 5, id="all")])
def test_auto_scaling_skips_what_matches(skip, launched):
    machines = [*old(2), *(replace(one, minion_id=f"same-{one.minion_id}", generation=NEW) for one in old(3))]
    walk = Walk(fleet_of(5, skip_matching=skip), machines).go()
    assert (walk.rollout.outcome, walk.launched, walk.count(NEW)) == ("done", launched, 5)


def protected_walk(protected: str) -> Walk:
    machines = old(3)
    machines[1] = replace(machines[1], protect="a long import")
    return Walk(fleet_of(3, protected=protected, on_failure="pause"), machines).go()


def test_auto_scaling_waits_for_protected_instances_and_then_fails():
    walk = protected_walk("wait")
    assert (walk.rollout.outcome, walk.rollout.paused_by, walk.count(NEW)) == ("paused", "failure", 3)
    assert "old-001" in walk.machines
    assert "fleet.unprotect" in walk.rollout.reason


def test_auto_scaling_ignores_protected_instances():
    walk = protected_walk("skip")
    assert (walk.rollout.outcome, walk.count(NEW), walk.count(OLD)) == ("done", 2, 1)
    assert "old-001" in walk.machines


# Nomad: update


@pytest.mark.parametrize(
    ("healthy_for", "replaced"),
    [pytest.param(9.0, 0, id="9 s of 10"), pytest.param(10.0, 1, id="min_healthy_time is over")],
)
def test_nomad_counts_an_allocation_after_min_healthy_time(healthy_for, replaced):
    since = NOW - healthy_for
    newcomer = Machine("newcomer", NEW, "serving", NOW - 60, since, "yes", ready_since=since, healthy_since=since)
    walk = Walk(fleet_of(3, min_ready=10.0), [*old(3), newcomer], old_size=3, started=NOW - 60)
    walk.look()
    assert sum(removals for _, removals in walk.waves) == replaced


@pytest.mark.parametrize(
    ("waited", "failed"), [pytest.param(299.0, False, id="in time"), pytest.param(300.0, True, id="healthy_deadline")]
)
def test_nomad_gives_an_allocation_up_at_its_healthy_deadline(waited, failed):
    newcomer = Machine("newcomer", NEW, "booting", NOW - waited, NOW - waited, "no", note="no nginx")
    fleet = fleet_of(3, ready_within=300.0, max_failures=Amount(1))
    walk = Walk(fleet, [*old(3), newcomer], old_size=3, started=NOW - waited)
    walk.look()
    assert ("newcomer" not in walk.machines, len(walk.rollout.failures)) == (failed, int(failed))


def test_nomad_progress_deadline_begins_anew_with_each_healthy_allocation():
    walk = Walk(fleet_of(60, progress_within=25.0, ready_within=20.0), old(60)).go()
    assert walk.rollout.outcome == "done"
    assert walk.now > NOW + 20 * 25.0


@pytest.mark.parametrize(
    ("on_failure", "outcome", "new"),
    [
        pytest.param("rollback", "rolled back", 0, id="auto_revert"),
        pytest.param("pause", "paused", 2, id="without: what is healthy stays"),
    ],
)
def test_nomad_reverts_a_failed_deployment(on_failure, outcome, new):
    walk = Walk(fleet_of(5, on_failure=on_failure), old(5), boots=lambda number: number != 3).go()
    assert (walk.rollout.outcome, walk.count(NEW), walk.count(OLD)) == (outcome, new, 5 - new)
    assert walk.least >= 5


@pytest.mark.parametrize("parallel", [1, 2, 3])
def test_nomad_updates_max_parallel_in_place(parallel):
    walk = Walk(fleet_of(6, 0, parallel), old(6)).go()
    assert (walk.rollout.outcome, walk.most, walk.least) == ("done", 6, 6 - parallel)
    assert max(removals for _, removals in walk.waves) == parallel


# Swarm: update_config


@pytest.mark.parametrize(
    ("size", "ratio", "failures", "trips"),
    [
        pytest.param(10, Amount(0), 1, True, id="0, the default: the first one"),
        pytest.param(10, Amount(10, percent=True), 1, False, id="0.1 of 10: one is not more"),
        pytest.param(10, Amount(10, percent=True), 2, True, id="two are more"),
        pytest.param(4, Amount(25, percent=True), 1, False, id="0.25 of 4: one is not more"),
        pytest.param(3, Amount(25, percent=True), 1, True, id="0.25 of 3: one is more"),
        pytest.param(20, Amount(50, percent=True), 10, False, id="half is not more than half"),
        pytest.param(20, Amount(50, percent=True), 11, True, id="one more is"),
        pytest.param(10, Amount(3), 3, False, id="a number is borne"),
        pytest.param(10, Amount(3), 4, True, id="and no more"),
    ],
)
def test_swarm_trips_on_more_than_the_ratio(size, ratio, failures, trips):
    fleet = fleet_of(size, max_failures=ratio, on_failure="pause")
    walk = Walk(fleet, old(size), boots=lambda number: number > failures).go()
    assert walk.rollout.outcome == ("paused" if trips else "done")
    assert walk.least >= size
    assert trips or walk.launched == size + failures


@pytest.mark.parametrize(
    ("age", "counts"),
    [pytest.param(30.0, True, id="within the monitoring time"), pytest.param(60.0, False, id="after it")],
)
def test_swarm_counts_a_failure_only_while_it_monitors(age, counts):
    ready = NOW - age
    dead = Machine("newcomer", NEW, "serving", ready - 5, NOW, "no", fault="it has stopped", ready_since=ready)
    fleet = fleet_of(3, ready_within=60.0, progress_within=300.0)
    walk = Walk(fleet, [*old(3), dead], old_size=3, started=NOW - 120)
    walk.look()
    assert "newcomer" not in walk.machines
    assert walk.rollout.direction == ("back" if counts else "forward")


@pytest.mark.parametrize(
    ("surge", "unavailable", "first"),
    [
        pytest.param(1, 0, [(1, 0), (1, 1)], id="start-first"),
        pytest.param(0, 1, [(1, 1), (1, 1)], id="stop-first"),
    ],
)
def test_swarm_starts_or_stops_first(surge, unavailable, first):
    walk = Walk(fleet_of(4, surge, unavailable), old(4)).go()
    assert walk.rollout.outcome == "done"
    assert walk.waves[:2] == first


# All of them: what nobody does


@given(
    st.integers(1, 12),
    st.integers(0, 100),
    st.integers(0, 99),
    st.lists(st.integers(1, 99), unique=True, max_size=3).map(sorted),
    st.booleans(),
)
def test_no_pair_of_shares_breaks_the_floor_or_the_ceiling(size, surge, unavailable, steps, traffic):
    weights = [f"{share}%" for share in steps] + ["100%"] if steps else []
    up, down = ceil(size * surge / 100), size * unavailable // 100
    if up == 0 and down == 0:
        return
    walk = Walk(fleet_of(size, f"{surge}%", f"{unavailable}%", steps=weights, traffic=traffic), old(size)).go()
    assert (walk.rollout.outcome, walk.count(NEW), walk.count(OLD)) == ("done", size, 0)
    assert walk.least >= size - down
    assert walk.most <= size + up

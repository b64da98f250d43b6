"""A plan does not depend on the order in which machines come: equally useful ones are chosen by age, then by id."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.immutable.fleet.decide.forecast import forecast
from saltext.immutable.fleet.decide.plan import plan
from saltext.immutable.fleet.decide.sickness import FleetSeen, MachineSeen, diagnose
from saltext.immutable.fleet.decide.state import Action, Limits, Machine, Plan, Rollout, by_age, oldest_first
from saltext.immutable.spec.model import Amount, Fleet, ProviderSpec, Strategy, TrafficSpec

NOW = 1000.0
STARTED = 900.0
DRAINED = {"drain_since": 940.0, "attached": False}
STATES = {
    "serving": {},
    "unwell": {"health": "no", "since": NOW - 5},
    "ill": {"health": "no", "since": NOW - 700},
    "unknown": {"health": "unknown"},
    "detached": {"attached": False},
    "booting": {"phase": "booting", "health": "unknown", "ready_since": None, "healthy_since": None},
    "late": {"phase": "booting", "health": "no", "since": NOW - 700, "ready_since": None, "healthy_since": None},
    "standby": {"phase": "standby", "attached": False},
    "draining": {"phase": "draining", "sessions": 3, **DRAINED},
    "drained": {"phase": "draining", "sessions": 0, **DRAINED},
    "kept": {"phase": "standby", "kept_until": 1500.0, "sessions": 0, **DRAINED},
    "unseen": {"phase": "standby", "kept_until": 1500.0, "health": "unknown", "since": NOW - 5, **DRAINED},
    "expired": {"phase": "standby", "kept_until": 990.0, "sessions": 0, **DRAINED},
    "stopped": {"fault": "it has stopped"},
    "doomed": {"phase": "doomed"},
}


@st.composite
def pictures(draw: st.DrawFn) -> list[Machine]:
    """Draw machines of few births, so that many are equally old, with the youngest id anywhere."""
    kinds = st.tuples(
        st.sampled_from([0, 1, 1, 2, 2]),
        st.sampled_from(sorted(STATES)),
        st.sampled_from([100.0, 200.0, 910.0, 920.0]),
        st.sampled_from([None, None, None, "vim /etc/motd"]),
        st.sampled_from([None, None, None, "in use"]),
    )
    found = []
    for number, (generation, state, born, taint, protect) in enumerate(draw(st.lists(kinds, max_size=14))):
        one = Machine(f"web-{number:02}", generation, "serving", born, 950.0, "yes", ready_since=born)
        found.append(replace(one, taint=taint, protect=protect, **STATES[state]))
    return found


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    steps = draw(st.sampled_from([(), (Amount(1), Amount(100, percent=True))]))
    strategy = Strategy(
        max_surge=Amount(draw(st.integers(0, 3))),
        max_unavailable=Amount(draw(st.integers(0, 2))),
        steps=steps,
        keep_old=draw(st.sampled_from([0.0, 600.0])),
        max_failures=Amount(draw(st.sampled_from([0, 2]))),
        blue_green=not steps and draw(st.booleans()),
        protected=draw(st.sampled_from(["wait", "skip"])),
        skip_matching=draw(st.booleans()),
    )
    traffic = draw(st.sampled_from([None, TrafficSpec("haproxy")]))
    size = draw(st.integers(0, 6))
    return Fleet("web", "web", size, "web-{token}", ProviderSpec("p"), strategy=strategy, traffic=traffic)


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    kind = draw(st.sampled_from(["roll", "rollback", "scale", "replace", "reconcile", "destroy"]))
    return Rollout(
        1,
        "web",
        kind,
        source=draw(st.sampled_from([1, 1, None])),
        target=None if kind == "destroy" else 2,
        old_size=draw(st.integers(0, 6)),
        started=STARTED,
        progress_at=990.0,
        direction=draw(st.sampled_from(["forward", "forward", "back", "hold", "stop"])),
        switched_at=draw(st.sampled_from([None, 950.0])),
    )


LIMITS = st.builds(
    Limits,
    launches=st.sampled_from([None, None, 1]),
    disruptions=st.sampled_from([None, None, 1]),
    closed=st.sampled_from([None, None, "closed: tonight"]),
)
SHUFFLES = st.randoms(use_true_random=False)


def shuffled(machines: list[Machine], chance: random.Random) -> list[Machine]:
    return chance.sample(machines, len(machines))


@given(fleet=fleets(), rollout=rollouts(), there=pictures(), limits=LIMITS, chance=SHUFFLES)
def test_a_picture_in_any_order_gives_the_same_plan(fleet, rollout, there, limits, chance):
    assert plan(fleet, rollout, shuffled(there, chance), limits, NOW) == plan(fleet, rollout, there, limits, NOW)


@given(fleet=fleets(), rollout=rollouts(), there=pictures(), limits=LIMITS, chance=SHUFFLES)
def test_a_walk_whose_machines_come_in_any_order_takes_the_same_way(fleet, rollout, there, limits, chance):
    world, now = {one.minion_id: one for one in there}, NOW
    for number in range(12):
        machines = list(world.values())
        step = plan(fleet, rollout, machines, limits, now)
        assert plan(fleet, rollout, shuffled(machines, chance), limits, now) == step
        if step.rollout.outcome:
            return
        world = after(fleet, world, step, now, number)
        befallen(world, chance, now)
        rollout, now = step.rollout, now + 20.0


def after(fleet: Fleet, world: dict[str, Machine], step: Plan, now: float, number: int) -> dict[str, Machine]:
    """Return the machines when all that a plan names is done; newcomers of one plan are equally old."""
    world = {key: one for key, one in world.items() if one.phase != "doomed"}
    for count, action in enumerate(step.actions):
        if action.minion_id is None:
            name = f"new-{number:02}-{count:02}"
            phase = "standby" if fleet.traffic else "serving"
            world[name] = Machine(name, action.generation, phase, now, now, "yes", ready_since=now, healthy_since=now)
        elif action.kind == "destroy":
            world.pop(action.minion_id, None)
        else:
            world[action.minion_id] = replace(world[action.minion_id], **CHANGES[action.kind](action, now))
    return world


def befallen(world: dict[str, Machine], chance: random.Random, now: float) -> None:
    """Let some machine stop, be tainted, fall ill, or lose its visitors."""
    for key in sorted(world):
        if chance.random() < 0.15 and world[key].phase in ("serving", "standby", "draining"):
            happened = [{"taint": "by hand"}, {"health": "no", "since": now}, {"fault": "it has stopped"}]
            happened += [{"health": "unknown", "since": now}, {"sessions": 0}]
            world[key] = replace(world[key], **chance.choice(happened))


def _draining(_action: Action, now: float) -> dict[str, object]:
    return {"phase": "draining", "drain_since": now, "sessions": 0, "attached": False}


CHANGES = {
    "attach": lambda _action, _now: {"phase": "serving", "kept_until": None, "attached": True},
    "drain": _draining,
    "keep": lambda action, _now: {"phase": "standby", "kept_until": action.until},
}


@given(fleet=fleets(), rollout=rollouts(), there=pictures(), chance=SHUFFLES)
def test_the_forecast_of_machines_in_any_order_is_the_same(fleet, rollout, there, chance):
    assert forecast(fleet, rollout, shuffled(there, chance), NOW) == forecast(fleet, rollout, there, NOW)


PAIR = [
    Machine(f"web-{number}", 1, "serving", 100.0, 950.0, "yes", ready_since=110.0, healthy_since=110.0)
    for number in (1, 2)
]
HAPROXY = Fleet(
    "web",
    "web",
    1,
    "web-{token}",
    ProviderSpec("p"),
    strategy=Strategy(max_surge=Amount(1), keep_old=600.0),
    traffic=TrafficSpec("haproxy"),
)
FORWARD = Rollout(1, "web", "roll", source=1, target=2, old_size=1, started=STARTED, progress_at=990.0)
BACK = replace(FORWARD, direction="back", reason="web-9: no nginx")
NEW = replace(PAIR[0], minion_id="web-9", generation=2, born=910.0)


STEPWISE = Strategy(max_surge=Amount(2), steps=(Amount(1), Amount(100, percent=True)), soak=60.0)
STEPS = replace(HAPROXY, size=3, strategy=STEPWISE)
THREE = replace(HAPROXY, size=3)
SERVES = replace(PAIR[0], minion_id="web-0")


@pytest.mark.parametrize("order", [1, -1], ids=["as they are", "the other way round"])
@pytest.mark.parametrize(
    ("fleet", "rollout", "state", "generation", "decision"),
    [
        pytest.param(HAPROXY, FORWARD, "drained", 1, ["keep web-1", "destroy web-2"], id="which drained one is kept"),
        pytest.param(HAPROXY, BACK, "kept", 1, ["attach web-1"], id="which kept one comes back"),
        pytest.param(THREE, FORWARD, "standby", 2, ["attach web-1", "attach web-2"], id="which newcomer serves first"),
        pytest.param(STEPS, FORWARD, "booting", 1, ["destroy web-2"], id="which refill is not needed"),
        pytest.param(
            HAPROXY,
            replace(FORWARD, direction="stop"),
            "booting",
            2,
            ["destroy web-1", "destroy web-2"],
            id="the order in which an abort ends newcomers",
        ),
    ],
)
def test_of_equally_old_machines_the_first_by_id_is_chosen(fleet, rollout, state, generation, decision, order):
    pair = [replace(one, generation=generation, **STATES[state]) for one in PAIR][::order]
    rollout = replace(rollout, old_size=fleet.size)
    others = [NEW] if state == "kept" else [SERVES, NEW]
    actions = plan(fleet, rollout, [*pair, *others], Limits(), NOW).actions
    names = {one.minion_id for one in pair}
    assert [f"{action.kind} {action.minion_id}" for action in actions if action.minion_id in names] == decision


@given(there=pictures(), likely=st.integers(-1, 16), chance=SHUFFLES)
def test_the_oldest_come_first_however_many_are_likely_to_be_asked_for(there, likely, chance):
    assert list(oldest_first(shuffled(there, chance), likely)) == by_age(there)


@given(there=pictures(), limit=st.integers(1, 4), chance=SHUFFLES)
def test_a_diagnosis_names_the_sick_in_the_same_order(there, limit, chance):
    machines = [MachineSeen(one.minion_id, "running", one.born, "no", taint=one.taint) for one in there]
    fleet = replace(HAPROXY, size=len(there), sick_limit=Amount(limit))
    both = (machines, shuffled(machines, chance))
    first, other = (diagnose(fleet, FleetSeen(NOW, tuple(some), True), {}, broken=False) for some in both)
    assert first == other

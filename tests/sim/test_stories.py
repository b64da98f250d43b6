"""Rollouts as stories: what happens, when, and why. A change of behaviour is read here as a diff."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from textwrap import dedent

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable.fleet import fleets
from saltext.immutable.fleet.drive.loop import Interrupted
from saltext.immutable.fleet.operations import Failed
from saltext.immutable.fleet.show import report
from saltext.immutable.minions import Event, NoAnswer
from saltext.immutable.providers import Identity
from saltext.immutable.spec.model import Amount, FunctionCheck, HttpCheck, ProviderSpec, Strategy
from saltext.immutable.store import Held

from .simulated import Faults, Killed, Simulated

ONE, TWO = "1" * 64, "2" * 64


class Steady(Simulated):
    """Every call takes the middle of its time, every boot two seconds."""

    def __init__(self, faults: Faults | None = None) -> None:
        super().__init__(0, faults)
        self.random.uniform = lambda low, high: 2.0 if (low, high) == (1, 4) else (low + high) / 2


def told(estate) -> str:
    """Write the newest rollout's journal, a line an entry."""
    rollout = estate.ledger.rollouts()[0]
    entries = estate.ledger.entries(rollout.id)
    return "\n".join(f"{e.at - rollout.started:.1f} {e.what} {e.minion_id or '-'}: {e.reason}" for e in entries)


def story(text: str) -> str:
    return dedent(text).strip()


@pytest.fixture
def fleet(estate):
    """A fleet of three that runs image 1."""
    made = estate(Steady())
    made.publish(ONE)
    made.operations().roll("web")
    return made


def test_a_first_roll(fleet):
    assert told(fleet) == story("""
        0.0 launch web-001: 1 of 3 on generation 1
        0.0 launch web-002: 2 of 3 on generation 1
        0.0 launch web-003: 3 of 3 on generation 1
        0.3 launched web-001: it boots as ref-web-001
        0.3 launched web-002: it boots as ref-web-002
        0.3 launched web-003: it boots as ref-web-003
        2.4 ready web-001: it runs the planned image and is healthy after 2.4 s
        2.4 ready web-002: it runs the planned image and is healthy after 2.4 s
        2.4 ready web-003: it runs the planned image and is healthy after 2.4 s
        2.4 done -: 3 of 3 healthy on generation 1
        """)


def test_a_roll(fleet):
    fleet.publish(TWO)
    fleet.operations().roll("web")
    assert fleet.running() == [TWO] * 3
    fleet.assert_in_order()
    assert told(fleet) == story("""
        0.0 launch web-004: 1 of 3 on generation 2
        0.3 launched web-004: it boots as ref-web-004
        2.4 ready web-004: it runs the planned image and is healthy after 2.4 s
        2.4 destroy web-001: generation 1 goes: generation 2 is wanted
        2.4 launch web-005: 2 of 3 on generation 2
        2.7 launched web-005: it boots as ref-web-005
        2.7 gone web-001: absent, keys deleted
        4.8 ready web-005: it runs the planned image and is healthy after 2.4 s
        4.8 destroy web-002: generation 1 goes: generation 2 is wanted
        4.8 launch web-006: 3 of 3 on generation 2
        5.1 launched web-006: it boots as ref-web-006
        5.1 gone web-002: absent, keys deleted
        7.2 ready web-006: it runs the planned image and is healthy after 2.4 s
        7.2 destroy web-003: generation 1 goes: generation 2 is wanted
        7.5 gone web-003: absent, keys deleted
        7.5 done -: 3 of 3 healthy on generation 2
        """)


def test_an_unhealthy_image_goes_and_the_old_stay(fleet):
    fleet.publish(TWO)
    fleet.world.faults.ill[TWO] = "unhealthy"
    with pytest.raises(Failed, match="(?s)rolled back: web-004: not ready .*nginx is dead.*last words of"):
        fleet.operations().roll("web")
    assert fleet.running() == [ONE] * 3
    assert fleet.ledger.lineage() == [1]
    fleet.assert_in_order()
    assert told(fleet) == story("""
        0.0 launch web-004: 1 of 3 on generation 2
        0.3 launched web-004: it boots as ref-web-004
        30.0 failed web-004: not ready within 30 s: nginx is dead
        30.0 back -: web-004: not ready within 30 s: nginx is dead
        30.2 console web-004: last words of ref-web-004
        30.3 gone web-004: absent, keys deleted
        30.3 rolled back -: web-004: not ready within 30 s: nginx is dead
        """)


def test_a_second_roll_has_nothing_to_do(fleet):
    assert fleet.operations().roll("web") is None
    assert len(fleet.ledger.rollouts()) == 1


def test_a_rollback_goes_to_the_generation_before(fleet):
    fleet.publish(TWO)
    fleet.operations().roll("web")
    fleet.operations().rollback("web")
    assert fleet.running() == [ONE] * 3
    assert fleet.ledger.lineage() == [1]
    with pytest.raises(SaltInvocationError, match="no good generation to go back to.*there are: 1, 2"):
        fleet.operations().rollback("web")
    with pytest.raises(SaltInvocationError, match="has no generation 200000; there are: "):
        fleet.operations().rollback("web", 200_000)
    fleet.operations().rollback("web", 2)
    assert fleet.running() == [TWO] * 3


def test_rolling_back_an_interrupted_roll_returns_to_where_it_came_from(fleet):
    fleet.publish(TWO)
    _kill_after(fleet, "ready")
    with pytest.raises(Killed):
        fleet.operations().roll("web")
    fleet.operations().rollback("web")
    assert fleet.running() == [ONE] * 3
    assert [one.outcome for one in fleet.ledger.rollouts()] == ["rolled back", "done"]
    fleet.assert_in_order()


@pytest.mark.parametrize("what", ["launch", "launched", "ready", "destroy", "gone"])
def test_the_same_command_carries_on_after_a_kill(fleet, what):
    fleet.publish(TWO)
    _kill_after(fleet, what)
    with pytest.raises(Killed):
        fleet.operations().roll("web")
    fleet.operations().roll("web")
    assert fleet.running() == [TWO] * 3
    assert [one.outcome for one in fleet.ledger.rollouts()] == ["done", "done"]
    fleet.assert_in_order()


def test_a_roll_that_is_carried_on_keeps_its_target_and_then_follows_the_channel(fleet):
    fleet.publish(TWO)
    _kill_after(fleet, "ready")
    with pytest.raises(Killed):
        fleet.operations().roll("web")
    fleet.publish("3" * 64)
    fleet.operations().roll("web")
    assert fleet.running() == ["3" * 64] * 3
    assert [(one.target, one.outcome) for one in fleet.ledger.rollouts()] == [(3, "done"), (2, "done"), (1, "done")]


def test_who_is_told_to_stop_finishes_what_is_under_way(fleet, monkeypatch):
    fleet.publish(TWO)
    heard = []
    monkeypatch.setattr(fleets, "stop_on_signal", lambda: nullcontext(lambda: "launch" in heard))
    fleet.story.clear()
    with pytest.raises(Interrupted, match="`salt-run fleet.roll web` carries on"):
        _hear(fleet, heard).roll("web")
    assert [entry.what for entry in fleet.story] == ["launch", "launched"]
    heard.clear()
    monkeypatch.undo()
    fleet.operations().roll("web")
    assert fleet.running() == [TWO] * 3


def test_a_wrong_image_is_a_failure_at_once(fleet):
    fleet.publish(TWO)
    fleet.world.faults.ill[TWO] = "wrong"
    with pytest.raises(Failed, match="it runs image another, not 222222222222"):
        fleet.operations().roll("web")
    assert fleet.ledger.rollouts()[0].ended - fleet.ledger.rollouts()[0].started < 5


def test_an_intruder_fails_the_launch_and_alarms(fleet):
    fleet.publish(TWO)
    fleet.world.faults.intruder = 1.0
    with pytest.raises(Failed, match="another key"):
        fleet.operations().roll("web")
    assert "alarm" in [entry.what for entry in fleet.story]
    fleet.assert_in_order()


def test_nobody_is_failed_by_what_a_minion_says_of_it(fleet):
    fleet.publish(TWO)
    fleet.world.faults.rumour = 1.0
    fleet.operations().roll("web")
    assert fleet.running() == [TWO] * 3
    assert "alarm" not in [entry.what for entry in fleet.story]


def test_what_a_neighbour_forges_harms_nobody_and_is_told_once(fleet):
    fleet.publish(TWO)
    fleet.world.faults.neighbour = 1.0
    fleet.operations().roll("web")
    assert fleet.running() == [TWO] * 3
    alarms = [(entry.minion_id, entry.reason) for entry in fleet.story if entry.what == "alarm"]
    assert alarms and len(alarms) == len(set(alarms))
    assert {reason for _, reason in alarms} == {"an answer under its id is not signed with its key: ignored"}
    assert not [entry for entry in fleet.story if entry.what in ("failed", "tainted", "unhealthy")]


def test_a_minion_that_says_all_the_time_that_it_started_is_looked_at_no_more_than_others(fleet, monkeypatch):
    looks = []
    image_of = fleet.world.image_of
    monkeypatch.setattr(fleet.world, "image_of", lambda *a: looks.append(a) or image_of(*a))
    for tenth in range(600):
        fleet.world.later(tenth / 10, Event("started", "web-002"))
        fleet.world.later(tenth / 10, Event("denied", "web-002"))
    fleet.publish(TWO)
    fleet.operations().roll("web")
    assert fleet.running() == [TWO] * 3
    assert len(looks) < 20


def test_a_look_that_does_not_come_back_leaves_nobody_healthy(fleet, monkeypatch):
    """web-004 was well once, then every look at it hangs: when web-005 is ready at last, no old one may go for it."""
    fleet.publish(TWO)
    world, submit, looks = fleet.world, fleet.world.submit, []

    def hanging(task, call):
        looks.extend([task] if (task.kind, task.minion_id) == ("probe", "web-004") else [])
        if task in looks and len(looks) > 1:
            world.main.put(1e6, task, call)
        else:
            submit(task, call)

    monkeypatch.setattr(world, "submit", hanging)
    uniform = world.random.uniform
    world.random.uniform = lambda *a: 27.0 if a == (1, 4) and world.names == 5 else uniform(*a)
    with pytest.raises(Failed, match="web-004: not healthy for 30 s: its probe takes longer than 20 s"):
        fleet.operations().roll("web")
    assert fleet.running() == [ONE] * 3
    assert [entry.minion_id for entry in fleet.story if entry.what == "destroy"] == ["web-001", "web-005"]


@pytest.mark.parametrize("came", [True, False], ids=["it came up anyway", "it did not come up"])
def test_a_launch_without_an_answer_is_in_doubt_and_no_failure(fleet, monkeypatch, came):
    fleet.publish(TWO)
    launch, silent = fleet.world.launch, [True]

    def unanswered(published, identity):
        if not silent:
            return launch(published, identity)
        silent.clear()
        if came:
            fleet.world._create(published, identity)
        raise NoAnswer("the host does not answer")

    monkeypatch.setattr(fleet.world, "launch", unanswered)
    fleet.operations().roll("web")
    assert fleet.running() == [TWO] * 3
    assert "0.3 in doubt web-004: it may have been launched: the host does not answer" in told(fleet)
    assert ("launched web-004" in told(fleet)) is not came
    fleet.assert_in_order()


def test_a_destroy_without_an_answer_is_in_doubt(fleet):
    fleet.world.faults.unanswered = 1.0
    fleet.operations().destroy("web")
    fleet.assert_in_order()
    assert "in doubt web-001: it may have been destroyed: the host does not answer" in told(fleet)
    assert "could not" not in told(fleet)


def test_dead_and_left_over_machines_are_replaced(fleet):
    fleet.operations().replace("web-001", "its disk is old")
    fleet.world._die("web-002")
    fleet.world._create(ONE, Identity("web-001", "web", 1, fleet.store.installation))  # a late answer to its launch
    foreseen = fleet.operations().forecast("web", "roll")
    assert sorted(a.minion_id or "" for a in foreseen.actions) == ["", "web-001", "web-002"]
    fleet.operations().roll("web")
    assert set(fleet.world.machines) == {"web-003", "web-004", "web-005"}
    fleet.assert_in_order()


def test_a_tainted_machine_is_replaced_by_a_roll_of_the_same_image(fleet):
    fleet.taint("web-002")
    foreseen = report.describe_forecast(fleet.operations().forecast("web", "roll"))
    assert (foreseen["verdict"], foreseen["changes"]) == ("roll", {"launch": 1, "destroy": ["web-002"]})
    fleet.operations().roll("web")
    assert set(fleet.world.machines) == {"web-001", "web-003", "web-004"}
    assert fleet.ledger.tainted() == {}
    fleet.assert_in_order()
    assert told(fleet) == story("""
        0.0 launch web-004: 3 of 3 on generation 1
        0.3 launched web-004: it boots as ref-web-004
        2.4 ready web-004: it runs the planned image and is healthy after 2.4 s
        2.4 destroy web-002: tainted: vim /etc/motd
        2.7 gone web-002: absent, keys deleted
        2.7 done -: 3 of 3 healthy on generation 1
        """)
    assert fleet.operations().roll("web") is None


def test_a_machine_that_is_tainted_while_a_rollout_goes_on_is_replaced_in_it(fleet):
    fleet.publish(TWO)
    fleet.world.later(5.0, lambda: fleet.taint("web-004"))
    fleet.operations().roll("web")
    assert set(fleet.world.machines) == {"web-005", "web-006", "web-007"}
    assert "destroy web-004: tainted: vim /etc/motd" in told(fleet)
    assert fleet.ledger.rollouts()[0].outcome == "done"
    assert not fleet.ledger.rollouts()[0].failures
    fleet.assert_in_order()


def test_a_newcomer_that_fails_leaves_the_tainted_machine_at_work(fleet):
    fleet.taint("web-002")
    fleet.world.dead_on_arrival = 1
    with pytest.raises(Failed, match="rolled back: web-004: not ready within 30 s"):
        fleet.operations().roll("web")
    assert set(fleet.world.machines) == {"web-001", "web-002", "web-003"}
    assert fleet.ledger.tainted() == {"web-002": "vim /etc/motd"}
    fleet.operations().roll("web")
    assert set(fleet.world.machines) == {"web-001", "web-003", "web-005"}


def test_a_rollback_to_the_generation_that_runs_replaces_what_is_tainted(fleet):
    fleet.taint("web-002")
    fleet.operations().rollback("web", 1)
    assert set(fleet.world.machines) == {"web-001", "web-003", "web-004"}
    assert fleet.operations().rollback("web", 1) is None


def test_tainted_machines_are_destroyed_like_others(fleet):
    fleet.taint("web-002")
    fleet.operations().destroy("web")
    assert fleet.ledger.tainted() == {}
    fleet.assert_in_order()


@pytest.mark.parametrize(
    ("minion_id", "installation"),
    [
        pytest.param("web-999", "another", id="another master has a fleet of that name"),
        pytest.param("*", None, id="an id that is a glob would take every key with it"),
        pytest.param("../web-1", None, id="an id that is a path"),
    ],
)
def test_what_cannot_be_ours_is_left_alone(fleet, minion_id, installation):
    identity = Identity(minion_id, "web", 1, installation or fleet.store.installation)
    fleet.world.expect(minion_id)
    fleet.world._create(ONE, identity)
    assert fleet.operations().forecast("web", "roll").nothing
    fleet.publish(TWO)
    fleet.operations().roll("web")
    fleet.operations().destroy("web")
    assert set(fleet.world.machines) == {minion_id}
    assert set(fleet.world.keys) == {minion_id}


@pytest.mark.parametrize("size", [1, 5, 0])
def test_the_size_of_the_pillar_is_followed(fleet, size):
    fleet.resize(size)
    fleet.operations().roll("web")
    assert fleet.running() == [ONE] * size
    fleet.assert_in_order()


def test_a_fleet_can_be_destroyed_when_it_left_the_pillar(fleet):
    names = [a.minion_id for a in fleet.operations().forecast("web", "destroy").actions]
    assert names == ["web-001", "web-002", "web-003"]
    fleet.pillar = {}
    fleet.operations().destroy("web")
    fleet.assert_in_order()
    assert not fleet.world.machines
    assert fleet.operations().destroy("web") is None
    with pytest.raises(SaltInvocationError, match="immutable:fleets:web is not in the pillar"):
        fleet.operations().roll("web")
    assert fleet.ledger.generations()


def test_without_surge_the_fleet_is_never_smaller_than_allowed(estate):
    made = estate(Steady(), strategy=Strategy(max_surge=Amount(0), max_unavailable=Amount(1)))
    made.publish(ONE)
    made.operations().roll("web")
    made.publish(TWO)
    made.operations().roll("web")
    assert made.running() == [TWO] * 3


def test_a_rollback_that_fails_is_paused_and_another_try_starts_anew(fleet):
    fleet.publish(TWO)
    fleet.operations().roll("web")
    fleet.world.faults.ill[ONE] = "unhealthy"
    with pytest.raises(Failed, match="paused: .*nginx is dead; `salt-run fleet.rollback web` tries again"):
        fleet.operations().rollback("web")
    assert fleet.running() == [TWO] * 3
    fleet.world.faults.ill.clear()
    fleet.operations().rollback("web")
    assert fleet.running() == [ONE] * 3
    assert [one.outcome for one in fleet.ledger.rollouts()][:2] == ["done", "aborted"]


@pytest.mark.parametrize(
    ("first", "size", "spared"),
    [
        pytest.param(3, 10, 9, id="a scale-up that stopped one short"),
        pytest.param(0, 3, 2, id="a first roll that stopped one short"),
        pytest.param(5, 2, 2, id="a wanted scale-down goes down to what is wanted"),
    ],
)
def test_what_serves_after_a_rollout_that_was_paused_is_what_must_go_on_serving(estate, first, size, spared):
    """The books say how many there were when the last rollout *ended*: the floor must not trust them alone."""
    made = estate(Steady(), strategy=Strategy(max_surge=Amount(1), ready_within=30.0, on_failure="pause"), size=first)
    made.publish(ONE)
    if first:
        made.operations().roll("web")
    made.resize(size)
    if spared < size:
        made.world.dead_on_arrival = size - spared
        with pytest.raises(Failed, match="paused"):
            made.operations().roll("web")
    made.publish(TWO)
    fewest = _fewest(made)
    made.operations().roll("web")
    assert made.running() == [TWO] * size
    assert min(fewest) >= spared


def test_a_roll_that_fails_where_there_is_no_good_generation_spares_what_serves(estate):
    made = estate(Steady(), strategy=Strategy(max_surge=Amount(1), ready_within=30.0, on_failure="pause"))
    made.publish(ONE)
    made.world.dead_on_arrival = 1
    with pytest.raises(Failed, match="paused"):
        made.operations().roll("web")
    made.fleet = replace(made.fleet, strategy=replace(made.fleet.strategy, on_failure="rollback"))
    made.publish(TWO)
    made.world.faults.ill[TWO] = "unhealthy"
    with pytest.raises(Failed, match="paused: .*nginx is dead; `salt-run fleet.roll web` tries again, .* carries on\n"):
        made.operations().roll("web")
    assert made.running() == [ONE] * 2


@pytest.mark.parametrize(
    ("check", "says"),
    [
        pytest.param(
            FunctionCheck("cmd.run", ("curl localhost",)),
            "immutable:fleets:web:health:1: cmd.run .* use a function that only looks",
            id="a function that changes",
        ),
        pytest.param(
            FunctionCheck("service.start", ("nginx",), {"unmask": True}),
            "immutable:fleets:web:health:1: service.start called like this is refused",
            id="a function that changes when it is called like this",
        ),
        pytest.param(
            HttpCheck("http://{address}/", timeout=60.0),
            "immutable:fleets:web:health:1:timeout: 60 s is longer than the 15 s",
            id="more patience than there is for all checks",
        ),
    ],
)
def test_a_check_that_no_machine_could_pass_is_refused_before_anything_is_touched(fleet, check, says):
    fleet.publish(TWO)
    fleet.fleet = replace(fleet.fleet, health=(*fleet.fleet.health, check))
    operations, before = fleet.operations(), fleet.ledger.generations()
    for refused in (
        lambda: operations.roll("web"),
        lambda: operations.rollback("web", 1),
        lambda: operations.forecast("web", "roll"),
        lambda: operations.definition("web"),
    ):
        with pytest.raises(SaltInvocationError, match=says):
            refused()
    assert fleet.ledger.generations() == before
    operations.destroy("web")
    fleet.assert_in_order()


def test_a_forecast_says_only_what_is_so(fleet):
    fleet.world._die("web-002")
    actions = report.describe_forecast(fleet.operations().forecast("web", "roll"))["actions"]
    assert actions == [
        {"kind": "destroy", "generation": 1, "reason": "it is gone or has stopped", "minion_id": "web-002"},
        {"kind": "launch", "generation": 1, "reason": "3 of 3 on generation 1"},
    ]


def test_only_one_works_on_a_fleet(fleet):
    with (
        fleet.store.lease("fleet web", user="jane"),
        pytest.raises(Held, match="fleet web is held by pid .*user jane"),
    ):
        fleet.operations().roll("web")


def test_providers_of_generations_that_are_only_history_are_not_asked(fleet):
    """A provider that was uninstalled since must not stop a fleet that left it long ago."""
    fleet.fleet = replace(fleet.fleet, provider=ProviderSpec("another"))
    fleet.operations().roll("web")
    fleet.loadable = {"another"}
    fleet.publish(TWO)
    fleet.operations().roll("web")
    assert fleet.running() == [TWO] * 3


def test_a_list_that_lags_costs_no_machine(estate):
    made = estate(Steady(Faults(lags=True)))
    made.publish(ONE)
    made.operations().roll("web")
    assert [entry.what for entry in made.story].count("launch") == 3


def test_a_machine_is_not_forgotten_while_its_launch_may_still_come(fleet):
    """Else it would come up later, in no book and with a key."""
    fleet.publish(TWO)
    fleet.world.faults.launch_hangs = 1.0
    with pytest.raises(Failed, match="web-004: not ready within 30 s: it did not answer"):
        fleet.operations().roll("web")
    assert [entry.what for entry in fleet.story][-6:-1] == ["failed", "back", "launched", "console", "gone"]
    fleet.assert_in_order()


def _fewest(fleet) -> list[int]:
    """Return a list that gets the number of machines that serve, each time that one is let go."""
    counts: list[int] = []

    def count(entry):
        if entry.what == "destroy":
            records = fleet.ledger.records().values()
            counts.append(sum(one.ready_since is not None and not one.doomed for one in records))

    fleet.say = count
    return counts


def _kill_after(fleet, what: str) -> None:
    """Let the process die when it has written the next entry of this kind."""

    def die(entry):
        if entry.what == what:
            fleet.say = fleet.story.append
            raise Killed

    fleet.say = die


def _hear(fleet, heard: list[str]):
    def note(entry):
        fleet.story.append(entry)
        heard.append(entry.what)

    fleet.say = note
    return fleet.operations()

"""What upkeep does with a fleet: whose turn it is, who is sick, who has to go, and what nobody wants."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.immutable.fleet.decide.orphans import Orphan, orphan_keys
from saltext.immutable.fleet.decide.orphans import decide as decide_orphans
from saltext.immutable.fleet.decide.reconcile import FleetStatus, decide, failed_attempts, rest
from saltext.immutable.fleet.decide.sickness import Diagnosis, FleetSeen, MachineSeen, Rhythm, Sickness, diagnose
from saltext.immutable.fleet.decide.state import Rollout
from saltext.immutable.spec.model import Amount, Fleet, ProviderSpec, Strategy

NOW = 1_000_000.0
FLEET = Fleet(
    "web",
    "web",
    5,
    "web-{token}.example.com",
    ProviderSpec("p"),
    strategy=Strategy(ready_within=600.0),
    sick_limit=Amount(20, percent=True),
    unreachable_for=600.0,
    orphan_grace=3600.0,
)


def unfinished(kind: str, outcome: str | None = None, by: str | None = None, **more: object) -> Rollout:
    known = {"started": NOW - 9000, "progress_at": NOW - 9000, "reason": "no capacity", "verdict": "1 booting"}
    return Rollout(1, "web", kind, 1, 2, 5, outcome=outcome, paused_by=by, **{**known, **more})  # type: ignore


def status(rollout: Rollout | None = None, **changes: object) -> FleetStatus:
    return replace(FleetStatus(True, None, rollout, settled=True, machines=True), **changes)  # type: ignore[arg-type]


RESTED = unfinished("reconcile", "paused", "failure", ended=NOW - 600)
TIRED = unfinished("reconcile", "paused", "failure", ended=NOW - 599)


@pytest.mark.parametrize(
    ("state", "action", "says"),
    [
        pytest.param(
            status(wanted=False), "alarm", "`salt-run fleet.destroy web`", id="not in the pillar: never touched"
        ),
        pytest.param(status(wanted=False, held_by="pid 7"), "alarm", "not in the pillar", id="also when held"),
        pytest.param(status(held_by="pid 7"), "busy", "pid 7 works on it", id="somebody drives"),
        pytest.param(status(unfinished("roll"), held_by="pid 7"), "busy", "pid 7", id="somebody drives a roll"),
        pytest.param(status(unfinished("roll")), "carry on", "1 booting", id="a roll that was killed"),
        pytest.param(status(unfinished("rollback")), "carry on", "rollback", id="a rollback that was killed"),
        pytest.param(status(unfinished("destroy")), "carry on", "destroy", id="a destroy that was killed"),
        pytest.param(status(unfinished("scale")), "carry on", "scale", id="a scale that was killed"),
        pytest.param(status(unfinished("reconcile")), "observe", "", id="upkeep that was killed looks first"),
        pytest.param(status(unfinished("roll", "paused", "operator")), "leave", "an operator", id="paused by hand"),
        pytest.param(status(unfinished("roll", "paused", "failure")), "leave", "no capacity", id="paused by failure"),
        pytest.param(
            status(unfinished("scale", "paused", "failure")), "leave", "its scale", id="a scale that failed"
        ),
        pytest.param(status(unfinished("roll", "paused", "window")), "carry on", "is open", id="the window is open"),
        pytest.param(
            status(unfinished("roll", "paused", "window"), closed="opens Sat"), "leave", "opens Sat",
            id="still closed",
        ),
        pytest.param(
            status(unfinished("reconcile", "paused", "window"), closed="opens Sat"),
            "observe",
            "",
            id="upkeep that waits for a window looks for the dead meanwhile",
        ),
        pytest.param(status(unfinished("reconcile", "paused", "operator")), "leave", "", id="upkeep paused by hand"),
        pytest.param(status(TIRED, failed_attempts=1), "rest", "attempt 1", id="upkeep that failed rests"),
        pytest.param(status(RESTED, failed_attempts=1), "observe", "tried again", id="and begins again"),
        pytest.param(status(RESTED, failed_attempts=2), "rest", "attempt 2", id="the second time after twice as long"),
        pytest.param(status(settled=False, machines=False), "nothing", "never was rolled", id="never rolled"),
        pytest.param(status(settled=False), "leave", "fleet.roll web", id="its first roll failed"),
        pytest.param(status(), "observe", "nobody works on it", id="nobody works on it"),
    ],
)
def test_whose_turn_it_is(state, action, says):
    found = decide(FLEET, state, NOW)
    assert found.action == action and says in found.reason, found
    assert found.failed == (action in ("alarm", "rest"))
    assert (found.until is not None and found.until > NOW) == (action == "rest")


@pytest.mark.parametrize(("number", "seconds"), [(0, 600), (1, 600), (2, 1200), (3, 2400), (4, 3600), (5000, 3600)])
def test_trials_that_fail_come_ever_more_rarely_but_once_an_hour(number, seconds):
    assert rest(FLEET, number) == seconds


@pytest.mark.parametrize(
    ("rollouts", "number"),
    [
        pytest.param([], 0, id="none"),
        pytest.param([unfinished("reconcile", "paused", "failure")], 1, id="one"),
        pytest.param(
            [unfinished("reconcile", "paused", "failure"), unfinished("reconcile", "aborted", "failure")] * 2, 4, id="4"
        ),
        pytest.param(
            [unfinished("reconcile", "paused", "failure"), unfinished("reconcile", "done")], 1, id="since one was done"
        ),
        pytest.param(
            [unfinished("roll", "done"), unfinished("reconcile", "paused", "failure")], 0,
            id="a roll begins a new count",
        ),
        pytest.param([unfinished("reconcile")], 0, id="one that was interrupted did not fail"),
    ],
)
def test_how_many_trials_failed(rollouts, number):
    assert failed_attempts(rollouts) == number


# Diagnosis


def test_outdated_machines_are_left_for_the_next_roll():
    """They cannot prove how they are, and the last good generation may be theirs."""
    note = "its image has an older version of this pack; the next roll replaces it"
    old = tuple(machine(name, "unknown", outdated=True, note=note) for name in "abcde")
    found = diagnose(FLEET, look("", machines=old, heard=True), LONG, broken=False)
    assert (found.sick, found.reasons, found.alarm) == ((), (), None)
    assert found.waits == tuple(f"{name}: {note}" for name in "abcde")


def test_that_a_host_boots_is_no_sickness_of_its_machines():
    """They are waited for, and replaced if they do not come back."""
    ended = tuple(machine(name, "stopped", ended_with_host=True) for name in "abcde")
    found = diagnose(FLEET, look("", machines=ended, heard=True), {}, broken=False)
    assert (found.alarm, found.reasons, len(found.waits)) == (None, (), 5)
    long = {one.minion_id: seen(one.minion_id, "stopped", FLEET.strategy.ready_within)[one.minion_id] for one in ended}
    found = diagnose(FLEET, look("", machines=ended, heard=True), long, broken=False)
    assert (found.alarm, len(found.reasons)) == (None, 5)


def test_a_machine_that_was_started_again_may_boot_for_a_while():
    within = FLEET.strategy.ready_within
    boots = tuple(machine(name, "unknown", restarted=NOW - within + 1) for name in "abcde")
    found = diagnose(FLEET, look("", machines=boots, heard=False), {}, broken=False)
    assert (found.alarm, found.reasons, len(found.waits)) == (None, (), 5)


AGO = FLEET.strategy.ready_within + 1


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize(
    ("what", "ailment", "lasts", "mends"),
    [
        pytest.param({"word": "unknown", "restarted": NOW - AGO}, None, 0, False, id="silent: found so once"),
        pytest.param({"word": "unknown", "restarted": NOW - AGO}, "unreachable", 1, True, id="silent: found so twice"),
        pytest.param({"word": "no", "restarted": NOW - AGO}, "unreachable", 1, True, id="it answers, and is ill"),
        pytest.param({"word": "stopped", "restarted": NOW - AGO}, None, 0, True, id="it ended again"),
        pytest.param({"word": "stopped", "ended_with_host": True}, "stopped", AGO - 2, False, id="not started yet"),
        pytest.param({"word": "stopped", "ended_with_host": True}, "stopped", AGO - 1, True, id="never started"),
    ],
)
@pytest.mark.parametrize("number", [2, 3, 5])
def test_machines_that_do_not_come_back_with_their_host_are_replaced_however_many_they_are(
    number, what, ailment, lasts, mends, heard
):
    """Even where nobody else answers: nothing is removed before a new machine has answered."""
    machines = [machine(name, **what) for name in "abcde"[:number]] + [machine(name) for name in "abcde"[number:]]
    before = {one.minion_id: seen(one.minion_id, ailment, lasts)[one.minion_id] for one in machines[:number] if ailment}
    found = diagnose(FLEET, look("", machines=tuple(machines), heard=heard), before, broken=False)
    assert (found.alarm, len(found.sick), len(found.reasons)) == (None, number, number * mends)
    assert len(found.waits) == number * (not mends)


def test_a_machine_that_its_host_started_again_is_not_of_its_host_once_it_was_healthy():
    """Its sickness counts for the fleet, and so does the silence of machines that no host started."""
    assert asked("unknown unknown unknown yes yes").alarm is not None
    machines = (machine("a", "unknown"), *(machine(name, "unknown", restarted=NOW - AGO) for name in "bcde"))
    found = diagnose(FLEET, look("", machines=machines, heard=False), {}, broken=False)
    assert found.alarm is not None and "nobody else answers" in found.alarm


def machine(name: str, word: str = "yes", **more: object) -> MachineSeen:
    """``yes``, ``no``, ``unknown`` of one that runs, or ``stopped``, ``absent``."""
    there = word if word in ("stopped", "absent") else "running"
    health = word if there == "running" else "unknown"
    return MachineSeen(name, there, NOW - 5000, health, **more)  # type: ignore[arg-type]


def look(words: str, **more: object) -> FleetSeen:
    """``look("yes yes no")``: machines a, b and c; who answers is heard."""
    known = tuple(machine(name, word) for name, word in zip("abcdefghijkl", words.split(), strict=False))
    heard = any(one.health != "unknown" for one in known)
    return replace(FleetSeen(NOW, known, heard), **more)  # type: ignore[arg-type]


def seen(name: str, ailment: str, ago: float) -> dict[str, Sickness]:
    return {name: Sickness(name, "web", ailment, "", NOW - ago, NOW - 300)}  # type: ignore[arg-type]


def asked(words: str, before: dict[str, Sickness] | None = None, broken: bool = False, **more: object) -> Diagnosis:
    return diagnose(FLEET, look(words, **more), before or {}, broken)


def ids(found: tuple[Sickness, ...]) -> str:
    return " ".join(one.minion_id for one in found)


LONG = seen("e", "unreachable", 600)


@pytest.mark.parametrize(
    ("found", "sick", "taints", "mends"),
    [
        pytest.param(asked("yes yes yes yes yes"), "", "", False, id="all is well"),
        pytest.param(asked("yes yes yes yes stopped"), "e", "", True, id="one that stopped is replaced at once"),
        pytest.param(asked("yes yes yes yes absent"), "e", "", True, id="so is one that is gone"),
        pytest.param(asked("yes yes yes yes absent", settles=60), "e", "", False, id="but a list may lag"),
        pytest.param(
            asked("yes yes yes yes absent", seen("e", "absent", 60), settles=60), "e", "", True, id="not for long"
        ),
        pytest.param(
            asked("yes yes yes yes absent", seen("e", "unreachable", 60), settles=60), "e", "", False, id="absent again"
        ),
        pytest.param(asked("yes yes yes yes unknown"), "e", "", False, id="silence is borne at first"),
        pytest.param(
            asked("yes yes yes yes unknown", seen("e", "unreachable", 599)), "e", "", False, id="and for a while"
        ),
        pytest.param(asked("yes yes yes yes unknown", LONG), "e", "e", True, id="but not forever"),
        pytest.param(asked("yes yes yes yes no", LONG), "e", "e", True, id="ill in another way is still ill"),
        pytest.param(asked("yes yes yes yes yes", LONG), "", "", False, id="well again is well"),
        pytest.param(
            asked("yes yes yes yes unknown", LONG, broken=True), "e", "", False, id="after a break it counts again"
        ),
        pytest.param(
            asked("yes yes yes unknown unknown", LONG, heard=True), "d e", "", False, id="two of five: too many"
        ),
        pytest.param(asked("yes yes yes stopped no", LONG), "d e", "", False, id="of whatever kind"),
        pytest.param(
            asked("unknown unknown unknown unknown unknown", LONG), "", "", False, id="nobody answers: it is us"
        ),
        pytest.param(asked("yes yes yes yes"), "", "", True, id="one too few"),
        pytest.param(asked("yes yes yes yes yes yes"), "", "", True, id="one too many"),
        pytest.param(asked("yes yes yes yes yes", leaving=1), "", "", True, id="one has to go still"),
        pytest.param(asked("yes yes yes yes yes", unfinished=True), "", "", True, id="an earlier attempt did not end"),
    ],
)
def test_who_is_sick_and_what_has_to_be_mended(found, sick, taints, mends):
    assert (ids(found.sick), ids(found.taints), bool(found.reasons)) == (sick, taints, mends), found


def test_when_nobody_answers_silence_is_no_evidence_and_somebody_is_told():
    found = asked("unknown unknown unknown unknown stopped", LONG)
    assert ids(found.sick) == "e" and not found.reasons and "could be the master" in str(found.alarm)
    elsewhere = diagnose(replace(FLEET, size=1), FleetSeen(NOW, (machine("e", "unknown"),), heard=True), LONG, False)
    assert ids(elsewhere.taints) == "e", "a machine of another fleet answered"


@pytest.mark.parametrize(
    ("size", "limit", "sick", "mends"),
    [
        pytest.param(1, Amount(20, percent=True), 1, True, id="the only one"),
        pytest.param(3, Amount(20, percent=True), 1, True, id="20 % of 3 is 1"),
        pytest.param(3, Amount(20, percent=True), 2, False, id="and not 2"),
        pytest.param(6, Amount(20, percent=True), 2, True, id="20 % of 6 is 2"),
        pytest.param(6, Amount(20, percent=True), 3, False, id="and not 3"),
        pytest.param(6, Amount(0), 1, True, id="one at least"),
        pytest.param(6, Amount(0), 2, False, id="0 is no more than one"),
        pytest.param(6, Amount(4), 4, True, id="a number is a number"),
        pytest.param(6, Amount(100, percent=True), 6, True, id="100 %: no limit"),
    ],
)
def test_above_the_limit_none_is_replaced(size, limit, sick, mends):
    words = " ".join(["stopped"] * sick + ["yes"] * (size - sick))
    found = diagnose(replace(FLEET, size=size, sick_limit=limit), look(words, heard=True), {}, False)
    assert bool(found.reasons) == mends and (found.alarm is None) == mends
    if not mends:
        assert f"{sick} machines of {size} are sick" in str(found.alarm)
        assert "a (it has stopped)" in str(found.alarm) and "`salt-run fleet.roll web`" in str(found.alarm)


@pytest.mark.parametrize(
    ("words", "mends"),
    [
        pytest.param("yes yes yes absent absent absent", True, id="as many as wanted are well: nothing is launched"),
        pytest.param("yes yes unknown absent absent absent", False, id="one too few: an operator decides"),
        pytest.param("yes yes yes stopped stopped", False, id="those that are there count"),
    ],
)
def test_machines_that_are_gone_and_not_missed_are_no_alarm(words, mends):
    found = diagnose(replace(FLEET, size=3), look(words, heard=True), {}, False)
    assert bool(found.reasons) == mends and (found.alarm is None) == mends


def with_one(one: MachineSeen, **more: object) -> FleetSeen:
    others = tuple(machine(name) for name in "abcd")
    return replace(FleetSeen(NOW, (*others, one), heard=True), **more)  # type: ignore[arg-type]


AGED = replace(FLEET, max_age=5000.0)


@pytest.mark.parametrize(
    ("fleet", "seen_now", "reason", "waits"),
    [
        pytest.param(FLEET, with_one(machine("e", taint="vim")), "e: tainted: vim", "", id="tainted"),
        pytest.param(FLEET, with_one(machine("e", taint="vim"), closed="opens Sat"), "", "opens Sat", id="by a window"),
        pytest.param(FLEET, with_one(machine("e", taint="vim", protect="dump")), "", "protected: dump", id="protected"),
        pytest.param(
            FLEET, with_one(machine("e", "stopped", taint="vim"), closed="Sat"), "stopped", "", id="dead anyway"
        ),
        pytest.param(
            AGED, with_one(replace(machine("e"), born=NOW - 4999)), "a: older than 5000 s", "", id="others are old"
        ),
        pytest.param(FLEET, with_one(machine("e", left=True)), "left it unready", "", id="left by a rollout"),
        pytest.param(FLEET, with_one(machine("e", cut_off=True)), "is sent no visitors", "", id="forgotten by HAProxy"),
        pytest.param(FLEET, with_one(machine("e", kept_until=NOW)), "its time is over", "", id="kept for long enough"),
        pytest.param(
            replace(FLEET, size=4), with_one(machine("e", "unknown", kept_until=NOW + 1)), "", "",
            id="kept, whatever it is",
        ),
    ],
)
def test_what_else_is_mended_and_what_waits(fleet, seen_now, reason, waits):
    found = diagnose(fleet, seen_now, {}, False)
    assert reason in "; ".join(found.reasons) and bool(found.reasons) == bool(reason), found
    assert waits in "; ".join(found.waits) and bool(found.waits) == bool(waits), found


def test_tainted_and_over_age_machines_are_not_sick():
    found = diagnose(AGED, look("yes yes yes yes yes"), {}, False)
    assert (found.sick, found.alarm, len(found.reasons)) == ((), None, 5)


@pytest.mark.parametrize(
    ("word", "mends"), [pytest.param("no", False, id="it runs"), pytest.param("stopped", True, id="it is dead anyway")]
)
def test_a_protected_machine_is_not_replaced_for_its_health(word, mends):
    sick = with_one(machine("e", word, protect="core dump"))
    found = diagnose(FLEET, sick, LONG, False)
    assert (bool(found.reasons), found.taints) == (mends, ())
    assert "it is protected" in "; ".join(found.waits) or mends


@pytest.mark.parametrize(
    ("gaps", "broken"),
    [
        pytest.param([300, 300, 300], False, id="every five minutes"),
        pytest.param([300, 300, 900], False, id="three times the usual"),
        pytest.param([300, 300, 901], True, id="and more"),
        pytest.param([300, 3600, 300, 3600], True, id="two outages soon after one another"),
        pytest.param([300, 3600, 3600, 3600], False, id="a slower schedule becomes usual"),
        pytest.param([3600, *[300] * 20, 3600], True, id="so does a faster one"),
        pytest.param([300, 5, 300], False, id="a look by hand in between"),
        pytest.param([1800], False, id="before anything is usual: three times the patience"),
        pytest.param([1801], True, id="and no more"),
        pytest.param([300, -10], True, id="a clock that went back"),
    ],
)
def test_after_a_break_nothing_is_known(gaps, broken):
    rhythm, now = Rhythm(NOW), NOW
    for gap in gaps[:-1]:
        now += gap
        rhythm = rhythm.looked(now)
    assert rhythm.broken(now + gaps[-1], patience=600) == broken


WORDS = st.sampled_from(["yes", "no", "unknown", "stopped", "absent"])


@given(
    rounds=st.lists(st.lists(WORDS, min_size=1, max_size=8), min_size=1, max_size=6),
    gaps=st.lists(st.floats(1, 1000), min_size=6, max_size=6),
    limit=st.integers(0, 100),
    elsewhere=st.booleans(),
)
def test_whatever_happens_no_more_than_the_limit_is_replaced_and_nobody_too_soon(rounds, gaps, limit, elsewhere):
    now, memory, since = NOW, {}, {}
    for words, gap in zip(rounds, gaps, strict=False):
        now += gap
        fleet = replace(FLEET, size=len(words), sick_limit=Amount(limit, percent=True))
        seen_now = replace(look(" ".join(words)), at=now)
        seen_now = replace(seen_now, heard=seen_now.heard or elsewhere)
        found = diagnose(fleet, seen_now, memory, broken=False)
        ill = {s.minion_id for s in seen_now.machines if s.there == "running" and s.health != "yes"}
        since = {name: since.get(name, now) for name in ill}
        memory = {one.minion_id: one for one in found.sick}
        lost = {s.minion_id for s in seen_now.machines if s.there != "running"}
        if len(ill | lost) > max(1, fleet.sick_limit.up(fleet.size)):
            assert found.alarm and not found.reasons and not found.taints
        if not seen_now.heard and any(s.health == "unknown" and s.there == "running" for s in seen_now.machines):
            assert found.alarm and not found.reasons
        for one in found.taints:
            assert one.minion_id in ill and now - since[one.minion_id] >= fleet.unreachable_for
        assert found.alarm is None or not found.reasons


# Orphans

TOKEN = "0123456789abcdef"
OURS = f"web-{TOKEN}.example.com"
SHOP = replace(FLEET, name="shop", minion_id="shop-{token}.example.com")


@pytest.mark.parametrize(
    ("minion_id", "there", "named", "found"),
    [
        pytest.param(OURS, [], [OURS], [Orphan(OURS, "key", "web", True)], id="ours, of no machine"),
        pytest.param(OURS, [], [], [Orphan(OURS, "key", "web", False)], id="the journal does not know it"),
        pytest.param(OURS, [OURS], [OURS], [], id="in a book, or listed"),
        pytest.param(OURS.replace("f", "F"), [], [], [], id="capitals: not ours"),
        pytest.param(f"web-{TOKEN}0.example.com", [], [], [], id="17 digits"),
        pytest.param(f"web-{TOKEN}xexample.com", [], [], [], id="a dot is a dot"),
        pytest.param(f"my-{OURS}", [], [], [], id="more before it"),
        pytest.param(f"{OURS}.org", [], [], [], id="more after it"),
        pytest.param("web-pet.example.com", [], ["web-pet.example.com"], [], id="a pet"),
    ],
)
def test_which_keys_are_of_no_machine(minion_id, there, named, found):
    assert orphan_keys([minion_id, "builder"], [FLEET, SHOP], there, named) == found


def test_a_fleet_whose_ids_nobody_knows_has_no_stray_keys():
    gone = replace(FLEET, minion_id="")
    assert orphan_keys([OURS, TOKEN], [gone], [], [OURS, TOKEN]) == []


def test_fleets_that_share_their_ids_have_each_stray_once():
    twin = replace(FLEET, name="twin")
    assert [orphan.fleet for orphan in orphan_keys([OURS], [FLEET, twin], [], [OURS])] == ["twin"]


@pytest.mark.parametrize(
    ("known", "ago", "removed", "says"),
    [
        pytest.param(True, None, False, "first time; it will be removed in 3600 s", id="told of first"),
        pytest.param(True, 3599, False, "it will be removed in 1 s", id="still borne"),
        pytest.param(True, 3600, True, "for 3600 s", id="removed"),
        pytest.param(True, -50, False, "it will be removed in 3600 s", id="a clock that went back"),
        pytest.param(False, 90000, False, "it is left", id="not ours: never"),
    ],
)
def test_what_nobody_wants_is_told_of_and_then_removed(known, ago, removed, says):
    before = {} if ago is None else {("key", OURS): NOW - ago}
    (found,) = decide_orphans([Orphan(OURS, "key", "web", known)], before, {"web": FLEET}, NOW)
    assert found.remove == removed and says in found.reason


@pytest.mark.parametrize(
    ("fleets", "number", "removed"),
    [
        pytest.param({"web": FLEET}, 1, 1, id="one of five may have been lost"),
        pytest.param({"web": FLEET}, 2, 0, id="two of five: the books are wrong"),
        pytest.param({}, 9, 9, id="a fleet that nobody knows any more"),
    ],
)
def test_when_too_many_machines_are_in_no_book_none_is_removed(fleets, number, removed):
    orphans = [Orphan(f"web-{one:016x}", "machine", "web") for one in range(number)]
    found = decide_orphans(orphans, {("machine", one.minion_id): NOW - 9000 for one in orphans}, fleets, NOW)
    assert sum(one.remove for one in found) == removed


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20), st.floats(0, 20000))
def test_nothing_goes_that_was_not_seen_for_the_whole_grace(history, grace):
    now, before, first = NOW, {}, None
    for there, known in history:
        now += 1000
        orphans = [Orphan(OURS, "key", "web", known)] if there else []
        first = (first or now) if there else None
        found = decide_orphans(orphans, before, {"web": replace(FLEET, orphan_grace=grace)}, now)
        before = {(one.orphan.what, one.orphan.minion_id): one.since for one in found}
        for one in found:
            assert not one.remove or (known and first is not None and first < now and now - first >= grace)

"""``fleet.drift``: what the answers of machines come to, and what is recorded."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet.drift import MAX_ITEMS, check, evaluate
from saltext.immutable.fleet.drive.threads import AT_A_TIME, in_parallel
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.minions import NoAnswer
from saltext.immutable.spec.model import Definitions
from saltext.immutable.store import Store, schema

ONE, TWO = "1" * 64, "2" * 64
CLEAN: dict[str, Any] = {"drift": [], "counts": {}, "proven": True, "files": 9, "seconds": 0.5}
MOTD = {"kind": "file", "what": "/etc/motd", "detail": "content changed", "owner": "base-files", "layer": "base"}
DIRTY = {**CLEAN, "drift": [MOTD], "counts": {"file": 1}}


@pytest.mark.parametrize(
    ("answer", "drift", "counts"),
    [
        pytest.param(CLEAN, [], {}, id="clean"),
        pytest.param(DIRTY, [("file", "/etc/motd")], {"file": 1}, id="a file"),
        pytest.param({**CLEAN, "proven": False}, [("image", "1" * 12)], {"image": 1}, id="not proven"),
        pytest.param({**CLEAN, "proven": "True"}, [("image", "1" * 12)], {"image": 1}, id="proven is no text"),
        pytest.param(
            {key: value for key, value in CLEAN.items() if key != "proven"},
            [("image", "1" * 12)],
            {"image": 1},
            id="silent about the proof",
        ),
        pytest.param(
            {**DIRTY, "proven": False}, [("image", "1" * 12), ("file", "/etc/motd")], {"image": 1, "file": 1}, id="both"
        ),
        pytest.param(
            {**CLEAN, "counts": {"file": 3}}, [("file", "3 not named by the machine")], {"file": 3}, id="counts"
        ),
        pytest.param({**DIRTY, "counts": {"file": -1}}, [("file", "/etc/motd")], {"file": 1}, id="counts that lie"),
        pytest.param({**DIRTY, "counts": {"file": True}}, [("file", "/etc/motd")], {"file": 1}, id="no count"),
        pytest.param(
            {**CLEAN, "counts": {"file": 10**400}}, [("file", f"{10**9} not named by the machine")], {"file": 10**9},
            id="counts without end",
        ),
        pytest.param({**DIRTY, "counts": "none"}, [("file", "/etc/motd")], {"file": 1}, id="counts of any shape"),
        pytest.param({**CLEAN, "drift": ["/etc/motd"]}, [("unknown", "'/etc/motd'")], {"unknown": 1}, id="any shape"),
        pytest.param(
            {**CLEAN, "drift": [{"kind": "file", "what": "/a\n\x1b[2Jb"}]},
            [("file", "/a\\n\\x1b[2Jb")],
            {"file": 1},
            id="it cannot control a terminal",
        ),
    ],
)
def test_what_an_answer_comes_to(answer, drift, counts):
    found = evaluate(answer, ONE)
    assert [(item["kind"], item["what"]) for item in found.drift] == drift
    assert (found.counts, found.unknown) == (counts, None)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1, 10**400, True, "1", None, [1]])
def test_a_time_that_is_none_is_not_believed(seconds):
    found = evaluate({**CLEAN, "seconds": seconds}, ONE)
    assert (found.seconds, found.drift) == (0.0, ())


def test_without_an_answer_a_machine_is_unknown_and_not_clean():
    found = evaluate(NoAnswer("web-1 does not answer"), ONE)
    assert (found.unknown, found.drift) == ("web-1 does not answer", ())


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(CommandExecutionError("this machine is not sealed"), "this machine is not sealed", id="no seal"),
        pytest.param(CommandExecutionError("broken\x1b[2J"), "broken\\x1b[2J", id="a failure"),
        pytest.param("'immutable.drift' is not available.", "immutable.drift returned", id="without the pack"),
        pytest.param({"drift": "none", "proven": True}, "immutable.drift returned", id="no list"),
        pytest.param(None, "immutable.drift returned None", id="nothing"),
    ],
)
def test_a_machine_that_cannot_be_compared_has_drift(answer, why):
    found = evaluate(answer, ONE)
    [item] = found.drift
    assert (item["kind"], item["what"], found.counts, found.unknown) == ("image", "1" * 12, {"image": 1}, None)
    assert item["detail"].startswith(f"it cannot be compared with this image: {why}")


def test_a_machine_cannot_flood_the_master():
    found = evaluate({**CLEAN, "drift": [{**MOTD, "what": "x" * 10_000}] * 10_000, "counts": {"file": 10_000}}, ONE)
    assert len(found.drift) == MAX_ITEMS
    assert len(found.drift[0]["what"]) <= 1200
    assert found.counts == {"file": 10_000}
    assert len(found.summary) < 4000


class Salt:
    """Salt with given answers of machines."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"web-1": CLEAN, "web-2": DIRTY, "web-3": NoAnswer("web-3 does not answer")}
        self.calls: dict[str, tuple[str, float, dict[str, Any]]] = {}
        self.meanwhile = lambda: None
        self.spoken_for: list[str] = []

    def forged(self) -> list[str]:
        return [minion_id for minion_id in self.spoken_for]

    def ask(self, minion_id: str, fun: str, within: float, **kwargs: Any) -> Any:
        self.calls[minion_id] = (fun, within, kwargs)
        if minion_id == "web-3":
            self.meanwhile()
        if isinstance(self.answers[minion_id], Exception):
            raise self.answers[minion_id]
        return self.answers[minion_id]


@pytest.fixture
def salt() -> Salt:
    return Salt()


@pytest.fixture
def store(tmp_path) -> Store:
    """web-1 to web-3 are at work, web-2 on generation 2; web-4 boots, web-5 goes; db-1 is another fleet's."""
    store = Store.open(f"sqlite:///{tmp_path}/store.sqlite", clock=lambda: 100.0)
    with store.write() as tx:
        for fleet, number, image in (("web", 1, ONE), ("web", 2, TWO), ("db", 1, ONE)):
            row = {"provider": "p", "settings": {}, "created": 1.0}
            tx.execute(sa.insert(schema.generations).values(fleet=fleet, number=number, image=image, **row))
        for minion_id, generation, intent, ready in (
            ("web-1", 1, "launched", 2.0),
            ("web-2", 2, "launched", 2.0),
            ("web-3", 1, "launched", 2.0),
            ("web-4", 2, "launched", None),
            ("web-5", 1, "doomed", 2.0),
            ("db-1", 1, "launched", 2.0),
        ):
            row = {"intent": intent, "born": 1.0, "ready_since": ready, "reason": "", "fleet": minion_id[:-2]}
            tx.execute(sa.insert(schema.machines).values(minion_id=minion_id, generation=generation, **row))
    return store


@pytest.fixture
def operations(store, salt) -> Operations:
    return Operations(store, Definitions({}, {}), salt, None, None, clock=lambda: 100.0, user="jane")


@pytest.fixture
def checked(operations):
    """Return a function that checks a fleet and returns the result and the events."""

    def run(name="web", **options):
        events: list[tuple[str, dict[str, Any]]] = []
        return check(operations, lambda _, tag, **data: events.append((tag, data)), name, **options), events

    return run


def test_each_serving_machine_is_compared_with_the_image_in_the_store(checked, salt):
    found, events = checked()
    assert salt.calls == {
        "web-1": ("immutable.drift", 60.0, {"digest": ONE, "full": False}),
        "web-2": ("immutable.drift", 60.0, {"digest": TWO, "full": False}),
        "web-3": ("immutable.drift", 60.0, {"digest": ONE, "full": False}),
    }
    assert (found["clean"], found["drifted"], found["unknown"], found["retcode"]) == (1, ["web-2"], ["web-3"], 1)
    assert found["machines"]["web-1"] == {"fleet": "web", "drift": [], "counts": {}, "proven": True, "seconds": 0.5}
    assert found["machines"]["web-2"]["drift"] == [MOTD]
    assert found["machines"]["web-3"] == {"fleet": "web", "unknown": "web-3 does not answer"}
    [(tag, data)] = events
    assert tag == "drift/web-2"
    assert data == {"fleet": "web", "minion_id": "web-2", "counts": {"file": 1}, "items": [MOTD]}


def test_content_has_more_time(checked, salt):
    checked(full=True)
    assert salt.calls["web-1"] == ("immutable.drift", 900.0, {"digest": ONE, "full": True})


def test_only_what_is_clean_and_answers_exits_with_0(checked, salt):
    salt.answers |= {"web-2": CLEAN, "web-3": CLEAN}
    assert checked()[0]["retcode"] == 0
    salt.answers["web-3"] = NoAnswer("silence")
    assert checked()[0]["retcode"] == 1
    salt.answers["web-3"] = DIRTY
    assert checked()[0]["retcode"] == 1


def test_all_means_every_fleet(checked, salt):
    salt.answers["db-1"] = CLEAN
    assert set(checked("all")[0]["machines"]) == {"web-1", "web-2", "web-3", "db-1"}


def test_one_machine_alone(checked, salt):
    assert set(checked(minion="web-2")[0]["machines"]) == {"web-2"} == set(salt.calls)
    with pytest.raises(
        SaltInvocationError, match="'web-9' is not a machine that serves; there are: web-1, web-2, web-3"
    ):
        checked(minion="web-9")


def test_machines_with_drift_are_tainted_if_asked_for(checked, operations):
    checked()
    assert operations.ledger("web").tainted() == {}
    _, events = checked(taint=True)
    assert operations.ledger("web").tainted() == {"web-2": "1 drifted: file /etc/motd content changed"}
    assert [tag for tag, _ in events] == ["drift/web-2", "web/tainted"]
    assert [tag for tag, _ in checked(taint=True)[1]] == ["drift/web-2"], "a taint fires one event"


def test_the_audit_log_has_only_what_changed(checked, salt, operations):
    def written():
        return [(entry.what, entry.minion_id) for entry in operations.audit.entries("web")]

    checked()
    checked()
    assert written() == [("drift", "web-2")]
    salt.answers["web-2"] = CLEAN
    checked()
    checked()
    assert written() == [("no drift", "web-2"), ("drift", "web-2")]
    salt.answers["web-2"] = DIRTY
    checked()
    salt.answers["web-2"] = NoAnswer("silence")
    checked()
    assert written() == [("drift", "web-2"), ("no drift", "web-2"), ("drift", "web-2")]


def test_a_machine_that_was_replaced_meanwhile_is_not_unknown(checked, salt, store):
    def destroyed():
        with store.write() as tx:
            tx.execute(sa.delete(schema.machines).where(schema.machines.c.minion_id == "web-3"))

    salt.meanwhile = destroyed
    found, _ = checked()
    assert (set(found["machines"]), found["unknown"]) == ({"web-1", "web-2"}, [])


def test_calls_run_in_parallel_but_not_all_at_once():
    now, most, lock, full = 0, 0, threading.Lock(), threading.Event()

    def call():
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == AT_A_TIME:
                full.set()
        assert full.wait(10)
        with lock:
            now -= 1
        return "yes"

    assert in_parallel({str(n): call for n in range(3 * AT_A_TIME)}) == {str(n): "yes" for n in range(3 * AT_A_TIME)}
    assert most == AT_A_TIME


def test_a_salt_error_is_an_answer_and_a_bug_is_raised():
    error = NoAnswer("silence")

    def silent():
        raise error

    assert in_parallel({"a": silent, "b": lambda: 1}) == {"a": error, "b": 1}
    assert in_parallel({}) == {}
    with pytest.raises(KeyError):
        in_parallel({"a": lambda: {}["absent"]})

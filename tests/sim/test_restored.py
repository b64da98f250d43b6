"""The store put back to an earlier moment, emptied or lost, then any command: what serves goes on serving."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltException

from saltext.immutable.fleet import drift, lost_store, relaunch
from saltext.immutable.fleet.interventions import Interventions
from saltext.immutable.fleet.operations import Failed, Operations
from saltext.immutable.fleet.reconcile import FleetReconciler
from saltext.immutable.fleet.show import proposal, report
from saltext.immutable.spec.model import TrafficSpec

from .estates import Backup, Estate
from .test_stories import ONE, TWO, Steady

THREE = "3" * 64
SIZE = 3
EVERY = 4.0
"""Virtual seconds between two backups of the store."""
STEERING = ("resume", "pause", "back")
"""Commands to a rollout, which ends where the store is older than the machines."""


def nobody(*words: object, **data: object) -> None:
    """Hear of progress."""


def reconcile(operations: Operations) -> None:
    FleetReconciler(operations, nobody, "web", lambda: False).reconcile()


def newest(operations: Operations) -> str:
    return max(operations.minions.machines)


COMMANDS: dict[str, Callable[[Operations], Any]] = {
    "roll": lambda fleet: fleet.roll("web"),
    "roll to the first image": lambda fleet: fleet.roll("web", ONE),
    "rollback": lambda fleet: fleet.rollback("web"),
    "scale up": lambda fleet: fleet.scale("web", 4),
    "repair": lambda fleet: fleet.repair("web"),
    "replace": lambda fleet: fleet.replace(newest(fleet), "it looks odd"),
    "resume": lambda fleet: fleet.resume("web"),
    "abort": lambda fleet: fleet.give_order("web", "abort"),
    "pause": lambda fleet: fleet.give_order("web", "pause"),
    "back": lambda fleet: fleet.give_order("web", "back"),
    "reconcile": reconcile,
    "adopt": lambda fleet: lost_store.adopt(fleet, "web"),
    "relaunch": lambda fleet: relaunch.relaunch(fleet, nobody, "web"),
    "taint": lambda fleet: Interventions(fleet, nobody).taint(newest(fleet), "it looks odd"),
}
LEAVE_THE_BOOKS: dict[str, Callable[[Operations], Any]] = {
    "plan": lambda fleet: proposal.propose(fleet, "web"),
    "drift": lambda fleet: drift.check(fleet, nobody, "web"),
    "protect": lambda fleet: Interventions(fleet, nobody).protect(newest(fleet), "it is looked at"),
    "history": lambda fleet: report.history(fleet, "web"),
    "status": lambda fleet: report.status(fleet, "web", fleet.clock()),
    "roll test": lambda fleet: fleet.forecast("web", "roll"),
    "rollback test": lambda fleet: fleet.forecast("web", "rollback"),
    "scale test": lambda fleet: fleet.forecast("web", "scale", size=4),
    "destroy test": lambda fleet: fleet.forecast("web", "destroy"),
    "taint test": lambda fleet: Interventions(fleet, nobody).taint(newest(fleet), "it looks odd", test=True),
    "relaunch test": lambda fleet: relaunch.relaunch(fleet, nobody, "web", test=True),
}
"""Commands that neither launch nor destroy, and write no machine back."""


@pytest.fixture(params=[None, TrafficSpec("simulated")], ids=["bare", "routed"])
def lived(estate, request) -> tuple[Estate, list[Backup]]:
    """A fleet that was rolled, rolled, replaced and rolled back; and backups of its store from all that time."""
    made = estate(Steady(), size=SIZE, traffic=request.param, minion_id="web-{token}")
    backups: list[Backup] = []

    def back_up() -> None:
        backups.append(made.back_up())
        made.world.later(EVERY, back_up)

    back_up()
    for image in (ONE, TWO):
        made.publish(image)
        made.operations().roll("web")
        backups.append(made.back_up())
    made.operations().replace(min(made.world.machines), "it looks odd")
    backups.append(made.back_up())
    made.operations().rollback("web")
    backups.append(made.back_up())
    made.publish(THREE)
    made.operations().roll("web")
    made.world._heap.clear()
    return made, backups


class Watch:
    """Counts the machines that serve, each time that one is taken away."""

    def __init__(self, made: Estate) -> None:
        self._made = made
        self.fewest = self.serving()
        taken = made.world.taken

        def watched(name: str, how: str) -> None:
            taken(name, how)
            self.fewest = min(self.fewest, self.serving() - (name in self._names()))

        made.world.taken = watched

    def _names(self) -> set[str]:
        world = self._made.world
        well = {name for name in world.machines if world.is_well(name) and world.machines[name].up}
        if self._made.fleet.traffic is None:
            return well
        return {name for name in well if (server := world.visitors.servers.get(name)) and server.state == "in"}

    def serving(self) -> int:
        return len(self._names())


def assert_told(made: Estate, operations: Operations) -> None:
    """Assert that an operator is told of machines that run and that the store does not know."""
    unknown = set(made.world.machines) - set(made.ledger.records())
    assert not unknown or "the store is older than the machines" in operations.warnings("web")[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_serves_goes_on_serving(lived, command: str) -> None:
    made, backups = lived
    world, refused = made.world, 0
    end = world.machines, world.keys, world.visitors.servers
    for moment, backup in enumerate(backups):
        world.machines, world.keys, world.visitors.servers = copy.deepcopy(end)
        world._heap.clear()
        made.put_back(backup)
        watch = Watch(made)
        assert watch.serving() == SIZE
        operations = made.operations()
        assert_told(made, operations)
        try:
            COMMANDS[command](operations)
        except SaltException:
            refused += 1
        else:
            assert set(made.ledger.records()) >= set(world.machines), f"moment {moment}: what runs is in the books"
        assert watch.fewest >= SIZE, f"{command} after going back to moment {moment}"
    assert refused < len(backups) or command in STEERING


def test_reconcile_leaves_alone_what_runs(lived) -> None:
    """At each moment: the schedule must not bring back what was wanted when the backup was made."""
    made, backups = lived
    world, alarms = made.world, 0
    end = world.machines, world.keys, world.visitors.servers
    for moment, backup in enumerate(backups):
        world.machines, world.keys, world.visitors.servers = copy.deepcopy(end)
        world._heap.clear()
        made.put_back(backup)
        running, older = set(world.machines), report.status(made.operations(), "web", world.clock())["warnings"]
        for _ in range(3):
            reconcile(made.operations())
            assert running == {name for name in world.machines if world.is_well(name)}, f"moment {moment}"
            made.publish(THREE)  # as fleet.adopt_store does
            world.pass_time(300.0)
        made.assert_in_order(known_only=True)
        assert set(made.ledger.records()) == running and made.ledger.unfinished() is None
        assert made.ledger.generation(made.ledger.lineage()[-1]).image == THREE, "nothing older is wanted"
        assert {one.outcome for one in made.ledger.rollouts()} <= {"done", "aborted"}, "no image is blamed"
        what = {one.what for one in made.operations().audit.entries("web")}
        assert {"alarm", "alarm over", "recovered"} <= what or not older
        alarms += bool(older)
    assert alarms > len(backups) / 2


def test_a_machine_that_was_lost_meanwhile_is_replaced_by_what_runs(lived):
    made, backups = lived
    made.put_back(backups[1])
    made.publish(THREE)
    for _ in range(2):
        reconcile(made.operations())
    lost = min(made.world.machines)
    del made.world.machines[lost]
    reconcile(made.operations())
    assert made.running() == [THREE] * SIZE and lost not in made.world.machines
    made.assert_in_order(known_only=True)


def test_a_size_that_the_store_does_not_know_stays(lived):
    """A backup from before a scale, of which nothing else tells."""
    made, _ = lived
    before = made.back_up()
    made.operations().scale("web", SIZE + 2)
    running = set(made.world.machines)
    made.put_back(before)
    assert made.operations().forecast("web", "reconcile").actions == ()
    for _ in range(3):
        reconcile(made.operations())
        assert set(made.world.machines) == running
        made.world.pass_time(300.0)
    said = report.status(made.operations(), "web", made.world.clock())
    assert said["size_set"].startswith(f"{SIZE + 2} by fleet.scale") and said["warnings"] == []
    made.operations().scale("web", SIZE)
    assert len(made.world.machines) == SIZE


@pytest.mark.parametrize("command", LEAVE_THE_BOOKS)
def test_what_only_reads_changes_neither_machines_nor_books(lived, command: str) -> None:
    made, backups = lived
    world, refused = made.world, 0
    running = set(world.machines)
    for moment, backup in enumerate(backups):
        made.put_back(backup)
        operations, before = made.operations(), made.ledger.records()
        assert_told(made, operations)
        try:
            LEAVE_THE_BOOKS[command](operations)
        except SaltException:
            refused += 1
        assert (set(world.machines), made.ledger.records()) == (running, before), f"moment {moment}"
    assert refused < len(backups)


def test_destroy_destroys_what_runs_and_nothing_else_does(lived):
    made, backups = lived
    world, end = made.world, copy.deepcopy((made.world.machines, made.world.keys, made.world.visitors.servers))
    for backup in backups:
        world.machines, world.keys, world.visitors.servers = copy.deepcopy(end)
        world._heap.clear()
        made.put_back(backup)
        operations = made.operations()
        assert_told(made, operations)
        foreseen = {one.minion_id for one in operations.forecast("web", "destroy").actions}
        assert foreseen >= set(world.machines)
        operations.destroy("web")
        assert not world.machines and not made.ledger.records()


@pytest.mark.parametrize("refused", ["protect", "taint", "taint test", "relaunch", "relaunch test", "destroy test"])
def test_without_its_store_nothing_is_written_of_a_machine(lived, refused):
    made, backups = lived
    made.put_back(backups[0])
    for one in made.world.machines.values():
        one.instance = replace(one.instance, installation="e" * 16)
    with pytest.raises(CommandExecutionError, match=r"was lost: .* fleet\.adopt_store"):
        {**COMMANDS, **LEAVE_THE_BOOKS}[refused](made.operations())
    assert made.ledger.records() == {} and made.operations().taints.of_fleet(None) == {}
    found = drift.check(made.operations(), nobody, "web")
    assert (found["clean"], sorted(found["unknown"]), found["retcode"]) == (0, sorted(made.world.machines), 1)


def test_a_lost_store_is_said_and_adopted(lived):
    made, backups = lived
    before = made.store.installation
    made.lose_store(backups[0], "f" * 16)
    operations, running = made.operations(), set(made.world.machines)
    assert "was lost" in report.status(operations, "web", made.world.clock())["warnings"][0]
    made.publish(THREE)
    for command in ("roll", "repair", "scale up"):
        with pytest.raises(CommandExecutionError, match=r"was lost: .* fleet\.adopt_store"):
            COMMANDS[command](made.operations())
    assert set(made.world.machines) == running
    reconcile(made.operations())
    assert operations.audit.last_of_fleet("web", ["alarm"]) is not None
    foreseen = lost_store.adopt(made.operations(), "all", test=True)
    assert (foreseen["installation"], set(foreseen["fleets"]["web"])) == (before, running)
    assert made.store.installation == "f" * 16
    assert lost_store.adopt(made.operations(), "all") == {**foreseen, "result": True}
    assert report.status(made.operations(), "web", made.world.clock())["warnings"] == []
    assert made.operations().roll("web") is None, "they run that image already"
    made.operations().scale("web", 4)
    assert running < set(made.world.machines)
    made.assert_in_order()


def test_an_operator_is_told_first_that_the_store_is_older(lived):
    made, backups = lived
    made.put_back(backups[0])
    made.publish(THREE)
    running = sorted(made.world.machines)
    said = report.status(made.operations(), "web", made.world.clock())["warnings"][0]
    assert "the store is older than the machines" in said and all(one in said for one in running)
    made.story.clear()
    made.operations().roll("web")
    assert [(one.what, one.minion_id) for one in made.story[:SIZE]] == [("recovered", one) for one in running]


def test_what_would_be_done_counts_machines_that_the_store_does_not_know(lived):
    made, backups = lived
    made.put_back(backups[0])
    made.publish(THREE)
    foreseen = made.operations().forecast("web", "roll")
    assert foreseen.actions == () and {one.minion_id for one in foreseen.machines} == set(made.world.machines)
    larger = [one.kind for one in made.operations().forecast("web", "scale", size=SIZE + 1).actions]
    assert larger == ["launch"] if made.fleet.traffic is None else larger == ["launch", "attach"]


def test_a_machine_whose_key_is_gone_is_replaced(lived):
    made, _ = lived
    gone = min(made.world.machines)
    del made.world.keys[gone]
    foreseen = made.operations().forecast("web", "roll").actions
    assert [one.minion_id for one in foreseen if one.kind == "destroy"] == [gone]
    watch = Watch(made)
    made.operations().roll("web")
    assert gone not in made.world.machines and watch.fewest >= SIZE - 1
    made.assert_in_order()


def test_a_machine_whose_key_is_there_again_stays(lived):
    made, _ = lived
    gone = min(made.world.machines)
    key = made.world.keys.pop(gone)
    with made.operations().lease("web"):
        assert made.operations().taints.of_fleet("web").keys() == {gone}
    made.world.keys[gone] = key
    with made.operations().lease("web"):
        assert made.operations().taints.of_fleet("web") == {}
    assert made.operations().forecast("web", "roll").actions == ()


def test_nothing_is_said_to_be_well_that_does_not_answer(lived, monkeypatch):
    made, _ = lived
    silent = min(made.world.machines)
    made.world.machines[silent].up = False
    assert made.operations().roll("web") is None
    said = report.describe_result(made.operations(), "web", None)["reason"]
    assert said.startswith("there is nothing to replace, but 1 of 3 machines are not known to be healthy: ")
    assert f": {silent}: does not answer; `salt-run fleet.reconcile web`" in said


def test_two_lost_stores_are_told_apart(lived):
    made, backups = lived
    made.put_back(backups[0])
    first, *others = made.world.machines.values()
    first.instance = type(first.instance)(**{**vars(first.instance), "installation": "e" * 16})
    made.store.installation = "f" * 16
    with pytest.raises(CommandExecutionError, match="several installations"):
        lost_store.adopt(made.operations(), "all")
    with suppress(Failed):
        assert lost_store.adopt(made.operations(), "all", "e" * 16)["fleets"]["web"] == [first.instance.minion_id]


def test_where_most_keys_are_gone_it_is_the_keys_that_are_wrong(lived):
    """A folder of keys that is not mounted yet must not replace a fleet."""
    made, _ = lived
    before = dict(made.world.keys)
    for name in sorted(before)[:2]:
        del made.world.keys[name]
    assert made.operations().roll("web") is None and made.ledger.tainted() == {}
    made.world.keys.clear()
    made.world.keys.update(before)


def test_a_destruction_that_a_backup_remembers_is_not_carried_on(lived):
    made, _ = lived
    half = []
    made.world.later(0.2, lambda: half.append(made.back_up()))
    made.operations().destroy("web")
    assert not made.world.machines and half
    made.operations().roll("web")
    running = set(made.world.machines)
    made.put_back(half[0])
    assert made.ledger.unfinished().kind == "destroy"
    reconcile(made.operations())
    assert set(made.world.machines) >= running
    assert {one.outcome for one in made.ledger.rollouts() if one.kind == "destroy"} == {"aborted"}

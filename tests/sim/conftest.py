"""Rollouts with the real plan, driver and store in a simulated world; each plan is held to the invariants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from saltext.immutable.fleet import drive
from saltext.immutable.fleet.ledger import Entry, Ledger
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.fleet.plan import plan
from saltext.immutable.fleet.state import Limits, Machine, Plan, Rollout
from saltext.immutable.fleet.taints import Deed, Taints
from saltext.immutable.spec.model import Amount, Definitions, Fleet, FunctionCheck, ProviderSpec, Strategy
from saltext.immutable.store import Image, Store

from .simulated import Simulated

FLEET = Fleet(
    name="web",
    recipe="web",
    size=3,
    minion_id="web-{token}",
    provider=ProviderSpec("simulated"),
    strategy=Strategy(max_surge=Amount(1), ready_within=30.0, progress_within=90.0),
    health=(FunctionCheck("service.status", ("nginx",)),),
)


def checked(
    served: dict[int, int], fleet: Fleet, rollout: Rollout, machines: Sequence[Machine], limits: Limits, now: float
) -> Plan:
    """Ask the real plan, and assert what must hold for any plan.

    ``served``: how many machines served when a rollout began, whatever its books say.
    """
    step = plan(fleet, rollout, machines, limits, now)
    old_size = served.setdefault(rollout.id, sum(m.phase == "serving" and not m.fault for m in machines))
    size = 0 if rollout.kind == "destroy" else fleet.size
    victims = {action.minion_id for action in step.actions if action.kind == "destroy"}
    launches = [action for action in step.actions if action.kind == "launch"]
    alive = {machine.minion_id: machine for machine in machines if machine.phase != "doomed"}
    assert victims <= set(alive), "a victim is named, and named once"
    assert all(action.reason for action in step.actions)
    sound = {m.minion_id: m.health for m in alive.values() if (m.phase, m.fault) == ("serving", None)}
    healthy = {minion_id for minion_id, health in sound.items() if health == "yes"}
    patience = fleet.strategy.ready_within
    given_up = {m.minion_id for m in machines if m.born >= rollout.started and now >= m.since + patience}
    perhaps = {minion_id for minion_id, health in sound.items() if health != "no"} - (given_up - healthy)
    floor = min(max(old_size, rollout.old_size), size) - fleet.strategy.max_unavailable.down(size)
    assert not victims & perhaps or len(healthy - victims) >= floor, "the floor holds"
    occupying = len(alive) - len(victims) + len(launches)
    assert not launches or occupying <= size + fleet.strategy.max_surge.up(size), "no more places than allowed"
    assert not launches or len(machines) - len(alive) <= size, "few are doomed while others are launched"
    if step.rollout.outcome == "done" and limits.closed is None:
        assert not any(machine.taint for machine in alive.values()), "a tainted machine is not left"
    if step.rollout.outcome == "paused":
        assert "`salt-run fleet." in step.rollout.reason, "a paused rollout names the command that leaves it"
    assert step.wake is not None or step.rollout.outcome, "silence is impossible"
    return step


@dataclass
class Estate:
    """A fleet in a simulated world, as an operator sees it."""

    world: Simulated
    store: Store
    fleet: Fleet
    story: list[Entry]
    say: Callable[[Entry], None]
    pillar: dict[str, Fleet] | None = None
    loadable: set[str] = field(default_factory=lambda: {"simulated", "another"})

    def operations(self) -> Operations:
        return Operations(
            self.store,
            Definitions({}, {"web": self.fleet} if self.pillar is None else self.pillar),
            self.world,
            self.load,
            lambda entry: self.say(entry),
            clock=self.world.clock,
            token=self.world.token,
            effects=lambda stopped: self.world,
        )

    def load(self, spec: ProviderSpec) -> Simulated:
        assert spec.name in self.loadable, f"provider {spec.name} is not installed"
        return self.world

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, "web")

    def publish(self, image: str) -> None:
        """Bake an image and let the channel name it."""
        self.store.add_image(Image(image, "web", (image,), self.world.now, True, {}))
        self.store.set_channel("web", "stable", image)

    def running(self) -> list[str]:
        """Return the images of the machines that are there."""
        return sorted(one.instance.image for one in self.world.machines.values())

    def taint(self, minion_id: str, kind: str = "hand") -> None:
        """Write down that somebody changed a machine."""
        taints = Taints(self.store)
        if fleet := taints.fleet_of(minion_id):
            taints.add(kind, Deed(self.world.now, fleet, minion_id, "tainted", "vim /etc/motd", "jane"))

    def resize(self, size: int) -> None:
        self.fleet = replace(self.fleet, size=size)

    def assert_in_order(self) -> None:
        """Assert that the machines are those in the books, and that each has exactly its key."""
        kept = {key for key, record in self.ledger.records().items() if not record.doomed}
        assert set(self.ledger.records()) == kept, "no order is left unresolved"
        assert set(self.world.machines) == kept, "the machines are those in the books"
        assert set(self.world.keys) == kept, "one key for each machine, and no other"


@pytest.fixture
def estate(monkeypatch):
    """Return what makes an estate from a simulated world."""

    def make(world: Simulated, **changes: object) -> Estate:
        monkeypatch.setattr(drive, "plan", partial(checked, {}))
        fleet = replace(FLEET, **changes)
        story: list[Entry] = []
        made = Estate(world, Store.open("sqlite://", clock=world.clock), fleet, story, story.append)
        world.taint = made.taint
        return made

    return make

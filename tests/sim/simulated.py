"""A world in virtual time: machines, Salt and visitors, with seeded faults. Nothing waits, nothing is real."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from salt.exceptions import CommandExecutionError

from saltext.immutable.fleet.drive.threads import Completion, Task
from saltext.immutable.minions import Event, NoAnswer, Outdated
from saltext.immutable.providers import Identity, Instance

from .faults import Faults, Killed
from .processes import Process
from .visitors import Visitors

__all__ = ["Faults", "Killed", "Simulated"]

SETTLES = 5.0
Fate = Literal["comes back", "never starts", "never answers"]
"""What becomes of a machine when its host boots."""


@dataclass
class SimulatedMachine:
    instance: Instance
    up: bool = False
    visible_from: float = 0.0
    ill_since: float | None = None
    """In the world's own time; None: it is well."""


class Simulated:
    """Provider and minions at once; processes share its heap of things to come."""

    concurrency = 4

    def __init__(self, seed: int, faults: Faults | None = None) -> None:
        self.random = random.Random(seed)
        self.faults = faults or Faults()
        self.now = 1_000_000.0
        self.ahead = 0.0
        """By how much the wall clock is ahead of the world's own time."""
        self.machines: dict[str, SimulatedMachine] = {}
        self.keys: dict[str, str] = {}
        self.intruded: set[str] = set()
        self.settles = SETTLES if self.faults.lags else 0.0
        self._heap: list[tuple[float, int, Any]] = []
        self._sequence = 0
        self.processes: list[Process] = []
        self.main = Process(self)
        self.visitors = Visitors(self)
        self.gone: list[tuple[float, Instance]] = []
        """Destroyed machines that a list still shows, and until when."""
        self.hidden: dict[str, tuple[float, float]] = {}
        """Machines that a list does not show, from when until when."""
        self.strays = 0
        """Calls of processes that are no more which came through anyway."""
        self.names = 0
        self.sick: set[str] = set()
        """Machines that are not healthy."""
        self.relaunched: list[str] = []
        self.relaunch_fails: set[str] = set()
        self.relaunch_breaks: set[str] = set()
        self.taint: Callable[[str], None] = lambda name: None
        """Write down that a machine is tainted."""
        self.taken: Callable[[str, str], None] = lambda name, how: None
        """Somebody of ours takes a machine away from its visitors."""
        self.dead_on_arrival = 0
        """Of the next machines, how many never come up."""

    # Time

    def clock(self) -> float:
        return self.now + self.ahead

    def later(self, seconds: float, thing: Any) -> int:
        """Let something happen: call it, or let every process hear it."""
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + seconds, self._sequence, thing))
        return self._sequence

    def happens_before(self, until: float) -> bool:
        """Tell whether anything happens until then, by the wall clock."""
        return bool(self._heap) and self._heap[0][0] + self.ahead <= until

    def step(self) -> None:
        """Let the next thing happen."""
        at, _, thing = heapq.heappop(self._heap)
        self.now = max(self.now, at)
        if isinstance(thing, Event):
            for process in self.processes:
                process.heard.append(thing)
        else:
            thing()

    def pass_time(self, seconds: float) -> None:
        """Let time go by."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.step()
        self.now = max(self.now, end)

    def happens(self, likely: float) -> bool:
        return likely > 0 and self.random.random() < likely

    def token(self) -> str:
        self.names += 1
        return f"{self.names:03}"

    # Effects of the one process that most tests have

    def submit(self, task: Task, call: Callable[[], Any]) -> None:
        self.main.submit(task, call)

    def wait(self, until: float) -> tuple[list[Completion], list[Event]]:
        return self.main.wait(until)

    def close(self) -> None:
        self.main.close()

    # Provider

    def publish(self, image: str) -> str:
        return image

    def launch(self, published: str, identity: Identity) -> str:
        if self.happens(self.faults.launch_fails):
            if self.happens(0.5):
                self._create(published, identity)
            raise CommandExecutionError("no capacity")
        if self.happens(self.faults.unanswered):
            if self.happens(0.5):
                self._create(published, identity)
            raise NoAnswer("the host does not answer")
        self._create(published, identity)
        return f"ref-{identity.minion_id}"

    def _create(self, image: str, identity: Identity) -> None:
        name = identity.minion_id
        if name in self.machines:
            return
        place = (image, True, "10.0.0.9", self.clock(), identity.installation)
        instance = Instance(f"ref-{name}", name, identity.fleet, identity.generation, *place)
        lag = self.random.uniform(0, SETTLES * 0.6) if self.faults.lags else 0.0
        self.machines[name] = SimulatedMachine(instance, visible_from=self.now + lag, ill_since=self.now)
        if self.dead_on_arrival:
            self.dead_on_arrival -= 1
        elif not self.happens(self.faults.never_up) and self.faults.ill.get(image) != "dies":
            self.later(self.random.uniform(1, 4), lambda: self._up(name))
        if self.happens(self.faults.dies) or self.faults.ill.get(image) == "dies":
            self.later(self.random.uniform(1, 60), lambda: self._die(name))

    def _up(self, name: str) -> None:
        if name not in self.machines or not self.machines[name].instance.running:
            return
        self.machines[name].up = True
        self.machines[name].ill_since = None if name not in self.sick else self.now
        self.keys[name] = "accepted" if name in self.keys else "pending"
        if self.happens(self.faults.intruder):
            self.intruded.add(name)
        if name in self.intruded or self.happens(self.faults.rumour):
            self.later(0.0, Event("denied", name))
        if self.happens(self.faults.neighbour):
            self.forge()
        if self.happens(self.faults.tainted):
            self.later(self.random.uniform(0, 60), lambda: self.taint(name))
        if self.happens(self.faults.falls_ill):
            self.later(self.random.uniform(0, 120), lambda: self.fall_ill(name, self.random.uniform(1, 60)))
        if self.happens(self.faults.slandered):
            self.later(self.random.uniform(0, 120), lambda: self.visitors.slander(name, self.random.uniform(1, 60)))
        if not self.happens(self.faults.start_lost):
            self.later(0.0, Event("started", name))
        if self.happens(self.faults.start_twice):
            self.later(self.random.uniform(0, 9), Event("started", name))
        if self.faults.ill.get(self.machines[name].instance.image) == "crashes":
            self.later(self.random.uniform(2, 9), lambda: self._die(name))

    def forge(self) -> None:
        """Let a compromised machine send events about all others. Answers without a proof are heard as forged."""
        for name in sorted(self.machines):
            for kind in ("started", "denied", "forged"):
                self.later(self.random.uniform(0, 6), Event(kind, name))

    def fall_ill(self, name: str, seconds: float) -> None:
        """Let a machine be unhealthy for a while."""
        if name in self.machines and self.machines[name].ill_since is None:
            self.sick.add(name)
            self.machines[name].ill_since = self.now
            self.later(seconds, lambda: self._recover(name))

    def _recover(self, name: str) -> None:
        self.sick.discard(name)
        if name in self.machines and self.machines[name].up:
            self.machines[name].ill_since = None

    def _die(self, name: str) -> None:
        machine = self.machines.get(name)
        if machine is not None and machine.instance.running:
            machine.instance = replace(machine.instance, running=False)
            machine.up = False
            machine.ill_since = self.now if machine.ill_since is None else machine.ill_since

    def boot_host(self, fate: Callable[[str], Fate] | None = None) -> None:
        """Let the host of all machines boot: it starts those again that ran, after a while.

        ``fate``: minion id to what becomes of the machine; None: one in ten does not start, one in ten never answers.
        """
        chances: list[Fate] = ["comes back"] * 8 + ["never starts", "never answers"]
        for name, machine in sorted(self.machines.items()):
            if machine.instance.running:
                self._die(name)
                machine.instance = replace(machine.instance, ended_with_host=True)
                its = fate(name) if fate else self.random.choice(chances)
                if its != "never starts":
                    answers = its == "comes back"
                    self.later(self.random.uniform(2, 40), partial(self._start_again, name, answers))

    def _start_again(self, name: str, answers: bool) -> None:
        machine = self.machines.get(name)
        if machine is not None and machine.instance.ended_with_host:
            changes = {"running": True, "ended_with_host": False, "restarted": self.clock()}
            machine.instance = replace(machine.instance, **changes)  # type: ignore[arg-type]
            if answers:
                self.later(self.random.uniform(1, 4), lambda: self._up(name))

    def list(self, fleet: str | None = None) -> list[Instance]:
        if self.happens(self.faults.list_fails):
            raise CommandExecutionError("the provider cannot be reached")
        if self.faults.lags:
            return self._lagging()
        return [one.instance for one in self.machines.values()]

    def _lagging(self) -> list[Instance]:
        """Return what a list shows that is late: at most three fifths of what the provider says it settles in."""
        if self.machines and self.happens(self.faults.list_misses):
            name = self.random.choice(sorted(self.machines))
            if self.hidden.get(name, (0.0, 0.0))[1] + SETTLES < self.now:
                self.hidden[name] = (self.now, self.now + SETTLES * 0.6)
        there = [
            one.instance
            for name, one in self.machines.items()
            if one.visible_from <= self.now and self.hidden.get(name, (0.0, 0.0))[1] <= self.now
        ]
        return there + [instance for until, instance in self.gone if self.now < until]

    def destroy(self, ref: str) -> None:
        if self.happens(self.faults.destroy_fails):
            raise CommandExecutionError("try again")
        unanswered = self.happens(self.faults.unanswered)
        name = ref.removeprefix("ref-")
        if (not unanswered or self.happens(0.5)) and name in self.machines:
            self.taken(name, "destroy")
            machine = self.machines.pop(name)
            if self.faults.lags:
                self.gone.append((self.now + self.random.uniform(0, SETTLES * 0.6), machine.instance))
        if unanswered:
            raise NoAnswer("the host does not answer")

    def console(self, ref: str) -> str:
        return f"last words of {ref}"

    # Minions

    def expect(self, minion_id: str) -> None:
        self.keys.setdefault(minion_id, "stub")

    def forget(self, minion_id: str) -> None:
        self.keys.pop(minion_id, None)

    def poll(self) -> list[Event]:
        raise AssertionError("events come through wait()")

    def forged(self) -> list[str]:
        return []  # those come through wait(), too

    def contested(self, minion_id: str) -> bool:
        if self.happens(self.faults.no_answer):
            raise CommandExecutionError("no wheel turns")
        return minion_id in self.intruded

    def known(self) -> set[str]:
        return set(self.keys)

    def accepted(self, minion_id: str) -> bool:
        return minion_id in self.with_key()

    def with_key(self) -> set[str]:
        return {name for name, state in self.keys.items() if state == "accepted"}

    def ask(self, minion_id: str, fun: str, within: float, **kwargs: Any) -> Any:
        """Answer ``immutable.drift``, and ``immutable.launch``: it breaks what ``relaunch_breaks`` names."""
        if fun == "immutable.drift":
            return {"drift": [], "counts": {}, "proven": self.image_of(minion_id, within) == kwargs["digest"]}
        assert (fun, kwargs) == ("immutable.launch", {})
        self.image_of(minion_id, within)
        self.relaunched.append(minion_id)
        if minion_id in self.relaunch_fails:
            raise CommandExecutionError(f"{minion_id}: immutable.launch: the secret is not there")
        self.sick.discard(minion_id)
        if minion_id in self.relaunch_breaks:
            self.sick.add(minion_id)
        return {"ok": True, "sls": ["secrets"], "failed": {}, "seconds": 1.0}

    def image_of(self, minion_id: str, within: float) -> str:
        machine = self.machines.get(minion_id)
        up = machine and machine.up and self.keys.get(minion_id) == "accepted"
        if not machine or not up or self.happens(self.faults.no_answer):
            if self.happens(self.faults.neighbour):
                raise Outdated(f"{minion_id} is too old to prove anything, says a neighbour")
            raise NoAnswer(f"{minion_id} does not answer")
        image = machine.instance.image
        return "another" if self.faults.ill.get(image) == "wrong" else image

    def check_all(self, minion_id: str, checks: list[Any], within: float) -> tuple[str, list[str | None]]:
        return self.image_of(minion_id, within), [self.check(minion_id, None, one, within) for one in checks]

    def check_together(self, minion_id: str, checks: list[Any], within: float) -> list[str | None]:
        return [self.check(minion_id, None, one, within) for one in checks]

    def check(self, minion_id: str, address: str | None, check: Any, within: float) -> str | None:
        image = self.image_of(minion_id, within)
        return "nginx is dead" if minion_id in self.sick or self.faults.ill.get(image) == "unhealthy" else None

    def is_well(self, name: str, lately: float = 0.0) -> bool:
        """Tell whether a machine could serve, or could ``lately`` seconds ago."""
        machine = self.machines.get(name)
        if machine is None or self.faults.ill.get(machine.instance.image) in ("unhealthy", "wrong"):
            return False
        return machine.ill_since is None or (lately > 0 and machine.ill_since > self.now - lately)

"""A world in virtual time: machines, Salt and the thread pool, with seeded faults. Nothing waits, nothing is real."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from salt.exceptions import CommandExecutionError, SaltException

from saltext.immutable.fleet.effects import Completion, Task
from saltext.immutable.minions import Event, NoAnswer
from saltext.immutable.providers import Identity, Instance

SETTLES = 5.0
SECONDS = {"list": 0.05, "launch": 0.3, "destroy": 0.2, "forget": 0.05, "probe": 0.1, "verify": 0.02, "relaunch": 1.0}


class Killed(BaseException):
    """The process is no more: nothing of its own runs after this."""


@dataclass
class Faults:
    """How likely each thing goes wrong, and what is wrong with which image."""

    launch_fails: float = 0.0
    launch_hangs: float = 0.0
    unanswered: float = 0.0
    """The provider's host does not say whether it launched or destroyed."""
    probe_hangs: float = 0.0
    rumour: float = 0.0
    """A minion says of another one that it was denied."""
    never_up: float = 0.0
    start_lost: float = 0.0
    intruder: float = 0.0
    dies: float = 0.0
    no_answer: float = 0.0
    list_fails: float = 0.0
    destroy_fails: float = 0.0
    killed: float = 0.0
    tainted: float = 0.0
    """Somebody changes a machine by hand within its first minute."""
    lags: bool = False
    ill: dict[str, str] = field(default_factory=dict)
    """Image -> unhealthy | wrong | crashes | dies."""


@dataclass
class SimulatedMachine:
    instance: Instance
    up: bool = False
    visible_from: float = 0.0


class Simulated:
    """Provider, minions and effects at once: they share one heap of things to come."""

    concurrency = 4

    def __init__(self, seed: int, faults: Faults | None = None) -> None:
        self.random = random.Random(seed)
        self.faults = faults or Faults()
        self.now = 1_000_000.0
        self.machines: dict[str, SimulatedMachine] = {}
        self.keys: dict[str, str] = {}
        self.intruded: set[str] = set()
        self.settles = SETTLES if self.faults.lags else 0.0
        self._heap: list[tuple[float, int, Any]] = []
        self._sequence = 0
        self._calls: dict[int, tuple[Task, Callable[[], Any]]] = {}
        self._late = 0.0
        self.names = 0
        self.sick: set[str] = set()
        """Machines that are not healthy."""
        self.relaunched: list[str] = []
        self.relaunch_fails: set[str] = set()
        self.relaunch_breaks: set[str] = set()
        self.taint: Callable[[str], None] = lambda name: None
        """Write down that a machine is tainted."""
        self.dead_on_arrival = 0
        """Of the next machines, how many never come up."""

    def clock(self) -> float:
        return self.now

    def token(self) -> str:
        self.names += 1
        return f"{self.names:03}"

    def happens(self, likely: float) -> bool:
        return likely > 0 and self.random.random() < likely

    def later(self, seconds: float, thing: Any) -> int:
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + seconds, self._sequence, thing))
        return self._sequence

    # Effects

    def submit(self, task: Task, call: Callable[[], Any]) -> None:
        self._perhaps_die()
        seconds = SECONDS[task.kind]
        if task.kind == "launch" and self.happens(self.faults.launch_hangs):
            seconds = 45.0
        if task.kind == "probe" and self.happens(self.faults.probe_hangs):
            seconds = 45.0
        number = self.later(seconds * self.random.uniform(0.5, 1.5), "completion")
        self._calls[number] = (task, call)

    def wait(self, until: float) -> tuple[list[Completion], list[Event]]:
        self._perhaps_die()
        while self._heap and self._heap[0][0] <= until:
            self.now, number, thing = heapq.heappop(self._heap)
            if isinstance(thing, Event):
                return [], [thing]
            if thing != "completion":
                thing()
            elif number in self._calls:
                completion = self._completed(*self._calls.pop(number))
                self._perhaps_die()
                return [completion], []
        assert until < float("inf"), "nothing would ever happen"
        self.now = max(self.now, until)
        return [], []

    def close(self) -> None:
        self._calls.clear()

    @staticmethod
    def _completed(task: Task, call: Callable[[], Any]) -> Completion:
        try:
            return Completion(task, value=call())
        except SaltException as err:
            return Completion(task, error=err)

    def _perhaps_die(self) -> None:
        if not self.happens(self.faults.killed):
            return
        for task, call in list(self._calls.values()):
            if task.kind in ("launch", "destroy", "forget") and self.happens(0.5):
                self._late = self.random.choice([0.0, self.settles * 0.3])
                self._completed(task, call)
                self._late = 0.0
        self._calls.clear()
        raise Killed

    # Provider

    def publish(self, image: str) -> str:
        return image

    def launch(self, published: str, identity: Identity) -> str:
        if self._late:
            self.later(self._late, lambda: self._create(published, identity))
        elif self.happens(self.faults.launch_fails):
            if self.happens(0.5):
                self._create(published, identity)
            raise CommandExecutionError("no capacity")
        elif self.happens(self.faults.unanswered):
            if self.happens(0.5):
                self._create(published, identity)
            raise NoAnswer("the host does not answer")
        else:
            self._create(published, identity)
        return f"ref-{identity.minion_id}"

    def _create(self, image: str, identity: Identity) -> None:
        name = identity.minion_id
        if name in self.machines:
            return
        place = (image, True, "10.0.0.9", self.now, identity.installation)
        instance = Instance(f"ref-{name}", name, identity.fleet, identity.generation, *place)
        lag = self.random.uniform(0, SETTLES * 0.6) if self.faults.lags else 0.0
        self.machines[name] = SimulatedMachine(instance, visible_from=self.now + lag)
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
        self.keys[name] = "accepted" if name in self.keys else "pending"
        if self.happens(self.faults.intruder):
            self.intruded.add(name)
        if name in self.intruded or self.happens(self.faults.rumour):
            self.later(0.0, Event("denied", name))
        if self.happens(self.faults.tainted):
            self.later(self.random.uniform(0, 60), lambda: self.taint(name))
        if not self.happens(self.faults.start_lost):
            self.later(0.0, Event("started", name))
        if self.faults.ill.get(self.machines[name].instance.image) == "crashes":
            self.later(self.random.uniform(2, 9), lambda: self._die(name))

    def _die(self, name: str) -> None:
        if name in self.machines:
            machine = self.machines[name]
            fields = {**vars(machine.instance), "running": False}
            self.machines[name] = SimulatedMachine(Instance(**fields), False, machine.visible_from)

    def list(self, fleet: str | None = None) -> list[Instance]:
        if self.happens(self.faults.list_fails):
            raise CommandExecutionError("the provider cannot be reached")
        return [one.instance for one in self.machines.values() if one.visible_from <= self.now]

    def destroy(self, ref: str) -> None:
        if self.happens(self.faults.destroy_fails):
            raise CommandExecutionError("try again")
        unanswered = self.happens(self.faults.unanswered)
        if not unanswered or self.happens(0.5):
            self.machines.pop(ref.removeprefix("ref-"), None)
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

    def contested(self, minion_id: str) -> bool:
        if self.happens(self.faults.no_answer):
            raise CommandExecutionError("no wheel turns")
        return minion_id in self.intruded

    def known(self) -> set[str]:
        return set(self.keys)

    def accepted(self, minion_id: str) -> bool:
        return self.keys.get(minion_id) == "accepted"

    def ask(self, minion_id: str, fun: str, within: float, **kwargs: Any) -> Any:
        """Answer ``immutable.launch``: it breaks what ``relaunch_breaks`` names."""
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
            raise NoAnswer(f"{minion_id} does not answer")
        image = machine.instance.image
        return "another" if self.faults.ill.get(image) == "wrong" else image

    def check(self, minion_id: str, address: str | None, check: Any, within: float) -> str | None:
        image = self.image_of(minion_id, within)
        return "nginx is dead" if minion_id in self.sick or self.faults.ill.get(image) == "unhealthy" else None

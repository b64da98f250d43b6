"""Stories: a text file says what a fleet is, what is done to it and what befalls it; below that is its journal.

The head is YAML. ``fleet``: as in the pillar (a fleet of three machines that runs image ``one`` already, unless
``begins: nothing``). ``faults``: as in faults.py. ``do``: commands, one after the other; one that is a mapping says
what happens how many seconds after it began.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet.operations import Failed
from saltext.immutable.providers import Identity
from saltext.immutable.spec.config import settings
from saltext.immutable.spec.model import Fleet
from saltext.immutable.spec.pillar import definitions
from saltext.immutable.store.schema import machines

from .estates import Estate, settled
from .faults import Faults, Killed
from .processes import Process
from .simulated import Simulated

STORIES = Path(__file__).parent / "stories"
IMAGES = {"one": "1" * 64, "two": "2" * 64, "three": "3" * 64}
STRATEGY = {"max_surge": 1, "ready_within": "30s", "progress_within": "90s"}
RECIPE = {"from": {"debian": "bookworm"}, "minion": {"pip": "salt"}, "states": "highstate"}


@dataclass(frozen=True)
class Kill:
    """Where a process is killed: at which command, and before or after which of its commits."""

    command: int
    commit: int
    when: str

    def __str__(self) -> str:
        return f"{self.when} commit {self.commit} of command {self.command}"


@dataclass
class Told:
    """What came of a story."""

    lines: list[str] = field(default_factory=list)
    commits: list[int] = field(default_factory=list)
    """Of each command."""
    outcomes: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    lineage: list[int] = field(default_factory=list)


class Story:
    """One text file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head, _, self.journal = path.read_text().partition("---\n")
        self.says: dict[str, Any] = yaml.safe_load(self.head)
        self.commands = [_command(one) for one in self.says["do"]]

    @property
    def repeatable(self) -> bool:
        """Tell whether a kill changes nothing about the end: what happens at a time may find another state then, and
        what befell a newcomer does not befall the next one.
        """
        timed = any(happens or command.startswith("dead") for command, happens in self.commands)
        return not timed and "faults" not in self.says

    def fleet(self) -> Fleet:
        said = dict(self.says.get("fleet", {}))
        strategy = {**STRATEGY, **said.pop("strategy", {})}
        health = [{"fun": "service.status", "args": ["nginx"]}]
        fixed = {"recipe": "web", "minion_id": "web-{token}", "provider": {"name": "simulated"}, "health": health}
        web = {"size": 3, **fixed, **said, "strategy": strategy}
        return definitions({"immutable": {"recipes": {"web": RECIPE}, "fleets": {"web": web}}}).fleets["web"]

    def tell(self, kill: Kill | None = None) -> Told:
        """Live through it; ``kill``: with a process that is killed, and another one that carries on."""
        with self._estate() as estate:
            teller = _Teller(estate, kill)
            if self.says.get("begins", "one") != "nothing":
                estate.publish(IMAGES["one"])
                estate.operations().roll("web", now=True)
            estate.world.faults = self._faults()
            for command, happens in self.commands:
                teller.give(command, happens)
            teller.end()
            return teller.told

    def _faults(self) -> Faults:
        said = dict(self.says.get("faults", {}))
        said["ill"] = {IMAGES[name]: how for name, how in said.get("ill", {}).items()}
        return Faults(**said)

    @contextmanager
    def _estate(self) -> Iterator[Estate]:
        world = Steady(Faults(lags=self._faults().lags))
        for key, value in self.says.get("visitors", {}).items():
            setattr(world.visitors, key, value)
        with settled(world, **vars(self.fleet())) as estate:
            estate.settings = settings({"immutable": self.says.get("config", {})})
            yield estate


class Steady(Simulated):
    """Every call takes the middle of its time, every boot two seconds."""

    def __init__(self, faults: Faults | None = None) -> None:
        super().__init__(0, faults)
        self.random.uniform = lambda low, high: 2.0 if (low, high) == (1, 4) else (low + high) / 2  # type: ignore


class _Teller:
    """Gives the commands of a story, and writes down what is said."""

    def __init__(self, estate: Estate, kill: Kill | None) -> None:
        self.estate, self.world, self.kill = estate, estate.world, kill
        self.told = Told()
        self._began = 0.0

    def give(self, command: str, happens: dict[float, str]) -> None:
        """Give one command, and note how it ended."""
        self._began = self.world.now
        self.estate.say = self._say
        for seconds, deed in happens.items():
            self.world.later(float(seconds), lambda deed=deed: self.befall(str(deed)))
        heading = len(self.told.lines)
        name, *words = command.split()
        if hasattr(Deeds, name):
            self.befall(command)
            return
        process = Process(self.world)
        if self.kill is not None and self.kill.command == len(self.told.commits):
            process.dies_at = (self.kill.commit, self.kill.when)
        outcome = self._given(process, name, words)
        self.told.commits.append(process.commits)
        self.told.outcomes.append(outcome.partition(":")[0])
        self.told.lines.insert(heading, f"{'' if heading == 0 else chr(10)}{command}: {outcome}")

    def _given(self, process: Process, name: str, words: list[str]) -> str:
        try:
            return self._outcome(process, name, words)
        except Killed:
            pass
        finally:
            process.close()
        self.estate.bury()
        if self.estate.fleet.strategy.approve:  # who was to approve may have done so too early
            for minutes in range(1, 11):
                self.world.later(60.0 * minutes, lambda: Deeds.order(self, "approve"))
        again = Process(self.world)
        try:
            by_name = self.kill is None or self.kill.commit % 2 == 0
            if by_name or self.estate.operations(again).continue_rollout("web", now="now" in words) is None:
                return self._outcome(again, name, words)
            return "carried on"
        except Failed as err:
            return str(err).splitlines()[0]
        finally:
            again.close()

    def _outcome(self, process: Process, name: str, words: list[str]) -> str:
        try:
            ended = getattr(Commands, name)(self, self.estate.operations(process), *words)
        except Failed as err:
            return str(err).splitlines()[0].removeprefix("fleet web: ")
        except (SaltInvocationError, CommandExecutionError) as err:
            return f"refused: {err}"
        return "nothing to do" if ended is None else str(ended.outcome)

    def befall(self, deed: str) -> None:
        """Let something happen to the fleet."""
        name, *words = deed.split()
        name = {"pause": "order", "abort": "order", "back": "order", "approve": "order"}.get(name, name)
        words = [deed.split()[0], *words] if name == "order" else words
        self.told.lines.append(f"{self._at(self.world.now)} ** {deed}")
        getattr(Deeds, name)(self, *words)

    def _say(self, entry: Any) -> None:
        who = f" {entry.minion_id}" if entry.minion_id else ""
        self.told.lines.append(f"{self._at(entry.at - self.world.ahead)} {entry.what}{who}: {entry.reason}")

    def _at(self, now: float) -> str:
        return f"{now - self._began:7.1f}"

    def end(self) -> None:
        """Note the end; then let it all go, and see that nothing is left."""
        estate, world = self.estate, self.world
        self.told.running = estate.running()
        self.told.lineage = estate.ledger.lineage()
        if not world.faults.lags and estate.ledger.unfinished() is None and not world.strays:
            estate.assert_in_order()
        world.faults = Faults(ill=world.faults.ill)
        world._heap.clear()
        estate.say = lambda entry: None
        for name in estate.ledger.protected():
            estate.ledger.unprotect(name)
        estate.operations().destroy("web")
        assert not world.machines and not world.keys and not world.visitors.servers, "nothing is left"
        assert not estate.ledger.records() and not estate.ledger.tainted()


class Commands:
    """What operators say."""

    @staticmethod
    def roll(teller: _Teller, operations: Any, image: str, now: str = "") -> Any:
        teller.estate.publish(IMAGES[image])
        return operations.roll("web", now=now == "now")

    @staticmethod
    def rollback(teller: _Teller, operations: Any, generation: str = "") -> Any:
        return operations.rollback("web", int(generation) if generation else None)

    @staticmethod
    def scale(teller: _Teller, operations: Any, size: str) -> Any:
        return operations.scale("web", int(size))

    @staticmethod
    def replace(teller: _Teller, operations: Any, minion_id: str) -> Any:
        return operations.replace(minion_id, "it looks odd")

    @staticmethod
    def mend(teller: _Teller, operations: Any) -> Any:
        return operations.repair("web")

    @staticmethod
    def resume(teller: _Teller, operations: Any) -> Any:
        return operations.continue_rollout("web")

    @staticmethod
    def steer(teller: _Teller, operations: Any, what: str) -> Any:
        return operations.give_order("web", what, "because")

    @staticmethod
    def destroy(teller: _Teller, operations: Any) -> Any:
        return operations.destroy("web")


class Deeds:
    """What others do, and what the world does."""

    @staticmethod
    def order(teller: _Teller, what: str) -> None:
        rollout = teller.estate.ledger.unfinished()
        if rollout is not None:
            teller.estate.ledger.order(rollout, what, "because", "jane", teller.world.clock())

    @staticmethod
    def wait(teller: _Teller, seconds: str) -> None:
        teller.world.pass_time(float(seconds))

    @staticmethod
    def resize(teller: _Teller, size: str) -> None:
        """Let another process set a size."""
        estate = teller.estate
        estate.ledger.resize(int(size), estate.fleet.size, "jane", teller.world.clock())

    @staticmethod
    def pillar(teller: _Teller, size: str) -> None:
        """Let the pillar say another size from the next command on."""
        teller.estate.resize(int(size))

    @staticmethod
    def taint(teller: _Teller, name: str) -> None:
        teller.estate.taint(name)

    @staticmethod
    def protect(teller: _Teller, name: str) -> None:
        teller.estate.ledger.protect(name, "in use", "jane", teller.world.clock())

    @staticmethod
    def unprotect(teller: _Teller, name: str) -> None:
        teller.estate.ledger.unprotect(name)

    @staticmethod
    def dies(teller: _Teller, name: str) -> None:
        teller.world._die(name)

    @staticmethod
    def vanishes(teller: _Teller, name: str) -> None:
        teller.world.machines.pop(name, None)

    @staticmethod
    def ill(teller: _Teller, name: str, seconds: str = "1000000") -> None:
        teller.world.fall_ill(name, float(seconds))

    @staticmethod
    def slandered(teller: _Teller, name: str, seconds: str) -> None:
        teller.world.visitors.slander(name, float(seconds))

    @staticmethod
    def forgotten(teller: _Teller) -> None:
        """Let those who send the visitors be reloaded."""
        teller.world.visitors.reload()

    @staticmethod
    def stranger(teller: _Teller, name: str) -> None:
        """Let a machine come that is in no book."""
        installation = teller.estate.store.installation
        teller.world._create(IMAGES["one"], Identity(name, "web", 1, installation))

    @staticmethod
    def clock(teller: _Teller, seconds: str) -> None:
        """Let the wall clock jump."""
        teller.world.ahead += float(seconds)

    @staticmethod
    def dead(teller: _Teller, number: str) -> None:
        """Let the next machines never come up."""
        teller.world.dead_on_arrival = int(number)

    @staticmethod
    def fault(teller: _Teller, name: str, likely: str) -> None:
        """Let something go wrong from now on, or no more."""
        teller.world.faults = replace(teller.world.faults, **{name: float(likely)})

    @staticmethod
    def image(teller: _Teller, name: str, how: str) -> None:
        """Let an image be ill, or well again."""
        teller.world.faults.ill[IMAGES[name]] = how

    @staticmethod
    def api(teller: _Teller, launches: str) -> None:
        """Let another fleet launch so many machines at the moment."""
        rows = [{"minion_id": f"api-{n}", "fleet": "api", "generation": 1} for n in range(int(launches))]
        with teller.estate.store.write() as tx:
            tx.execute(sa.delete(machines).where(machines.c.fleet == "api"))
            for row in rows:
                tx.execute(sa.insert(machines).values(**row, intent="launch", born=0.0, reason="", traffic="in"))


def _command(said: Any) -> tuple[str, dict[float, str]]:
    """Return a command, and what happens while it goes on."""
    if isinstance(said, dict):
        ((command, happens),) = said.items()
        return str(command), happens
    return str(said), {}


def stories() -> list[Story]:
    """Return all stories."""
    return [Story(path) for path in sorted(STORIES.glob("*.txt"))]

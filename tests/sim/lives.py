"""The life of one fleet from a seed: commands, faults, meddlers, kills and stalls, and at last its end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet import lost_store
from saltext.immutable.fleet.operations import Failed, require_order
from saltext.immutable.store import Fenced, Held
from saltext.immutable.store.schema import machines, protections, reservations, taints

from . import chances
from .estates import Backup, Estate, settled
from .faults import Faults, Killed
from .processes import Process
from .simulated import Simulated

LONGEST = 4 * 3600.0
"""Seconds that one command may take: whoever waits for an operator gets one within minutes."""
LAST_COMMIT = 60
COMMANDS = 4


@dataclass
class Life:
    """One fleet's life, and what was counted in it."""

    estate: Estate
    chance: random.Random
    counted: Counter[str] = field(default_factory=Counter)
    meddling: bool = True
    kills: int = 0
    """How many processes will still be killed."""
    stalls: int = 0
    backups: list[Backup] = field(default_factory=list)
    """Of the store, from moments of this life."""
    goes_back_after: frozenset[int] = frozenset()
    """After which of the commands one of them is put back."""
    went_back: bool = False
    of_old: set[float] = field(default_factory=set)
    """When the rollouts of the last backup that was put back began: their ends say nothing of what runs now."""

    @property
    def world(self) -> Simulated:
        return self.estate.world

    # What others do meanwhile

    def befall(self) -> None:
        """Let the minute's disasters happen, and an operator look in."""
        world, chance = self.world, self.chance
        if not self.meddling:
            return
        if self.goes_back_after:
            self.backups.append(self.estate.back_up())
        if world.happens(world.faults.forgets):
            world.visitors.reload()
        if world.happens(world.faults.host_boots):
            world.boot_host()
            self.counted["host booted"] += 1
        if world.happens(world.faults.jumps):
            world.ahead += chance.choice([-300.0, -60.0, 60.0, 300.0])
        self.look_in()
        world.later(chance.uniform(10, 90), self.befall)

    def look_in(self) -> None:
        """Approve what waits for it; now and then steer, protect, taint or resize."""
        rollout, roll = self.estate.ledger.unfinished(), self.chance.random()
        if rollout is None:
            return
        if self.estate.fleet.strategy.approve and roll < 0.7:
            self.order("approve")
        elif roll < 0.76:
            self.order(self.chance.choice(["pause", "abort", "back", "back"]))
        elif roll < 0.8:
            self.protect()
        elif roll < 0.85:
            self.unprotect()
        elif roll < 0.88:
            size = chances.size(self.chance, self.estate.fleet)
            self.estate.ledger.resize(size, self.estate.fleet.size, "jane", self.world.clock())
            self.counted["resized midway"] += 1

    def order(self, what: Any) -> None:
        """Give an order as another process does, if it makes sense."""
        ledger = self.estate.ledger
        try:
            rollout = require_order(ledger.unfinished(), self.estate.fleet.name, what)
        except CommandExecutionError:
            return
        if rollout.outcome is None:
            ledger.order(rollout, what, "because", "jane", self.world.clock())
            self.counted[f"order {what}"] += 1

    def protect(self) -> None:
        names = sorted(self.estate.ledger.records())
        if names:
            self._protect(self.chance.choice(names))

    def _protect(self, name: str) -> None:
        row = {"minion_id": name, "fleet": self.estate.fleet.name, "at": 0.0, "reason": "in use", "who": "jane"}
        with self.estate.store.write() as tx:
            if not tx.execute(sa.select(protections).where(protections.c.minion_id == name)).first():
                tx.execute(sa.insert(protections).values(row))
        self.counted["protected"] += 1

    def unprotect(self) -> None:
        with self.estate.store.write() as tx:
            tx.execute(sa.delete(protections))

    # Commands

    def give(self, name: str, *args: Any, **kwargs: Any) -> str:
        """Give a command, again and again while it is killed; return how it ended."""
        end = self.world.now + LONGEST
        while self.world.now < end:
            process = self._process()
            try:
                operations = self.estate.operations(process)
                getattr(operations, name)(*args, **kwargs)
                return "done"
            except Killed:
                self._bury(process)
            except Failed:
                return str(self.estate.ledger.rollouts()[0].outcome)
            except SaltInvocationError:
                return "refused"
            except Fenced:
                assert process.overtaken, "only who was overtaken is fenced"
                self.counted["fenced"] += 1
            except Held:
                self.world.pass_time(5.0)
            except CommandExecutionError as err:
                if self._is_final(str(err)):
                    return "refused"
                self.world.pass_time(20.0)
            finally:
                process.close()
        raise AssertionError(f"{name} never ends")

    @staticmethod
    def _is_final(said: str) -> bool:
        """Tell whether trying again would not help: windows open again, providers come back."""
        return "is closed" not in said and "the provider cannot be reached" not in said

    def _process(self) -> Process:
        process = Process(self.world)
        if self.kills and self.chance.random() < 0.6:
            self.kills -= 1
            process.dies_at = (self.chance.randint(1, LAST_COMMIT), self.chance.choice(["before", "after"]))
        elif self.stalls and self.chance.random() < 0.6:
            self.stalls -= 1
            process.stalls_at = self.chance.randint(1, LAST_COMMIT)
            process.meanwhile = self._overtaking(process)
        return process

    def _bury(self, process: Process) -> None:
        self.counted["killed"] += 1
        if self.chance.random() < 0.5:
            self.estate.bury()
        else:
            self.world.pass_time(31.0)

    def _overtaking(self, stalled: Process) -> Callable[[], None]:
        """Return what another process does while the first one hears and says nothing."""

        def overtake() -> None:
            epoch = self._epoch()
            another = Process(self.world)
            operations = self.estate.operations(another)
            try:
                operations.continue_rollout(self.estate.fleet.name)
            except CommandExecutionError:
                pass
            finally:
                another.close()
            stalled.overtaken = self._epoch() != epoch
            self.counted["overtaken"] += stalled.overtaken

        return overtake

    def _epoch(self) -> object:
        with self.estate.store.read() as connection:
            return connection.exec_driver_sql("SELECT epoch FROM leases").scalar()

    def command(self, name: str) -> str:
        """Give one of the commands with arguments that chance draws."""
        web, chance = self.estate.fleet.name, self.chance
        if name in ("abort", "back", "approve"):
            return self.give("give_order", web, name)
        if name == "scale":
            return self.give("scale", web, chances.size(chance, self.estate.fleet))
        if name == "replace":
            names = sorted(self.estate.ledger.records())
            return self.give("replace", chance.choice(names), "it looks odd") if names else "refused"
        if name == "rollback" and chance.random() < 0.3:
            known = list(self.estate.ledger.generations())
            return self.give("rollback", web, chance.choice(known)) if known else "refused"
        if name == "destroy":
            self.unprotect()
        return self.give(name, web)

    # From the cradle to the grave

    def live(self) -> None:
        """Give a few commands, then let it all go."""
        if self.goes_back_after:
            self.backups.append(self.estate.back_up())  # with nothing in it
        self.world.later(self.chance.uniform(10, 90), self.befall)
        for number in range(COMMANDS):
            self.estate.publish(chances.IMAGES[number])
            if self.chance.random() < 0.4:
                self.estate.resize(chances.size(self.chance, self.estate.fleet))
            outcome = self.command("roll" if number == 0 else chances.command(self.chance))
            self.counted[outcome] += 1
            self._assert_ended(outcome)
            self.world.pass_time(self.chance.choice([0.0, 5.0, 120.0]))
            if number in self.goes_back_after:
                self.go_back(number + 1)
        self.let_go()
        for rollout in self.estate.ledger.rollouts():
            self.counted["rollouts"] += 1
            self.counted[f"{rollout.kind} {rollout.outcome}"] += 1

    def go_back(self, commands: int) -> None:
        """Let somebody put a backup of the store back, or adopt what runs after the store was lost for good.

        ``commands``: how many were given so far.
        """
        rollouts = len(self.estate.ledger.rollouts())
        if self.chance.random() < 0.2:
            self.lose_store(commands)
        else:
            self.estate.put_back(self.chance.choice(self.backups))
        self.counted["rollouts"] += rollouts - len(self.estate.ledger.rollouts())
        self.went_back, self.of_old = True, {rollout.started for rollout in self.estate.ledger.rollouts()}
        self.counted["went back"] += 1

    def lose_store(self, commands: int) -> None:
        """Begin with an empty store; images are on the builder as before."""
        self.counted["lost"] += 1
        self.estate.lose_store(self.backups[0], f"{self.counted['lost']:016x}")
        for image in chances.IMAGES[:commands]:
            self.estate.publish(image)
        for _ in range(10):
            with suppress(CommandExecutionError):  # the provider cannot be reached
                lost_store.adopt(self.estate.operations(), self.estate.fleet.name)
            if not self.foreign():
                return
            self.world.pass_time(20.0)  # a machine whose key is not accepted yet cannot be told from another master's
        for name in self.foreign():
            self.counted["removed by hand"] += 1
            del self.world.machines[name]
            self.world.keys.pop(name, None)
            self.world.visitors.servers.pop(name, None)

    def foreign(self) -> list[str]:
        """Return the machines that are tagged with another installation than the store's."""
        ours = self.estate.store.installation
        return [name for name, one in self.world.machines.items() if one.instance.installation != ours]

    def _assert_ended(self, outcome: str) -> None:
        newest = self.estate.ledger.rollouts()[:1]
        assert outcome in ("done", "rolled back", "paused", "aborted", "refused"), outcome
        for rollout in newest:
            if rollout.outcome not in (None, "done"):
                assert rollout.reason, "it is said why"
        undisturbed = not (self.world.faults.lags or self.world.strays)
        undisturbed = undisturbed and not any(one.started in self.of_old for one in newest)
        if newest and newest[0].outcome in ("done", "rolled back") and undisturbed:
            self._assert_order()

    def _assert_order(self) -> None:
        """Hold the world to the books, unless machines went or came since by themselves."""
        self.estate.assert_in_order(known_only=self.went_back)

    def let_go(self) -> None:
        """Let the world be good again, and the fleet go: nothing may be left."""
        self.meddling, self.kills, self.stalls = False, 0, 0
        self.world.faults = Faults(ill=self.world.faults.ill)
        self.world.pass_time(180.0)
        self.unprotect()
        assert self.give("destroy", self.estate.fleet.name) in ("done", "refused")
        assert not self.world.machines, "no machine is left"
        left = {*self.world.keys, *self.world.visitors.servers}
        if self.went_back:
            left = self.estate.ledger.in_journal(left)
        assert not left, "no key is left, and visitors are sent nowhere"
        with self.estate.store.read() as connection:
            for table in (machines, taints, protections, reservations):
                assert not connection.execute(sa.select(table)).all(), f"nothing is left in {table.name}"


def one(seed: int) -> Counter[str]:
    """Live one life, and return what was counted."""
    chance = random.Random(seed)
    world = Simulated(seed, chances.troubles(chance))
    fleet, settings = chances.fleet(chance), chances.settings(chance)
    world.visitors.longest = chance.choice([2.0, 8.0, 40.0])
    world.visitors.checks = chance.random() < 0.6
    with settled(world, **vars(fleet)) as estate:
        estate.settings = settings
        life = Life(estate, chance, kills=chance.choice([0, 0, 1, 2]), stalls=chance.choice([0, 0, 0, 1]))
        life.goes_back_after = frozenset(chance.choices(range(COMMANDS), k=chance.choice([1, 1, 2])))
        life.live()
    return life.counted

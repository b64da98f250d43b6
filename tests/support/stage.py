"""A fleet of real machines behind a real HAProxy, with visitors that come all the time and somebody who counts.

::

    with Stage(estate, tmp_path, keep_old="1h") as stage:
        with stage.watched(floor=3):
            first = stage.begin("fleet.roll", "web")
            stage.wait_for_entry("step")
            estate.salt_run("fleet.pause", "web")
        assert stage.ended(first).returncode == 1
"""

from __future__ import annotations

import sqlite3
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from examples.watch import Visitors

from .estate import Estate, wait_for
from .haproxy import Balancer

BACKEND = """\
option httpchk
    http-check send meth GET uri /
    option redispatch 1
    retries 3
    retry-on all-retryable-errors"""
"""A server whose service ends is found out by the next check; until then its visitors are sent on to another one."""
OFTEN = 0.05
"""Seconds between two looks at how many machines have visitors."""
STRATEGY = {"max_surge": 1, "ready_within": "60s", "drain_within": "5s"}


class Onlooker:
    """Count the servers that HAProxy sends visitors to, until told to stop; ``low`` is the fewest."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.times, self.low = 0, len(balancer.visited())

    def __enter__(self) -> Onlooker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(OFTEN):
            with suppress(OSError):
                self.low = min(self.low, len(self._balancer.visited()))
                self.times += 1


class Stage:
    """Fleet ``web`` of three machines behind HAProxy. ``strategy`` is more of it; ``fleet`` more of the fleet.

    ``fall``: so many checks one after the other must fail until HAProxy sends nobody to a server any more.
    """

    def __init__(
        self, estate: Estate, home: Path, fleet: Mapping[str, Any] | None = None, fall: int = 1, **strategy: Any
    ) -> None:
        self.estate = estate
        self.balancer = Balancer(home / "haproxy", backend=BACKEND)
        self._fleet, self._strategy, self._fall = dict(fleet or {}), strategy, fall
        self._pillar = estate.pillar / "immutable.sls"
        self._before = self._pillar.read_text()
        self._begun: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Stage:
        self.strategy(**self._strategy)
        self.balancer.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._begun:
            if process.poll() is None:
                process.kill()
            process.communicate()
        try:
            self.estate.salt_run("fleet.destroy", "web")
        finally:
            self.balancer.stop()
            self._pillar.write_text(self._before)
            self.version("1")

    # What operators write

    def strategy(self, **strategy: Any) -> None:
        """Write the fleet's strategy into the pillar."""
        pillar = yaml.safe_load(self._before)
        options = {"inter": "200ms", "fall": self._fall, "rise": 1}
        pillar["immutable"]["fleets"]["web"] |= {
            "strategy": {**STRATEGY, **strategy},
            "traffic": {"haproxy": {"socket": self.balancer.socket, "backend": "web", "options": options}},
            **self._fleet,
        }
        self._pillar.write_text(yaml.safe_dump(pillar))

    def version(self, version: str) -> None:
        """Write into the pillar what the pages are to say."""
        self.estate.write_pillar("web", {"web": {"version": version, "status": 200}})

    def bake(self, version: str) -> str:
        """Bake an image whose pages say ``version``, and return its name."""
        self.version(version)
        return str(self.estate.salt_run("image.bake", "web").data["image"])

    def bake_another(self) -> None:
        """Bake an image that nobody runs: version 1, or where that runs version 2."""
        self.bake("1")
        if self.estate.salt_run("fleet.plan", "web").data["verdict"] == "done":
            self.bake("2")

    # What operators do

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start salt-run, and return at once."""
        self._begun.append(self.estate.popen(*words))
        return self._begun[-1]

    @staticmethod
    def ended(process: subprocess.Popen[str], within: float = 120.0) -> tuple[int, str]:
        """Return how a command ended, and what it said."""
        said = "".join(process.communicate(timeout=within))
        return process.returncode, said

    # What is there

    @property
    def status(self) -> dict[str, Any]:
        """What ``fleet.status`` says."""
        return dict(self.estate.salt_run("fleet.status", "web").data)

    def generations(self) -> dict[str, int]:
        """Return the machines that serve, with their generation."""
        return {m["minion_id"]: m["generation"] for m in self.status["machines"] if m["phase"] == "serving"}

    def entries(self, after: int = 0) -> list[tuple[int, str, str | None]]:
        """Return the journal as it stands in the store: number, what, which machine."""
        return self._asked("SELECT id, what, minion_id FROM journal WHERE id > ? ORDER BY id", (after,))

    def now(self) -> int:
        """Return the number of the journal's last entry."""
        return max((number for number, _, _ in self.entries()), default=0)

    def wait_for_entry(self, *what: str, after: int, within: float = 60.0) -> str | None:
        """Return the machine of the first such entry in the journal after another one, as soon as it is there."""
        found: list[str | None] = []

        def there() -> bool:
            found.extend(minion for _, kind, minion in self.entries(after) if kind in what)
            return bool(found)

        wait_for(there, within, every=0.01)
        return found[0]

    def wait_until(self, says: str, within: float = 60.0) -> None:
        """Return when the rollout says that it is so far."""
        wait_for(lambda: says in self._rollout("verdict"), within)

    def outcome(self) -> str | None:
        """Return how the last rollout ended; None: it has not."""
        found = self._rollout("outcome")
        return None if found is None else str(found)

    def _rollout(self, column: str) -> Any:
        [[found]] = self._asked(f"SELECT {column} FROM rollouts ORDER BY id DESC LIMIT 1")
        return found

    def _asked(self, *ask: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.estate.host.root}/store.sqlite?mode=ro", uri=True)) as store:
            return store.execute(*ask).fetchall()

    @contextmanager
    def watched(self, floor: int = 3) -> Iterator[Visitors]:
        """Hold what happens meanwhile to it: ``floor`` machines have visitors at least, and nobody is turned away."""
        with Onlooker(self.balancer) as onlooker, Visitors(self.balancer.place) as visitors:
            yield visitors
        assert onlooker.times > 10 and sum(visitors.seen.values()) > 100, "nobody looked"
        assert visitors.lost == []
        assert onlooker.low >= floor, f"{onlooker.low} machines had visitors, the floor is {floor}"

    def is_sound(self, size: int = 3, kept: int = 0) -> None:
        """Hold machines, books, keys and HAProxy to be one and the same."""
        machines = {m["minion_id"]: m["phase"] for m in self.status["machines"]}
        phases = sorted(machines.values())
        assert phases == ["kept"] * kept + ["serving"] * size, machines
        assert self.estate.keys() == sorted(machines)
        serving = sorted(name for name, phase in machines.items() if phase == "serving")
        assert sorted(name.partition(":")[2] for name in self.balancer.visited()) == serving
        assert {name.partition(":")[2] for name in self.balancer.servers()} <= set(machines)
        leaks = self.estate.leaks()
        assert (leaks["machines"], leaks["keys"], leaks["links"]) == (size + kept,) * 3, leaks
        assert not any(leaks[kind] for kind in ("cgroups", "workspaces", "mounts", "bridges")), leaks



@contextmanager
def staged(estate: Estate, folder: Path) -> Iterator[Stage]:
    """Give three machines at version 1 that have visitors, and an image of version 2 that nobody runs yet."""
    with Stage(estate, folder, max_surge=3) as stage:
        stage.bake("1")
        estate.salt_run("fleet.roll", "web")
        stage.is_sound()
        stage.bake("2")
        yield stage

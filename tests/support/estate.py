"""What stands around a private master on this host: bridge, root of layers, kept downloads, and the count of leaks.

::

    with OneOfThem(ROOT / "build/estate", pillar=ROOT / "pillar", states=ROOT / "examples/states") as estate:
        estate.salt_run("image.bake", "web")
        estate.salt_run("fleet.roll", "web").data["outcome"]
        estate.write_pillar("web", {"web": {"version": "2"}})
        estate.salt("web-*", "test.ping").data
    assert not any(estate.leaks().values())

Who starts the master and runs command lines, a subclass says: for tests ``support.factories`` with
pytest-salt-factories, for the demo and the benchmarks ``examples.starter``, which needs nothing but Salt.

Needs root. All of an estate is below its ``home``: config, keys, store, layers and downloads. The next estate in the
same home begins again, whatever the last one left, also after ``kill -9``; only downloads and layers stay, which are
found again by what they are made from.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import re
import shutil
import sqlite3
import subprocess
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psutil
import yaml

from saltext.immutable.host import Host, remove
from saltext.immutable.images import layers
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines import network
from saltext.immutable.machines.cgroup import Cgroup
from saltext.immutable.spec.model import Network

MARK = "IMMUTABLE_ESTATE"
"""Processes of an estate have its home in this variable, and are found by it after their parent was killed.

Salt's daemons write their title over their environment; they are known by the config directory in it.
"""


@dataclass(frozen=True)
class Answer:
    """How a command line ended."""

    command: tuple[str, ...]
    """As an operator would type it."""
    returncode: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def ok(self) -> bool:
        return self.returncode == 0

    @property
    def data(self) -> Any:
        """What it printed as JSON, or None; several documents (``salt`` prints one a minion) are merged."""
        found, text, decoder = None, self.stdout.strip(), json.JSONDecoder()
        while text:
            try:
                document, end = decoder.raw_decode(text)
            except ValueError:
                return None
            found = {**found, **document} if isinstance(found, dict) and isinstance(document, dict) else document
            text = text[end:].strip()
        return found


class Estate(ABC):
    """One master and its host. ``config`` is further master config."""

    CONFIG_DIR: ClassVar[str]
    """Where below home the master's config is."""
    PKI_DIR: ClassVar[str]
    """Where below home the master keeps keys."""

    def __init__(
        self,
        home: Path,
        *,
        pillar: Path | None = None,
        states: Path | None = None,
        net: Network | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.home = home.resolve()
        self.etc, self.pki = self.home / self.CONFIG_DIR, self.home / self.PKI_DIR
        self.pillar, self.states = self.home / "pillar", self.home / "states"
        self.host = Host(self.home / "immutable")
        self.net = net or self._earlier() or Network(f"im{zlib.crc32(str(self.home).encode()):08x}", free_subnet())
        self._sources = {self.pillar: pillar, self.states: states}
        self._config = dict(config or {})
        self._undo = ExitStack()
        self.is_up = False

    # What a subclass says

    @abstractmethod
    def start_master(self) -> None:
        """Start a master with `master_config` in `etc`, and return when it answers."""

    @property
    @abstractmethod
    def master_pid(self) -> int:
        """The master's first process, which leads a session of its own; 0 when there is none."""

    @property
    @abstractmethod
    def ports(self) -> tuple[int, int]:
        """Where minions subscribe, and where they ask."""

    @abstractmethod
    def popen(self, *words: str) -> subprocess.Popen[str]:
        """Start ``salt-run`` in a session of its own, and return at once: to kill it, or to read what it says."""

    @abstractmethod
    def _run(self, script: str, words: tuple[str, ...]) -> Answer:
        """Run a command line of Salt to its end, with JSON as its output."""

    # Life

    def __enter__(self) -> Estate:
        return self.up()

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> Estate:
        """Clear what an earlier estate left in this home, and start a master."""
        self.home.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            undo.enter_context(_only_one(self.home))
            self.clear()
            undo.callback(self.end)
            self._copy_sources()
            network.up(self.net)
            # Not the pack's own bridge, or it would go with the last machine: the master listens on its address.
            run("ip", "link", "set", self.net.bridge, "alias", "estate")
            self.start_master()
            if self.master_pid not in {each.pid for each in self._ours()}:
                raise RuntimeError(f"the master, pid {self.master_pid}, does not look like one: no leak would be seen")
            self._undo, self.is_up = undo.pop_all(), True
        return self

    def down(self) -> None:
        """End everything; what stays are the files."""
        self.is_up = False
        self._undo.close()

    def clear(self) -> None:
        """Make this home new, but keep downloads, and the layers that the last estate used."""
        self.end()
        for name in ("etc", "pillar", "states", "run"):
            remove(self.home / name)
        self.host.prepare()
        for place in self.host.abandoned():
            remove(place)
        if any(self.host.images.iterdir()):
            layers.drop(self.host, [place.name for place in self.host.layers.iterdir()])
        for place in [*self.host.images.iterdir(), *self.host.consoles.iterdir(), *self.host.damaged.iterdir()]:
            remove(place)
        for link in self.host.l.iterdir():
            if not link.exists():
                link.unlink()
        _forget(self.host.root / "store.sqlite")

    def end(self) -> None:
        """End the processes and machines of this estate, and remove its bridge."""
        self._end_processes()
        for each in machines.machines(self.host):
            machines.destroy(self.host, each.minion_id)
        if Path("/sys/class/net", self.net.bridge).exists():
            run("ip", "link", "set", self.net.bridge, "alias", network.COMMENT)
        network.down(self.net)

    def _earlier(self) -> Network | None:
        """Return the network of the last estate in this home: what it left is found by it."""
        file = self.etc / "master"
        return Network(**yaml.safe_load(file.read_text())["immutable"]["network"]) if file.exists() else None

    def _copy_sources(self) -> None:
        for place, source in self._sources.items():
            if source:
                shutil.copytree(source, place)
            place.mkdir(exist_ok=True)

    def master_config(self) -> dict[str, Any]:
        """Return what the master is told but for paths and ports: it listens on the bridge, where machines are."""
        immutable = {"root": str(self.host.root), "network": {"bridge": self.net.bridge, "subnet": self.net.subnet}}
        return {
            "user": "root",
            "interface": network.gateway(self.net),
            "file_roots": {"base": [str(self.states)]},
            "pillar_roots": {"base": [str(self.pillar)]},
            "worker_threads": 3,
            "log_level": "warning",
            "immutable": immutable,
            **self._config,
        }

    # What an operator does

    def salt_run(self, *words: str, check: bool = True) -> Answer:
        """Run ``salt-run``; ``check``: a failure raises."""
        return self._checked("salt-run", words, check)

    def salt(self, target: str, *words: str, check: bool = True) -> Answer:
        """Run ``salt``; ``check``: a failure raises."""
        return self._checked("salt", (target, *words), check)

    def salt_key(self, *words: str, check: bool = True) -> Answer:
        """Run ``salt-key``; ``check``: a failure raises."""
        return self._checked("salt-key", words, check)

    def _checked(self, script: str, words: tuple[str, ...], check: bool) -> Answer:
        answer = self._run(script, words)
        if check and not answer.ok:
            said = (answer.stderr + answer.stdout).strip()
            raise AssertionError(f"{' '.join(answer.command)} exited with {answer.returncode}:\n{said}")
        return answer

    def expect(self, minion_id: str) -> None:
        """Let the master accept the key of a minion that is none of its fleets'."""
        stubs = self.pki / "minions_autosign"
        stubs.mkdir(exist_ok=True)
        (stubs / minion_id).touch()

    def write_pillar(self, name: str, data: Mapping[str, Any]) -> None:
        """Write ``<name>.sls`` of the pillar."""
        (self.pillar / f"{name}.sls").write_text(json.dumps(data, indent=1))

    def keys(self) -> list[str]:
        """Return the minion ids that have a key of any state, or a stub that would accept one."""
        kinds = ("minions", "minions_pre", "minions_rejected", "minions_denied", "minions_autosign")
        found = (file.name for kind in kinds for file in self.pki.glob(f"{kind}/*"))
        return sorted(name for name in found if not name.startswith("."))

    # What is left

    def leaks(self) -> dict[str, int]:
        """Count what an estate without machines must not have; its master and its bridge are no leak while it is up."""
        slices = {folder.parent for folder in Cgroup("any").folders()}
        owned = {folder for each in machines.machines(self.host) for folder in each.cgroup.folders()}
        return {
            "machines": len(machines.machines(self.host)),
            "keys": len(self.keys()),
            "mounts": Path("/proc/self/mountinfo").read_text().count(f"{self.home}/"),
            "processes": len(self.processes()),
            "namespaces": len(self._namespaces()),
            "bridges": int(not self.is_up and Path("/sys/class/net", self.net.bridge).exists()),
            "links": len(list(Path("/sys/class/net").glob(f"{self.net.bridge}/brif/*"))),
            "cgroups": len({group for each in slices for group in each.glob(f"*{self.host.tag}-*")} - owned),
            "workspaces": len(list(self.host.tmp.glob("*"))),
        }

    def processes(self) -> list[psutil.Process]:
        """Return the processes of this estate; its master's are left out."""
        master = self.master_pid if self.is_up else 0
        return [each for each in self._ours() if _session(each.pid) != master]

    def _ours(self) -> set[psutil.Process]:
        title = re.compile(rf"salt\S* (-c |--config-dir=){re.escape(str(self.home))}/")
        return {
            each
            for each in psutil.process_iter(["cmdline", "environ", "ppid"])
            if (each.info["environ"] or {}).get(MARK) == str(self.home)
            or title.search(" ".join(each.info["cmdline"] or ()))
        }

    def _namespaces(self) -> set[str]:
        """Return the mount namespaces other than ours in which anything of this estate is mounted."""
        mine, found = os.readlink("/proc/self/ns/mnt"), set()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"{self.host.root}/" in (process / "mountinfo").read_text():
                    found.add(os.readlink(process / "ns/mnt"))
        return found - {mine}

    def _end_processes(self) -> None:
        """End the master and what runs beside it; machines have a death of their own."""
        for tell, told in ((psutil.Process.terminate, self._topmost), (psutil.Process.kill, self._workers)):
            for each in told():
                with suppress(psutil.NoSuchProcess):
                    tell(each)
            with suppress(TimeoutError):
                return wait_for(lambda: not self._workers(), 5.0)
        raise TimeoutError(f"processes of {self.home} do not end: {self._workers()}")

    def _topmost(self) -> set[psutil.Process]:
        """Return those that no other one of them started; they end what they started."""
        workers = self._workers()
        pids = {each.pid for each in workers}
        return {each for each in workers if each.info["ppid"] not in pids}

    def _workers(self) -> set[psutil.Process]:
        inside = {pid for each in machines.machines(self.host) for pid in each.cgroup.pids()}
        return {each for each in self._ours() if each.pid not in inside}


def _forget(store: Path) -> None:
    """Empty a store but for the secret by which layers are found again."""
    if not store.exists():
        return
    with closing(sqlite3.connect(store)) as database, database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'meta'").fetchall()
        for (table,) in tables:
            database.execute(f"DELETE FROM {table}")


def _session(pid: int) -> int:
    with suppress(ProcessLookupError):
        return os.getsid(pid)
    return 0


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    with (home / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise RuntimeError(f"{home} is in use by another process") from err
        yield


def run(*words: str) -> None:
    """Run a command that has to work."""
    subprocess.run(words, check=True, capture_output=True, text=True)


def wait_for(happens: Callable[[], bool], seconds: float = 60.0, every: float = 0.05) -> None:
    """Return when something has happened; ``TimeoutError`` if it does not."""
    end = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > end:
            raise TimeoutError(f"it did not happen within {seconds} s")
        time.sleep(every)


def free_subnet() -> str:
    """Return a /24 that no interface and no route of this host touches."""
    routes = subprocess.run(["ip", "-4", "-o", "route"], check=True, capture_output=True, text=True).stdout
    first = [line.split()[0] for line in routes.splitlines()]
    taken = [ipaddress.IPv4Network(word) for word in first if word[0].isdigit()]
    start = os.getpid() % 200
    for number in range(start, start + 200):
        subnet = ipaddress.IPv4Network(f"10.{118 + number // 200}.{number % 200 + 1}.0/24")
        if not any(subnet.overlaps(other) for other in taken):
            return str(subnet)
    raise RuntimeError("no free subnet below 10.118.0.0/16")

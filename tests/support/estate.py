"""A private master on this host, with everything around it, for the demo, the benchmarks and the end-to-end tests.

::

    with Estate(ROOT / "build/estate", pillar=ROOT / "pillar", states=ROOT / "examples/states") as estate:
        estate.salt_run("image.bake", "web")
        estate.salt_run("fleet.roll", "web").data["outcome"]
        estate.write_pillar("web", {"web": {"version": "2"}})
        estate.salt("web-*", "test.ping").data
    assert not any(estate.leaks().values())

Needs root. All of an estate is below its ``home``: config, keys, store, layers and downloads. The next estate in the
same home begins anew, whatever the last one left, also after ``kill -9``; only downloads and layers stay, which are
found again by what they are made from.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

_NOISE = re.compile(r"unclosed (Runner|MasterMinion) <")
"""What Salt 3008's own salt-run says at its end, whatever it ran."""


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


class Estate:
    """One master and its host. ``config`` is further master config."""

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
        self.etc, self.pillar, self.states = self.home / "etc", self.home / "pillar", self.home / "states"
        self.host = Host(self.home / "immutable")
        self.net = net or self._earlier() or Network(f"im{zlib.crc32(str(self.home).encode()):08x}", free_subnet())
        self._sources = {self.pillar: pillar, self.states: states}
        self._config = dict(config or {})
        self._undo = ExitStack()
        self._master: subprocess.Popen[bytes] | None = None
        self.is_up = False

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
            self._write()
            network.up(self.net)
            # Not the pack's own bridge, or it would go with the last machine: the master listens on its address.
            run("ip", "link", "set", self.net.bridge, "alias", "estate")
            self.start_master()
            self._undo, self.is_up = undo.pop_all(), True
        return self

    def down(self) -> None:
        """End everything; what stays are the files."""
        self.is_up = False
        self._undo.close()

    def leave(self) -> None:
        """Let it live on after this process; `clear` ends it."""
        self._undo.pop_all()

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
        for place in [*self.host.images.iterdir(), *self.host.consoles.iterdir()]:
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
            run("ip", "link", "set", self.net.bridge, "alias", network.OURS)
        network.down(self.net)

    def _earlier(self) -> Network | None:
        """Return the network of the last estate in this home: what it left is found by it."""
        file = self.etc / "master"
        return Network(**json.loads(file.read_text())["immutable"]["network"]) if file.exists() else None

    # The master

    def start_master(self, within: float = 60.0) -> None:
        """Start the master, and return when it answers."""
        with (self.home / "master.log").open("wb") as log:
            self._master = process = subprocess.Popen(
                [_script("salt-master"), "-c", self.etc],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(lambda: process.poll() is not None or self._answers(), within)
        if process.poll() is not None:
            raise RuntimeError(f"the master ended:\n{(self.home / 'master.log').read_text()}")
        if process.pid not in self._ours():
            raise RuntimeError(f"the master, pid {process.pid}, does not look like one: nothing could be told of leaks")

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((network.gateway(self.net), self.ports[0]), timeout=1):
            return (self.home / "run/var/run/salt/master/master_event_pull.ipc").exists()
        return False

    def _write(self) -> None:
        for place, source in self._sources.items():
            if source:
                shutil.copytree(source, place)
            place.mkdir(exist_ok=True)
        self.etc.mkdir()
        self.ports = free_ports(2)
        immutable = {"root": str(self.host.root), "network": {"bridge": self.net.bridge, "subnet": self.net.subnet}}
        config = {
            "root_dir": str(self.home / "run"),
            "user": "root",
            "interface": network.gateway(self.net),
            "publish_port": self.ports[0],
            "ret_port": self.ports[1],
            "file_roots": {"base": [str(self.states)]},
            "pillar_roots": {"base": [str(self.pillar)]},
            "worker_threads": 3,
            "log_level": "warning",
            "immutable": immutable,
            **self._config,
        }
        (self.etc / "master").write_text(json.dumps(config, indent=1))

    # What an operator does

    def salt_run(self, *words: str, check: bool = True, hear: Callable[[str], None] = lambda line: None) -> Answer:
        """Run ``salt-run``; ``check``: a failure raises; ``hear`` is called with each line of progress."""
        return self._call("salt-run", words, check, hear)

    def salt(self, target: str, *words: str, check: bool = True) -> Answer:
        """Run ``salt``."""
        return self._call("salt", (target, *words), check, lambda line: None)

    def popen(self, *words: str) -> subprocess.Popen[str]:
        """Start ``salt-run`` and return at once (to kill it, for example)."""
        return self._popen("salt-run", words)

    def write_pillar(self, name: str, data: Mapping[str, Any]) -> None:
        """Write ``<name>.sls`` of the pillar."""
        (self.pillar / f"{name}.sls").write_text(json.dumps(data, indent=1))

    def keys(self) -> list[str]:
        """Return the minion ids that have a key of any standing, or a stub that would accept one."""
        pki = self.home / "run/etc/salt/pki/master"
        kinds = ("minions", "minions_pre", "minions_rejected", "minions_denied", "minions_autosign")
        return sorted(file.name for kind in kinds for file in pki.glob(f"{kind}/*") if not file.name.startswith("."))

    def _call(self, script: str, words: tuple[str, ...], check: bool, hear: Callable[[str], None]) -> Answer:
        began = time.monotonic()
        with self._popen(script, words) as process:
            try:
                stdout, stderr = _read(process, hear)
            except BaseException:
                _interrupt(process)
                raise
        answer = Answer((script, *words), process.returncode, stdout, stderr, time.monotonic() - began)
        if check and not answer.ok:
            said = (answer.stderr + answer.stdout).strip()
            raise AssertionError(f"{' '.join(answer.command)} exited with {answer.returncode}:\n{said}")
        return answer

    def _popen(self, script: str, words: tuple[str, ...]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [_script(script), "-c", self.etc, "--out=json", *words],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _environment(self) -> dict[str, str]:
        return {**os.environ, MARK: str(self.home), "PYTHONUNBUFFERED": "1"}

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

    def processes(self) -> list[int]:
        """Return the processes of this estate; its master's are left out."""
        master = self._master.pid if self._master and self.is_up else 0
        return [pid for pid in self._ours() if _session(pid) != master]

    def _ours(self) -> set[int]:
        mark = f"{MARK}={self.home}\0".encode()
        title = re.compile(rb"salt\S*[\0 ]-c[\0 ]" + re.escape(str(self.etc).encode()) + rb"([\0 ]|$)")
        marked = {pid for pid, environ in _of_processes("environ") if mark in environ}
        return marked | {pid for pid, words in _of_processes("cmdline") if title.search(words)}

    def _namespaces(self) -> set[str]:
        """Return the mount namespaces other than ours in which anything of this estate is mounted."""
        mine, found = os.readlink("/proc/self/ns/mnt"), set()
        for pid, mounts in _of_processes("mountinfo"):
            if f"{self.host.root}/".encode() in mounts:
                with suppress(OSError):
                    found.add(os.readlink(f"/proc/{pid}/ns/mnt"))
        return found - {mine}

    def _end_processes(self) -> None:
        """End the master and what runs beside it; machines have a death of their own."""
        for number, told in ((signal.SIGTERM, self._leaders), (signal.SIGKILL, self._workers)):
            for pid in told():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            with suppress(TimeoutError):
                return wait_for(lambda: not self._workers(), 5.0)
        raise TimeoutError(f"processes of {self.home} do not end: {self._workers()}")

    def _leaders(self) -> set[int]:
        return {pid for pid in self._workers() if _session(pid) == pid}

    def _workers(self) -> set[int]:
        inside = (each.cgroup.pids() for each in machines.machines(self.host))
        return self._ours().difference(*inside)


def _forget(store: Path) -> None:
    """Empty a store but for the secret by which layers are found again."""
    if not store.exists():
        return
    with closing(sqlite3.connect(store)) as database, database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'meta'").fetchall()
        for (table,) in tables:
            database.execute(f"DELETE FROM {table}")


def _of_processes(file: str) -> Iterator[tuple[int, bytes]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield int(folder.name), (folder / file).read_bytes()


def _session(pid: int) -> int:
    with suppress(ProcessLookupError):
        return os.getsid(pid)
    return 0


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    with (home / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise RuntimeError(f"{home} is in use by another process") from err
        yield


def _read(process: subprocess.Popen[str], hear: Callable[[str], None]) -> tuple[str, str]:
    """Read both outputs to their end, one line of standard error at a time."""
    assert process.stdout and process.stderr
    errors, lines = process.stderr, []

    def listen() -> None:
        for line in errors:
            lines.append(line)
            if not _NOISE.search(line):
                hear(line.rstrip())

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    stdout = process.stdout.read()
    listener.join()
    return stdout, "".join(lines)


def _interrupt(process: subprocess.Popen[str], within: float = 60.0) -> None:
    """Press Ctrl-C, and let it undo what it did."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        process.kill()


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


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as undo:
        sockets = [undo.enter_context(socket.create_server(("0.0.0.0", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


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

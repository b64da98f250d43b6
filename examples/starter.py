"""A master and command lines of Salt without any tool of tests, for the demo and for undisturbed benchmarks.

Tests take theirs from pytest-salt-factories (``tests/support/factories.py``); both share what stands around a master.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from saltext.immutable.machines import network
from tests.support.estate import MARK, Answer, Estate, wait_for

_NOISE = re.compile(r"unclosed (Runner|MasterMinion) <")
"""What Salt 3008's own salt-run says at its end, whatever it ran."""


class PlainEstate(Estate):
    """An estate with nothing but Salt. ``hear`` is called with each line of progress."""

    CONFIG_DIR = "etc"
    PKI_DIR = "run/etc/salt/pki/master"

    def __init__(self, *args: Any, hear: Callable[[str], None] = lambda line: None, **more: Any) -> None:
        super().__init__(*args, **more)
        self._hear = hear
        self._master: subprocess.Popen[bytes] | None = None
        self._ports = (0, 0)

    def leave(self) -> None:
        """Let it live on after this process; `clear` ends it."""
        self._undo.pop_all()

    @property
    def master_pid(self) -> int:
        return self._master.pid if self._master else 0

    @property
    def ports(self) -> tuple[int, int]:
        return self._ports

    def start_master(self, within: float = 60.0) -> None:
        """Start the master, and return when it answers."""
        self._ports = _free_ports()
        more = {"root_dir": str(self.home / "run"), "publish_port": self._ports[0], "ret_port": self._ports[1]}
        self.etc.mkdir()
        (self.etc / "master").write_text(json.dumps({**self.master_config(), **more}, indent=1))
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

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((network.gateway(self.net), self._ports[0]), timeout=1):
            return (self.home / "run/var/run/salt/master/master_event_pull.ipc").exists()
        return False

    def popen(self, *words: str) -> subprocess.Popen[str]:
        return self._popen("salt-run", words)

    def _run(self, script: str, words: tuple[str, ...]) -> Answer:
        began = time.monotonic()
        with self._popen(script, words) as process:
            try:
                stdout, stderr = self._read(process)
            except BaseException:
                _interrupt(process)
                raise
        return Answer((script, *words), process.returncode, stdout, stderr, time.monotonic() - began)

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

    def _read(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """Read both outputs to their end, one line of standard error at a time."""
        assert process.stdout and process.stderr
        errors, lines = process.stderr, []

        def listen() -> None:
            for line in errors:
                lines.append(line)
                if not _NOISE.search(line):
                    self._hear(line.rstrip())

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        stdout = process.stdout.read()
        listener.join()
        return stdout, "".join(lines)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, MARK: str(self.home), "PYTHONUNBUFFERED": "1"}


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _interrupt(process: subprocess.Popen[str], within: float = 60.0) -> None:
    """Press Ctrl-C, and let it undo what it did."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        process.kill()


def _free_ports() -> tuple[int, int]:
    """Return two ports that nobody listens on."""
    with ExitStack() as undo:
        sockets = [undo.enter_context(socket.create_server(("0.0.0.0", 0))) for _ in range(2)]
        return sockets[0].getsockname()[1], sockets[1].getsockname()[1]

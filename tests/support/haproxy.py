"""A real HAProxy for tests and the demo: below its own folder, on its own loopback address, ended by its pid.

::

    with Balancer(tmp_path) as balancer:
        HAProxy({"socket": balancer.socket, "backend": "web", "port": 8000}, {}).attach("web-1", "127.0.0.2")
        urllib.request.urlopen(balancer.url)
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

CONFIG = """\
global
    stats socket {home}/admin.sock mode 600 level admin expose-fd listeners
    stats socket {home}/operator.sock mode 600 level operator
    stats socket ipv4@{address}:9999 level admin
    hard-stop-after 30s
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
frontend visitors
    bind {address}:{port}
    default_backend web
backend web
    balance roundrobin
    {backend}
"""


class Balancer:
    """One HAProxy with one backend, ``web``. ``backend`` is what else stands in it, ``rest`` what stands behind it."""

    def __init__(
        self,
        home: Path,
        backend: str = "",
        rest: str = "",
        port: int = 8000,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home.resolve()
        self._env = dict(env or {})
        self.address = loopback(str(self.home))
        self.socket, self.operator = f"{self.home}/admin.sock", f"{self.home}/operator.sock"
        self.remote = f"{self.address}:9999"
        self.place = f"{self.address}:{port}"
        self.url = f"http://{self.place}/"
        config = CONFIG.format(home=self.home, address=self.address, port=port, backend=backend)
        self._file = self.home / "haproxy.cfg"
        self.home.mkdir(parents=True, exist_ok=True)
        self._file.write_text(config + rest)
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Balancer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Balancer:
        """Start it, and return when it answers."""
        self._start()
        return self

    def stop(self) -> None:
        """End it at once, whoever it serves."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()

    def reload(self) -> None:
        """Read the config again, as a reload of the service does: the old process stays for its visitors only."""
        old = self._processes[-1]
        self._start("-x", self.socket, "-sf", str(old.pid))

    def servers(self) -> list[str]:
        """Return the names of the servers in the backend."""
        rows = [line.split() for line in self._said("show servers state web") if line[:1].isdigit()]
        return [row[3] for row in rows if len(row) > 3]

    def visited(self) -> list[str]:
        """Return the names of the servers that get new visitors: up, and neither draining nor in maintenance."""
        rows = [line.split() for line in self._said("show servers state web") if line[:1].isdigit()]
        return [row[3] for row in rows if len(row) > 6 and (row[5], row[6]) == ("2", "0")]

    def _start(self, *more: str) -> None:
        command = [program(), "-db", "-f", str(self._file), *more]
        with (self.home / "haproxy.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **self._env})
        self._processes.append(process)
        until = time.monotonic() + 10.0
        while self._pid() != process.pid:
            if process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"HAProxy does not start: {(self.home / 'haproxy.log').read_text()}")
            time.sleep(0.02)

    def _pid(self) -> int | None:
        """Return who answers at the socket: after a reload that may still be the old process for a moment."""
        with suppress(OSError):
            return next((int(line.split()[1]) for line in self._said("show info") if line.startswith("Pid:")), None)
        return None

    def _said(self, command: str) -> list[str]:
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(1.0)
            door.connect(self.socket)
            door.sendall(f"{command}\n".encode())
            with door.makefile() as lines:
                return lines.read().splitlines()


def program() -> str:
    """Return the path of haproxy, which a user's PATH may not show."""
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RuntimeError("haproxy is not installed; run scripts/setup host")
    return found


def loopback(name: str) -> str:
    """Return an address of this host for whoever has this name; others have others, mostly."""
    number = zlib.crc32(name.encode())
    return f"127.{64 + (number >> 16) % 64}.{(number >> 8) % 256}.{1 + number % 200}"

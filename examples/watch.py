"""Visitors of a fleet while it changes: they come again and again, and count the machines that answer."""

from __future__ import annotations

import ipaddress
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

PAUSE, PATIENCE = 0.3, 2.0
PLACES = 8
"""Machines get the lowest free addresses of their subnet."""


class Watch:
    """Ask all addresses that machines can have, at once, until told to stop; ``low`` is what a visit too few found."""

    def __init__(self, subnet: str, floor: int) -> None:
        hosts = list(ipaddress.IPv4Network(subnet).hosts())
        self._addresses = [str(address) for address in hosts[1 : PLACES + 1]]
        self._floor = floor
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=PLACES * 8)
        self._thread = threading.Thread(target=self._visit, daemon=True)
        self.times = 0
        self.low: int | None = None

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _visit(self) -> None:
        while not self._stop.wait(PAUSE):
            found = self._answering()
            self.times += 1
            if found < self._floor:
                self.low = found if self.low is None else min(found, self.low)

    def _answering(self) -> int:
        """Count the machines that answer, up to the floor: those that are absent would cost the whole patience."""
        found = 0
        for visit in as_completed([self._pool.submit(_answers, address) for address in self._addresses]):
            found += visit.result()
            if found >= self._floor:
                break
        return found


def _answers(address: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with suppress(OSError), direct.open(f"http://{address}/", timeout=PATIENCE) as page:
        return b"version" in page.read()
    return False

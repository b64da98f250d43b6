"""Who looks at a fleet while it changes: visitors that come through HAProxy, and somebody who counts the machines."""

from __future__ import annotations

import http.client
import ipaddress
import threading
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

PAUSE, PATIENCE = 0.3, 2.0
PLACES = 8
"""Machines get the lowest free addresses of their subnet."""
VISITORS, REST, LONG = 4, 0.02, 10.0
"""Visitors that come at the same time, seconds between two requests of one, and those after which it gives up."""


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


class Visitors:
    """Ask through HAProxy until told to stop, half of them on one connection; ``lost`` is what brought no page."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=(number % 2 == 0,), daemon=True) for number in range(VISITORS)
        ]
        self.seen: Counter[str] = Counter()
        self.lost: list[str] = []

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _visit(self, stays: bool) -> None:
        connection = http.client.HTTPConnection(self._place, timeout=LONG)
        while not self._stop.wait(REST):
            try:
                self.seen[_asked(connection)] += 1
            except (OSError, http.client.HTTPException) as err:
                self.lost.append(repr(err))
                connection.close()
            if not stays:
                connection.close()
        connection.close()


def _asked(connection: http.client.HTTPConnection) -> str:
    """Return the version that the page shows."""
    connection.request("GET", "/")
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status != 200 or "version " not in text:
        raise http.client.HTTPException(f"{answer.status}: {text[:80]}")
    return text.partition("version ")[2].partition("<")[0]

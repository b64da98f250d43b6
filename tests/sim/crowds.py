"""Many lives and stories at once, on every core."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
LONGEST = 60
"""Seconds of CPU that one life may take; most take a fifth of one."""


def on_every_core(work: Callable[[T], R], parts: Iterable[T]) -> list[R]:
    """Return what the parts come to, in processes of their own."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("forkserver")) as pool:
        return list(pool.map(work, parts))


@contextmanager
def in_time() -> Iterator[None]:
    """Raise where something never ends: who hangs would outlive its test."""

    def ring(_signum: int, _frame: object) -> None:
        raise AssertionError(f"it has not ended after {LONGEST} s")

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)

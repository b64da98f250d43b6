"""The phases that a layer is built in: who hears that one begins, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str], None]
"""Called with the name of a phase as it begins."""

_SECONDS: ContextVar[dict[str, float] | None] = ContextVar("seconds", default=None)
_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Count the block as this phase; one that comes again adds to the first."""
    seconds, listener = _SECONDS.get(), _LISTENER.get()
    if listener:
        listener(name)
    began = time.monotonic()
    try:
        yield
    finally:
        if seconds is not None:
            seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - began, 3)


@contextmanager
def recorded() -> Iterator[dict[str, float]]:
    """Give the seconds of each phase of the block, in the order in which they began to end."""
    seconds: dict[str, float] = {}
    token = _SECONDS.set(seconds)
    try:
        yield seconds
    finally:
        _SECONDS.reset(token)


@contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """Let ``listener`` hear each phase of the block that begins in this process."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def told(seconds: dict[str, float]) -> str:
    """Return the phases as a sentence has them, ``prepare 0.9 s, states 3.4 s``, without those that took nothing."""
    return ", ".join(f"{name} {took:.1f} s" for name, took in seconds.items() if took >= 0.05)

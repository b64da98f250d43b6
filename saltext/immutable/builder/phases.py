"""The phases of building a layer: report that one begins, and measure how long each takes."""

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
    """Run the block as the phase ``name``. The seconds of several blocks of one name are added up."""
    seconds, listener = _SECONDS.get(), _LISTENER.get()
    if listener:
        listener(name)
    began = time.monotonic()
    try:
        yield
    finally:
        if seconds is not None:
            seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - began, 3)


def say(what: str) -> None:
    """Report something about the phase that runs."""
    if listener := _LISTENER.get():
        listener(what)


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Give a mapping that gets the seconds of each phase in the block, in the order in which the phases end."""
    seconds: dict[str, float] = {}
    token = _SECONDS.set(seconds)
    try:
        yield seconds
    finally:
        _SECONDS.reset(token)


@contextmanager
def report_to(listener: Listener) -> Iterator[None]:
    """Call ``listener`` with the name of each phase that begins in the block, in this process."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def summary(seconds: dict[str, float]) -> str:
    """Return the phases as text, ``prepare 0.9 s, states 3.4 s``. Phases below 0.05 s are left out."""
    return ", ".join(f"{name} {took:.1f} s" for name, took in seconds.items() if took >= 0.05)

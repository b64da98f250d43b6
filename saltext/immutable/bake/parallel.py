"""Several recipes in one go: a parent before its children, independent ones at the same time, each in a process.

A process of its own is what can be ended in order: with one Ctrl-C each bake undoes what it did.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import minions
from saltext.immutable.bake import bake as baking
from saltext.immutable.bake.context import Progress
from saltext.immutable.spec import reading
from saltext.immutable.spec.model import Definitions

_PR_SET_PDEATHSIG = 1
"""prctl(2)"""
Report = dict[str, Any]


def bake(given: object, opts: Mapping[str, Any], *, say: Progress, **how: Any) -> Report:
    """Bake what was named: one recipe, which returns its report, or several, which return recipes, failed, retcode."""
    names = recipes(given)
    if len(names) == 1:
        return baking.bake(names[0], opts, say=say, **how)
    needs = parents(names, minions.definitions(opts))

    def one(name: str, say: Progress) -> Report:
        return baking.bake(name, opts, say=say, **how)

    began = time.monotonic()
    reports = Together(needs, one, say, len(os.sched_getaffinity(0))).run()
    failed = [name for name in names if "error" in reports[name]]
    found = {"recipes": {name: reports[name] for name in names}, "failed": failed}
    return {**found, "seconds": round(time.monotonic() - began, 3), "retcode": int(bool(failed))}


def recipes(given: object) -> tuple[str, ...]:
    """Return the names in ``a,b,c`` or a list, each once."""
    words = given.split(",") if isinstance(given, str) else given
    try:
        found = tuple(dict.fromkeys(word.strip() for word in reading.words(words) if word.strip()))
    except ValueError as err:
        raise SaltInvocationError(f"name: {err}") from err
    if not found:
        raise SaltInvocationError("name: no recipe is named; write web, or base,web")
    return found


def parents(names: Sequence[str], definitions: Definitions) -> dict[str, set[str]]:
    """Return for each recipe those of the others that it is built from."""
    if missing := [name for name in names if name not in definitions.recipes]:
        told = reading.nearest(missing[0], definitions.recipes)
        raise SaltInvocationError(f"immutable:recipes: there is no recipe {missing[0]!r}; {told}")
    chains = {name: {recipe.name for recipe in definitions.chain(name)} for name in names}
    return {name: chain.intersection(names) - {name} for name, chain in chains.items()}


@dataclass
class Together:
    """Runs ``one(name, say)`` for each name as soon as what it ``needs`` is there, ``at_once`` at a time."""

    needs: Mapping[str, set[str]]
    one: Callable[[str, Progress], Report]
    say: Progress
    at_once: int
    reports: dict[str, Report] = field(default_factory=dict)
    running: dict[Connection, tuple[str, int]] = field(default_factory=dict)

    def run(self) -> dict[str, Report]:
        """Return what each returned, or ``error``: why there is nothing. What failed stops only what needs it."""
        with self._ended():
            while len(self.reports) < len(self.needs):
                self._start()
                for pipe in wait(list(self.running)) if self.running else ():
                    assert isinstance(pipe, Connection)
                    self._hear(pipe)
        return self.reports

    def _start(self) -> None:
        begun = {*self.reports, *(name for name, _ in self.running.values())}
        for name in (name for name in self.needs if name not in begun):
            if failed := sorted(need for need in self.needs[name] if "error" in self.reports.get(need, {})):
                self._end(name, {"error": f"not baked, as {failed[0]} failed"})
                return self._start()  # others may need this one
            if len(self.running) < self.at_once and self.needs[name] <= set(self.reports):
                pipe, pid = _fork(name, self.one)
                self.running[pipe] = (name, pid)
        return None

    def _hear(self, pipe: Connection) -> None:
        name, pid = self.running[pipe]
        try:
            kind, what = pipe.recv()
        except (EOFError, OSError):
            kind, what = "end", {"error": "its process was killed"}
        if kind == "say":
            message, tag, data = what
            self.say(f"{name}: {message}", tag, **data)
            return
        del self.running[pipe]
        pipe.close()
        os.waitpid(pid, 0)
        self._end(name, what)

    def _end(self, name: str, report: Report) -> None:
        self.reports[name] = report
        if "error" in report:
            self.say(f"{name}: failed: {report['error']}", "image/failed", recipe=name, error=report["error"])

    @contextmanager
    def _ended(self) -> Iterator[None]:
        """End what is still at work in the end, and wait until it has undone what it did."""
        try:
            yield
        finally:
            for _, pid in self.running.values():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            for pipe, (_, pid) in self.running.items():
                _drain(pipe)
                os.waitpid(pid, 0)


def _drain(pipe: Connection) -> None:
    """Read what a process still says: it could not end while nobody takes it."""
    with closing(pipe), suppress(EOFError, OSError):
        while True:
            pipe.recv_bytes()


def _fork(name: str, one: Callable[[str, Progress], Report]) -> tuple[Connection, int]:
    """Start one; return where to hear it, and its pid. Not by multiprocessing: a scheduled job may have no children."""
    ours, theirs = Pipe(duplex=False)
    parent, pid = os.getpid(), os.fork()
    if pid:
        theirs.close()
        return ours, pid
    try:
        ours.close()
        _alone(parent)
        theirs.send(("end", _done(name, one, lambda message, tag, **data: theirs.send(("say", (message, tag, data))))))
    finally:
        os._exit(0)


def _alone(parent: int) -> None:
    """End with the parent, and not with its terminal: that would be a second signal in the midst of undoing."""
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise KeyboardInterrupt


def _interrupted(*_: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _once)  # not SIG_IGN, which commands would inherit
    raise KeyboardInterrupt


def _once(*_: object) -> None:
    """Do nothing: we are ending already."""


def _done(name: str, one: Callable[[str, Progress], Report], say: Progress) -> Report:
    try:
        return one(name, say)
    except (CommandExecutionError, SaltInvocationError) as err:
        return {"error": str(err)}
    except (KeyboardInterrupt, SystemExit):
        return {"error": "interrupted"}
    except Exception:
        return {"error": f"a defect of saltext-immutable:\n{traceback.format_exc()}"}

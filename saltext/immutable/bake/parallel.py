"""Bake several recipes with one command: a parent before its children, independent recipes at the same time.

Each bake is a process of its own, which SIGTERM ends: it undoes what it did, as one bake does on Ctrl-C.
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
"""Option of prctl(2): the signal that the kernel sends to a process when its parent dies."""
Report = dict[str, Any]
BakeOne = Callable[[str, Progress], Report]
"""Bakes the recipe of a name and returns its report."""


def bake(given: object, opts: Mapping[str, Any], *, progress: Progress, **how: Any) -> Report:
    """Bake the recipes that ``given`` names, ``a,b,c`` or a list; ``how`` goes to `bake.bake`.

    Returns the report of one recipe. Of several: recipes (a report each, or ``error``), failed (names), seconds, and
    retcode (1 if any failed). Raises SaltInvocationError for an unknown recipe.
    """
    names = recipes(given)
    if len(names) == 1:
        return baking.bake(names[0], opts, progress=progress, **how)
    parents = parents_of(names, minions.definitions(opts))

    def bake_one(name: str, progress: Progress) -> Report:
        return baking.bake(name, opts, progress=progress, **how)

    began = time.monotonic()
    reports = ParallelBakes(parents, bake_one, progress, len(os.sched_getaffinity(0))).run()
    failed = [name for name in names if "error" in reports[name]]
    found = {"recipes": {name: reports[name] for name in names}, "failed": failed}
    return {**found, "seconds": round(time.monotonic() - began, 3), "retcode": int(bool(failed))}


def recipes(given: object) -> tuple[str, ...]:
    """Return the names in ``a,b,c`` or in a list, each once. Raises SaltInvocationError for anything else."""
    try:
        return reading.names(given)
    except ValueError as err:
        raise SaltInvocationError(f"name: {err}") from err


def parents_of(names: Sequence[str], definitions: Definitions) -> dict[str, set[str]]:
    """Return for each recipe those of the others that it is built from, or whose channel it is built from."""
    if missing := [name for name in names if name not in definitions.recipes]:
        hint = reading.nearest(missing[0], definitions.recipes)
        raise SaltInvocationError(f"immutable:recipes: there is no recipe {missing[0]!r}; {hint}")
    return {name: definitions.ancestors(name).intersection(names) - {name} for name in names}


@dataclass
class ParallelBakes:
    """Bakes of several recipes. Each begins as soon as its parents are baked and fewer than ``at_once`` run."""

    parents: Mapping[str, set[str]]
    """By recipe: those of the others that it is built from."""
    bake_one: BakeOne
    progress: Progress
    at_once: int
    reports: dict[str, Report] = field(default_factory=dict)
    """By recipe, when its bake has ended."""
    running: dict[Connection, tuple[str, int]] = field(default_factory=dict)
    """Recipe and pid of each bake that runs, by the pipe that its messages come from."""

    def run(self) -> dict[str, Report]:
        """Return the report of each bake; one that failed has ``error``. Only its children are not baked then."""
        with self._stopped_at_the_end():
            while len(self.reports) < len(self.parents):
                self._start()
                for pipe in wait(list(self.running)) if self.running else ():
                    assert isinstance(pipe, Connection)
                    self._receive(pipe)
        return self.reports

    def _start(self) -> None:
        begun = {*self.reports, *(name for name, _ in self.running.values())}
        for name in (name for name in self.parents if name not in begun):
            if failed := sorted(parent for parent in self.parents[name] if "error" in self.reports.get(parent, {})):
                self._finish(name, {"error": f"not baked, as {failed[0]} failed"})
                return self._start()  # others may need this one
            if len(self.running) < self.at_once and self.parents[name] <= set(self.reports):
                pipe, pid = _fork(name, self.bake_one)
                self.running[pipe] = (name, pid)
        return None

    def _receive(self, pipe: Connection) -> None:
        """Take one message of a bake: progress, or its report."""
        name, pid = self.running[pipe]
        try:
            kind, content = pipe.recv()
        except (EOFError, OSError):
            kind, content = "report", {"error": "its process was killed"}
        if kind == "progress":
            message, tag, data = content
            self.progress(f"{name}: {message}", tag, **data)
            return
        del self.running[pipe]
        pipe.close()
        os.waitpid(pid, 0)
        self._finish(name, content)

    def _finish(self, name: str, report: Report) -> None:
        self.reports[name] = report
        if "error" in report:
            self.progress(f"{name}: failed: {report['error']}", "image/failed", recipe=name, error=report["error"])

    @contextmanager
    def _stopped_at_the_end(self) -> Iterator[None]:
        """Stop the bakes that still run when the block ends, and wait until they have undone what they did."""
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
    """Read a bake's messages to the end: it could not exit while the pipe is full."""
    with closing(pipe), suppress(EOFError, OSError):
        while True:
            pipe.recv_bytes()


def _fork(name: str, bake_one: BakeOne) -> tuple[Connection, int]:
    """Start a bake; return the pipe that its messages come from, and its pid.

    `multiprocessing.Process` would refuse: a job of the master's scheduler is a daemon, which may have no children.
    """
    ours, theirs = Pipe(duplex=False)
    parent, pid = os.getpid(), os.fork()
    if pid:
        theirs.close()
        return ours, pid
    try:
        ours.close()
        _detach(parent)
        report = _report(
            name, bake_one, lambda message, tag, **data: theirs.send(("progress", (message, tag, data)))
        )
        theirs.send(("report", report))
    finally:
        os._exit(0)


def _detach(parent: int) -> None:
    """Have this process end with its parent, but not by Ctrl-C: that would be a second signal while it undoes."""
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise KeyboardInterrupt


def _interrupt(*_: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)  # not SIG_IGN, which commands would inherit
    raise KeyboardInterrupt


def _ignore(*_: object) -> None:
    """Do nothing: the process ends already."""


def _report(name: str, bake_one: BakeOne, progress: Progress) -> Report:
    """Return the report of a bake; one that failed has ``error`` alone."""
    try:
        return bake_one(name, progress)
    except (CommandExecutionError, SaltInvocationError) as err:
        return {"error": str(err)}
    except (KeyboardInterrupt, SystemExit):
        return {"error": "interrupted"}
    except Exception:
        return {"error": f"a defect of saltext-immutable:\n{traceback.format_exc()}"}

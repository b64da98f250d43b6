"""The exhaustive tests: marked as such, run by `make test-full`, and divided into slices for CI.

::

    @full("boots a machine in emulation", minutes=8)
    def test_it_boots(): ...

    pytest.param("oci", marks=full("exports and kills", minutes=1))

`make test` skips them and says why, ``IMMUTABLE_FULL=1`` runs them as well, and ``IMMUTABLE_SLICE=3/8`` runs the third
of eight slices of them and nothing else. Each is in exactly one slice. A file's exhaustive tests share what they set
up, so they go together, unless they are marked ``apart``. Slices are divided by minutes, and only by what is marked in
the tests that pytest collects: the same tree gives the same slices everywhere.

A test that tries more in the full run has its further parts as parameters marked ``full``: nothing runs twice.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MARK = "full(reason, minutes, apart): runs in `make test-full` only; minutes on two idle cores; apart from its file"


@dataclass(frozen=True)
class Slice:
    """The ``number``-th, from 1, of so many parts of the exhaustive tests."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def read(cls, text: str) -> Slice:
        """Read ``3/8``; raise ``ValueError`` for anything else."""
        found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
        if not found or int(found[1]) > int(found[2]):
            raise ValueError(f"SLICE={text}: write k/n with k from 1 to n, for example SLICE=3/8")
        return cls(int(found[1]), int(found[2]))


def full(reason: str, *, minutes: float, apart: bool = False) -> pytest.MarkDecorator:
    """Mark a test, a parameter or a file whose tests run in the full run only.

    ``minutes`` is what one test takes on two idle cores, a share of its fixtures included. ``apart``: it needs nothing
    of its file's other tests, and may be in another slice.
    """
    return pytest.mark.full(reason=reason, minutes=minutes, apart=apart)


def divided(minutes: Mapping[str, float], of: int) -> list[list[str]]:
    """Return the names in so many slices of about equal minutes: the longest first, each into the emptiest slice."""
    slices: list[list[str]] = [[] for _ in range(of)]
    taken = [0.0] * of
    for name in sorted(minutes, key=lambda one: (-minutes[one], one)):
        emptiest = taken.index(min(taken))
        slices[emptiest].append(name)
        taken[emptiest] += minutes[name]
    return slices


def may_hold(path: Path) -> bool:
    """Tell whether a file may hold exhaustive tests: only such are collected for a slice."""
    return path.suffix == ".py" and "full(" in path.read_text()


def unit(item: pytest.Item) -> str | None:
    """Return with what a test goes into a slice: its file, or itself where it is apart; None: it is not exhaustive."""
    mark = item.get_closest_marker("full")
    if mark is None:
        return None
    return item.nodeid if mark.kwargs["apart"] else item.nodeid.partition("::")[0]


def weights(items: Iterable[pytest.Item]) -> dict[str, float]:
    """Return the minutes of each unit."""
    found: Counter[str] = Counter()
    for item in items:
        mark, name = item.get_closest_marker("full"), unit(item)
        if mark is not None and name is not None:
            found[name] += mark.kwargs["minutes"]
    return dict(found)


def chosen(items: Sequence[pytest.Item], wanted: Slice) -> list[pytest.Item]:
    """Return the tests of a slice, in the order in which they came."""
    names = set(divided(weights(items), wanted.of)[wanted.number - 1])
    return [item for item in items if unit(item) in names]


def commit() -> str:
    """Return the commit that is checked out, as far as git knows."""
    words = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty"]
    try:
        done = subprocess.run([*words, "--exclude=*"], capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


class Plugin:
    """What pytest does about the marks."""

    def __init__(self, is_full: bool, wanted: Slice | None) -> None:
        self._full, self._wanted = is_full, wanted
        self._weights: dict[str, float] = {}
        self._units: dict[str, str] = {}
        self._seconds: Counter[str] = Counter()
        self._empty = False
        """The slice holds no test, because there are more slices than units."""

    @classmethod
    def from_environment(cls) -> Plugin:
        """Read ``IMMUTABLE_FULL`` and ``IMMUTABLE_SLICE``."""
        text = os.environ.get("IMMUTABLE_SLICE")
        try:
            return cls(bool(os.environ.get("IMMUTABLE_FULL")), Slice.read(text) if text else None)
        except ValueError as err:
            raise pytest.UsageError(str(err)) from err

    def pytest_report_header(self) -> str | None:
        return f"exhaustive tests: {self._about()}" if self._wanted else None

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        return True if self._wanted and collection_path.is_file() and not may_hold(collection_path) else None

    @pytest.hookimpl(tryfirst=True)  # before -k and -m: what is in a slice depends on neither
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        self._weights = weights(items)
        if self._wanted:
            kept = chosen(items, self._wanted)
            self._empty = not kept and len(self._weights) < self._wanted.of and bool(self._weights)
            left = set(items) - set(kept)
            config.hook.pytest_deselected(items=[item for item in items if item in left])
            items[:] = kept
            self._units = {item.nodeid: name for item in kept if (name := unit(item))}
        elif not self._full:
            for item in items:
                if (mark := item.get_closest_marker("full")) is not None:
                    item.add_marker(pytest.mark.skip(reason=f"{mark.kwargs['reason']}: only in `make test-full`"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if name := self._units.get(report.nodeid):
            self._seconds[name] += report.duration

    @pytest.hookimpl(trylast=True)  # below the slowest durations
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say above pytest's closing line what was run, how long each unit took, and how to run it by hand."""
        if not self._wanted:
            return
        terminalreporter.section(f"slice {self._wanted}")
        for name in sorted(set(self._units.values())):
            took = self._seconds[name] / 60
            terminalreporter.write_line(f"{took:6.1f} min, marked {self._weights[name]:g}: {name}")
        if self._empty:
            terminalreporter.write_line("no test: there are fewer exhaustive units than slices")
        terminalreporter.write_line(self._about())

    def _about(self) -> str:
        return f"slice {self._wanted} of commit {commit()}; by hand: make test-full SLICE={self._wanted}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Let a slice pass that is empty by right. Any other run without a test keeps pytest's exit code 5."""
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self._empty:
            session.exitstatus = pytest.ExitCode.OK

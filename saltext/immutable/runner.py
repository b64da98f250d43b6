"""What all of our runner functions share: progress, errors as plain sentences, output for people."""

from __future__ import annotations

import logging
import queue
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import salt.exceptions
import salt.utils.event
from salt.exceptions import CommandExecutionError, SaltInvocationError


class PlainError(CommandExecutionError, salt.exceptions.NotImplemented):  # type: ignore[misc]
    """An error whose message is all that the operator needs.

    salt-run exits with 1 for any exception. It prints a traceback unless the exception is a ``NotImplemented`` of Salt
    (``salt.client.mixins.SyncClientMixin.low``).
    """


def _is_for_operators(record: logging.LogRecord) -> bool:
    """Return whether a log record belongs on a terminal. Salt warns of each of its own objects that it never closes."""
    return not (record.name.startswith("salt.") and str(record.msg).startswith("unclosed "))


def keep_terminal_clean() -> None:
    """Keep Salt's warnings about its own unclosed objects off the terminal; log files have those still that it logs."""
    warnings.filterwarnings("ignore", message="Unclosed transport!")  # of an event bus that was too slow to connect
    for handler in (*logging.root.handlers, logging.lastResort):  # the last one when salt-run has put its own away
        if handler is not None and getattr(handler, "stream", None) in (sys.stderr, sys.stdout):
            handler.addFilter(_is_for_operators)


def refusal(sentence: str) -> PlainError:
    """Return the error for a call that is refused before its function runs."""
    keep_terminal_clean()
    return PlainError(sentence)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise `PlainError` in place of the errors that are meant for the operator: no traceback is printed."""
    keep_terminal_clean()
    try:
        yield
    except (CommandExecutionError, SaltInvocationError) as err:
        raise PlainError(str(err)) from err
    except (KeyboardInterrupt, SystemExit) as err:  # what salt-run makes of Ctrl-C and SIGTERM
        raise PlainError("interrupted. The work was undone, or the same command continues it") from err
    except TypeError as err:
        # Salt would take a TypeError for wrong arguments, print the function's help, and exit with 0.
        raise RuntimeError(f"a defect of saltext-immutable: {err}") from err


def _reads_stderr(opts: Mapping[str, Any]) -> bool:
    """Return whether a person at salt-run reads what is printed on standard error."""
    return opts.get("__cli") == "salt-run" and not opts.get("quiet")


WARNS_WITHIN = 5.0
"""Seconds for which a command waits for its warnings: an order must not wait for a host that is dead."""


def warned(opts: Mapping[str, Any], look: Callable[[], Sequence[str]]) -> list[str]:
    """Print what an operator must know before anything else is printed, and return it: a command may fail or take long.

    ``look`` finds that out, in a thread; what it has not found within `WARNS_WITHIN` is left out.
    """
    found: queue.SimpleQueue[Sequence[str] | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            found.put(look())
        except BaseException as err:
            found.put(err)

    threading.Thread(target=work, daemon=True).start()
    try:
        warnings = found.get(timeout=WARNS_WITHIN)
    except queue.Empty:
        return []
    if isinstance(warnings, BaseException):
        raise warnings
    if _reads_stderr(opts):
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr, flush=True)
    return list(warnings)


class Progress:
    """Reports progress as events, and on the standard error of salt-run, so that ``--out=json`` stays JSON."""

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self._bus = salt.utils.event.get_master_event(dict(opts), opts["sock_dir"], listen=False)
        self._to_stderr = _reads_stderr(opts)

    def __call__(self, message: str, tag: str, **data: Any) -> None:
        """Print ``message``, and fire it with ``data`` as the event ``immutable/<tag>``."""
        if self._to_stderr:
            print(message, file=sys.stderr, flush=True)
        with suppress(OSError):  # a master that restarts must not stop the work
            self._bus.fire_event({"message": message, **data}, f"immutable/{tag}")

    def close(self) -> None:
        """Leave the event bus."""
        self._bus.destroy()


Formatter = Callable[[Mapping[str, Any], int], str]
"""Returns data as text for people; the second argument is the width of a line in columns."""
_WIDTH = 200
"""Columns where the output is no terminal."""


def output(opts: Mapping[str, Any], data: dict[str, Any], formatter: Formatter | None = None) -> dict[str, Any]:
    """Return the answer of a runner function: ``data``, or for a person at salt-run who gave no ``--out`` an outputter.

    The outputter prints the text of ``formatter``, or else YAML without the timeline, which was printed as it happened.
    """
    by_hand = opts.get("__cli") == "salt-run" and str(opts.get("fun")).startswith(("fleet.", "image."))
    if not by_hand or opts.get("output"):
        return data
    if formatter is not None:
        return {"outputter": "txt", "data": formatter(data, shutil.get_terminal_size((_WIDTH, 0)).columns)}
    return {"outputter": "yaml", "data": {name: value for name, value in data.items() if name != "timeline"}}


@contextmanager
def reporting(opts: Mapping[str, Any]) -> Iterator[Progress]:
    """Give a `Progress` to report with; errors are raised as by `plain_errors`."""
    with plain_errors():
        progress = Progress(opts)
        try:
            yield progress
        finally:
            progress.close()

"""What every runner of ours does about progress and errors."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import salt.exceptions
import salt.utils.event
from salt.exceptions import CommandExecutionError, SaltInvocationError


class PlainError(CommandExecutionError, salt.exceptions.NotImplemented):  # type: ignore[misc]
    """An error that says all there is to say.

    salt-run exits with 1 for any exception, and prints its traceback unless it is of the second class
    (``salt.client.mixins.SyncClientMixin.low``).
    """


@contextmanager
def plainly() -> Iterator[None]:
    """Let errors that are meant for the operator arrive as their sentence, without a traceback."""
    try:
        yield
    except (CommandExecutionError, SaltInvocationError) as err:
        raise PlainError(str(err)) from err
    except (KeyboardInterrupt, SystemExit) as err:  # what salt-run makes of Ctrl-C and SIGTERM
        raise PlainError("interrupted; what was under way is undone or carried on by the same command") from err
    except TypeError as err:
        # Salt would take it for wrong arguments, print how to call us, and exit with 0.
        raise RuntimeError(f"a defect of saltext-immutable: {err}") from err


class Progress:
    """Tells of progress: on the event bus, and live on salt-run's standard error, so that ``--out=json`` stays JSON."""

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self._bus = salt.utils.event.get_master_event(dict(opts), opts["sock_dir"], listen=False)
        self._aloud = opts.get("__cli") == "salt-run" and not opts.get("quiet")

    def __call__(self, message: str, tag: str, **data: Any) -> None:
        """Say a sentence, and fire it with ``data`` as ``immutable/<tag>``."""
        if self._aloud:
            print(message, file=sys.stderr, flush=True)
        with suppress(OSError):  # a master that restarts must not stop what we tell of
            self._bus.fire_event({"message": message, **data}, f"immutable/{tag}")

    def close(self) -> None:
        """Leave the event bus."""
        self._bus.destroy()


Text = Callable[[Mapping[str, Any], int], str]
"""Makes what people read of data, in lines of so many columns at most."""
_PIPE = 200
"""Columns where there is no terminal."""


def shown(opts: Mapping[str, Any], data: dict[str, Any], text: Text | None = None) -> dict[str, Any]:
    """Return ``data`` as it is, but to a person at salt-run without ``--out`` as what ``text`` makes of it, else as
    YAML without what was told live.
    """
    typed = opts.get("__cli") == "salt-run" and str(opts.get("fun")).startswith(("fleet.", "image."))
    if not typed or opts.get("output"):
        return data
    if text is not None:
        return {"outputter": "txt", "data": text(data, shutil.get_terminal_size((_PIPE, 0)).columns)}
    return {"outputter": "yaml", "data": {name: value for name, value in data.items() if name != "timeline"}}


@contextmanager
def telling(opts: Mapping[str, Any]) -> Iterator[Progress]:
    """Give a voice, and let errors arrive plainly."""
    with plainly():
        progress = Progress(opts)
        try:
            yield progress
        finally:
            progress.close()

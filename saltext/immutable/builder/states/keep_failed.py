"""Keep the machine of a bake whose states failed for a while, so that somebody can look into it and try again.

The bake waits meanwhile, so nothing new has to be cleaned up: when the time is over, on Ctrl-C, or when the mark in the
machine is gone, it ends as it would have ended at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.finish import secrets
from saltext.immutable.builder.phases import phase
from saltext.immutable.machines import qemu
from saltext.immutable.machines.description import Machine

MARK = "/run/immutable-kept"
_LOOK = 1.0
"""Seconds between two looks at the mark."""


@contextmanager
def if_failed(
    machine: Machine,
    order: Mapping[str, Any],
    secret_values: Sequence[secrets.Secret],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Wait before the error of the block is raised. ``order``: recipe, and keep_failed (seconds; 0: do not wait)."""
    try:
        yield
    except CommandExecutionError as err:
        if within := float(order.get("keep_failed") or 0):
            message = secrets.redact(str(err), secret_values)
            # One that has ended cannot be kept, and the error that counts is that of the states.
            with phase(f"{message}\n{_explain(order['recipe'], within)}"), suppress(CommandExecutionError):
                _wait(machine, within, sleep)
        raise


def is_kept(machine: Machine) -> bool:
    """Return whether the bake of a machine has failed and waits, as far as one can tell while it runs a command."""
    try:
        return not machine.run(["test", "-e", MARK]).returncode
    except qemu.Busy:
        return True


def _explain(recipe: str, within: float) -> str:
    return (
        f"its machine is kept for {within:.0f} s: `salt-run image.shell {recipe}@failed` enters it, and there\n"
        f"`salt-call state.sls_id ID SLS` applies one state again; `rm {MARK}` there, or Ctrl-C here, ends it"
    )


def _wait(machine: Machine, within: float, sleep: Callable[[float], None]) -> None:
    until = time.monotonic() + within
    machine.run(["touch", MARK])
    while time.monotonic() < until and is_kept(machine):
        sleep(_LOOK)

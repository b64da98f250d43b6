"""Which processes of a sealed machine may get which signals, and what of a process is told.

`unfit` is pure. `protected` reads what runs. Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

SIGNALS = frozenset({1, 2, 3, 9, 10, 12, 15, 18, 28})
"""HUP, INT, QUIT, KILL, USR1, USR2, TERM, CONT and WINCH. By those from 34 on systemd ends the machine, or stops doing
its work; STOP lets a process look alive."""
NAMES = ("init", "python", "salt-minion", "systemd")
"""Of what a machine cannot be without: no pattern may be in one, and none but init in a pattern."""
_OF_PKILL, _OF_KILL_PID = "ps.pkill", "ps.kill_pid"
_POSITIONS = {_OF_KILL_PID: 1, _OF_PKILL: 2}
"""Of ``signal``."""


def unfit(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return why a call may not send its signal, or tell what it would, or None."""
    if fun == "ps.proc_info":
        attrs = args[1] if len(args) > 1 else kwargs.get("attrs")
        if isinstance(attrs, list | tuple) and attrs and "environ" not in attrs:
            return None
        return "its attrs must be a list without environ: variables are secret"
    if fun not in _POSITIONS:
        return None
    place, target = _POSITIONS[fun], _target(fun, args, kwargs)
    signal = args[place] if len(args) > place else kwargs.get("signal", 15)
    if type(signal) is not int or signal not in SIGNALS:
        return f"on a sealed machine it sends only the signals {', '.join(map(str, sorted(SIGNALS)))}"
    if fun == _OF_KILL_PID:
        return None if type(target) is int and target > 1 else "it takes the number of a process, and not that of init"
    if not isinstance(target, str) or not target or _reaches_them(target):
        return f"it takes a pattern that matches none of {', '.join(NAMES)}"
    return None


def _reaches_them(pattern: str) -> bool:
    """Tell whether a pattern could match what a machine cannot be without. A name that holds ``init`` is not init."""
    return any(pattern in name or (name in pattern and name != "init") for name in NAMES)


def protected(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any], proc: str = "/proc") -> str | None:
    """Return which process that this call would signal belongs to systemd or Salt; None if none does."""
    if fun not in _POSITIONS:
        return None
    target = _target(fun, args, kwargs)
    pids = [str(target)] if fun == _OF_KILL_PID else [name for name in os.listdir(proc) if name.isdecimal()]
    for pid in pids:
        comm, command = _read(f"{proc}/{pid}/comm").strip(), _read(f"{proc}/{pid}/cmdline")
        if fun == _OF_PKILL and str(target) not in f"{comm} {command}":
            continue
        words = (comm, os.path.basename(command.split("\0")[0]))
        if pid == "1" or "salt-minion" in command or any(word == "init" or word[:7] == "systemd" for word in words):
            return f"{comm} (pid {pid})"
    return None


def _target(fun: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return args[0] if args else kwargs.get("pid" if fun == _OF_KILL_PID else "pattern")


def _read(path: str) -> str:
    """Return the text of a file, "" if the process has ended."""
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""

"""The record of what a bake takes from outside: what it asks the master for, and what no key can see.

Runs in the machine that bakes. A line of the file is one observation, a list whose first word says what it is:

- ``file, env, path, found``: this file was asked for
- ``given, env, path, hash``: this is what the master gave
- ``list, env, prefix``: the names of what is there
- ``has, env, path``: whether this name is in the list of files and folders
- ``sls, env, pattern``: which state files have such names
- ``envs``: the names of the environments
- ``state, sls, id, function, hash``: a state that was applied
- ``unproven, sentence``: what no key can see
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from saltext.immutable.builder.states import custom_code

_FILES = ("_serve_file", "_file_hash", "_file_find", "_file_hash_and_stat")
_ASKED = {
    "_mine_get": "asks the mine",
    "minion_pub": "asks other minions",
    "minion_runner": "asks the master's runners",
}
_INNER = ("__run_num__", "order")
"""What a chunk of the low state has for Salt's own use."""


class Trace:
    """What was seen, each thing once."""

    def __init__(self, file: str, master: str, key: bytes) -> None:
        self.divert(file)
        self._master, self._key = master, key
        self.doing: list[str] = []
        """What is under way: files that are rendered, states that are applied; the innermost last."""
        self.proven = 0
        """States under way whose downloads have a hash."""
        self.quiet = 0
        """Lists under way that are told of more exactly."""
        self._envs: tuple[Any, ...] = ()
        """Of the pillar that the states have."""

    def divert(self, file: str) -> None:
        """Write into another file from now on, from the beginning."""
        self._out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._seen: set[str] = set()
        self.judged: set[str] = set()
        """Custom modules that were looked at."""

    def note(self, *what: Any) -> None:
        """Write an observation down, by one write, as several processes do."""
        line = json.dumps(what, default=repr)
        if line not in self._seen:
            self._seen.add(line)
            os.write(self._out, f"{line}\n".encode())

    def unproven(self, reason: str) -> None:
        """Write down that something cannot be proven, and in what."""
        self.note("unproven", f"{self.doing[-1] if self.doing else 'salt-call'} {reason}")

    def sent(self, load: Any) -> None:
        """Look at a request to the master."""
        command = load.get("cmd") if isinstance(load, dict) else None
        if command in _FILES:
            self.note("file", load.get("saltenv"), load.get("path"), False)
        elif command in _ASKED:
            self.unproven(_ASKED[command])
        elif command == "_file_envs":
            self.note("envs")
        elif command == "_pillar":
            self._compiled((load.get("saltenv"), load.get("pillarenv")), load.get("pillar_override") or load.get("ext"))

    def _compiled(self, envs: tuple[Any, ...], more: Any) -> None:
        """Look at a request for a pillar: the key has that which the states have from the beginning."""
        if not self.doing:
            self._envs = envs
        elif more or envs != self._envs:
            self.unproven("compiles a pillar of its own")

    def audited(self, event: str, details: Sequence[Any]) -> None:
        """Look at what Python says that it does: connections, and commands of custom modules."""
        if event == "socket.connect" and isinstance(details[1], tuple) and not self.proven:
            host = str(details[1][0])
            if not host.startswith("127.") and host not in ("::1", "0.0.0.0", self._master):
                self.unproven(f"talks to {host}")
        elif event in ("subprocess.Popen", "os.system", "os.posix_spawn") and (place := custom_code.at_work()):
            self.unproven(f"runs a command in {place}")
        elif event == "exec" and custom_code.is_python_of_the_tree(details[0]):
            custom_code.python(self, details[0].co_filename)

    def hash(self, low: dict[str, Any]) -> str:
        """Return the keyed hash of a state."""
        told = {name: value for name, value in low.items() if name not in _INNER}
        text = json.dumps(told, sort_keys=True, default=repr)
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[:16]


class raised:
    """Count an attribute up while the block runs."""

    def __init__(self, owner: Any, name: str) -> None:
        self._owner, self._name = owner, name

    def __enter__(self) -> None:
        setattr(self._owner, self._name, getattr(self._owner, self._name) + 1)

    def __exit__(self, *_: object) -> None:
        setattr(self._owner, self._name, getattr(self._owner, self._name) - 1)


def around(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a method of one of Salt's classes by one that is wrapped around it."""
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(wrap(original)))

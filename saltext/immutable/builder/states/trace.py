"""The record of what a bake takes from outside: what it requests from the master, and what no key can see.

Runs in the machine that bakes. A line of the file is one observation, a JSON list whose first word is its kind:

- ``file, env, path, found``: the bake requested this file
- ``given, env, path, hash``: the content that the master gave
- ``list, env, prefix``: the bake requested the list of names
- ``has, env, path``: it asked whether this name is in the list of files and folders
- ``sls, env, pattern``: it asked which state files have such names
- ``envs``: it asked for the names of the environments
- ``state, sls, id, function, hash``: a state that was applied
- ``unproven, sentence``: something that no key can see
- ``deferred, state, what, applied_by``: what a state left to the boot of a machine
- ``lost, state, what, place``: what a state did to the machine that bakes only; where it mounted something, or ''
- ``wrote, path, state``: a state of files was applied to this path
- ``service, unit, running``: a state declared that this unit is running, or dead
- ``asked, sentence, missing``: what was asked of the mine, of minions or of a secret store, and why it has no answer

Values of secret stores (sdb) are in a file of their own (`SECRETS`), which does not leave the machine that bakes as the
trace does: a line is a list of name and value.
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

_FILE_REQUESTS = ("_serve_file", "_file_hash", "_file_find", "_file_hash_and_stat")
_UNPROVEN_REQUESTS = {
    "_mine_get": "asks the mine",
    "minion_pub": "asks other minions",
    "minion_runner": "asks the master's runners",
}
SECRETS = ".secrets"
"""What is added to the name of the trace for the name of the file with values of secret stores."""
_NO_ANSWER = "nobody answered"
_NO_PROFILE = "neither config nor pillar of the minion that bakes has this profile, so the states have the URI itself"
_NO_MINION = "no minion runs in a bake, which would pass it on"
_TELLS_MINE = "_minion_mine"
_LONGEST = 100
"""Characters of what was asked in a sentence."""
_INTERNAL = ("__run_num__", "order")
"""Keys of a chunk of the low state that Salt adds itself."""


class Trace:
    """Records observations in a file, each once."""

    def __init__(self, file: str, master: str, key: bytes) -> None:
        self.divert(file)
        self._master, self._key = master, key
        self.in_progress: list[str] = []
        """The files that are being rendered and the states that are being applied, the innermost last."""
        self.proven = 0
        """Number of states in progress whose downloads have a hash."""
        self.quiet = 0
        """Number of list requests in progress that are recorded in more detail elsewhere."""
        self._envs: tuple[Any, ...] = ()
        """saltenv and pillarenv of the pillar that the states have."""
        self._published: dict[Any, str] = {}
        """What was asked of other minions, by the id of its job."""

    def divert(self, file: str) -> None:
        """Write into another file from now on, and forget what was recorded."""
        self._out, self._secrets = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), f"{file}{SECRETS}"
        self._seen: set[str] = set()
        self.checked: set[str] = set()
        """Files of custom modules that were checked."""

    def note(self, *what: Any) -> None:
        """Record an observation, with a single write: several processes use the file."""
        line = json.dumps(what, default=repr)
        if line not in self._seen:
            self._seen.add(line)
            os.write(self._out, f"{line}\n".encode())

    def append(self, *what: Any) -> None:
        """Record an observation of which the last one counts."""
        self._seen.discard(json.dumps(what, default=repr))
        self.note(*what)

    def unproven(self, reason: str) -> None:
        """Record that something cannot be proven, and in which state or file."""
        self.note("unproven", f"{self._where()} {reason}")

    def _where(self) -> str:
        return self.in_progress[-1] if self.in_progress else "salt-call"

    def record_secret(self, name: str, value: Any) -> None:
        """Record a value of a secret store. ``name``: its URI, which Salt gives itself where there is no such store."""
        self.unproven(f"asks a secret store ({name})")
        missing = _NO_PROFILE if value == name else _NO_ANSWER if value is None else ""
        self.append("asked", f"{self._where()} asked for {name}", missing)
        if missing:
            return
        out = os.open(self._secrets, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(out, f"{json.dumps([name, value], default=str)}\n".encode())
        os.close(out)

    def record_request(self, load: Any) -> None:
        """Record a request to the master. ``load``: its payload."""
        command = load.get("cmd") if isinstance(load, dict) else None
        if command in _FILE_REQUESTS:
            self.note("file", load.get("saltenv"), load.get("path"), False)
        elif command in _UNPROVEN_REQUESTS:
            self.unproven(_UNPROVEN_REQUESTS[command])
        elif command == "_file_envs":
            self.note("envs")
        elif command == "_pillar":
            override = load.get("pillar_override") or load.get("ext")
            self._record_pillar((load.get("saltenv"), load.get("pillarenv")), override)

    def record_event(self, tag: str) -> None:
        """Record an event by which a function tells the mine something. ``tag``: the tag of the event."""
        if tag == _TELLS_MINE:
            self.append("asked", f"{self._where()} told the mine", _NO_MINION)

    def record_answer(self, load: Any, answer: Any) -> None:
        """Record whether the mine or other minions had anything to say. ``load``: the payload of the request."""
        command = load.get("cmd") if isinstance(load, dict) else None
        if command == "_mine_get":
            self.append("asked", f"{self._where()} asked the mine for {_asked(load)}", "" if answer else _NO_ANSWER)
        elif command == "minion_pub":
            sentence = f"{self._where()} asked minions for {_asked(load)}"
            self._published[answer.get("jid") if isinstance(answer, dict) else None] = sentence
            self.append("asked", sentence, _NO_ANSWER)
        elif command == "pub_ret" and (asked := self._published.get(load.get("jid"))):
            self.append("asked", asked, "" if answer else _NO_ANSWER)

    def _record_pillar(self, envs: tuple[Any, ...], override: Any) -> None:
        """Record a request for a pillar. The first one is the pillar of the states, which the key covers."""
        if not self.in_progress:
            self._envs = envs
        elif override or envs != self._envs:
            self.unproven("compiles a pillar of its own")

    def audit_hook(self, event: str, details: Sequence[Any]) -> None:
        """Record connections, and commands of custom modules. See ``sys.addaudithook``."""
        if event == "socket.connect" and isinstance(details[1], tuple) and not self.proven:
            host = str(details[1][0])
            if not host.startswith("127.") and host not in ("::1", "0.0.0.0", self._master):
                self.unproven(f"connects to {host}")
        elif event in ("subprocess.Popen", "os.system", "os.posix_spawn") and (code := custom_code.running_code()):
            self.unproven(f"runs a command in {code}")
        elif event == "exec" and custom_code.is_python_of_the_tree(details[0]):
            custom_code.check_python(self, details[0].co_filename)

    def hash(self, low: dict[str, Any]) -> str:
        """Return the keyed hash of a state (a chunk of the low state)."""
        own = {name: value for name, value in low.items() if name not in _INTERNAL}
        text = json.dumps(own, sort_keys=True, default=repr)
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[:16]

    def derived(self, text: str) -> bytes:
        """Return 32 bytes that are the same for a text each time, and that nobody without the key can tell."""
        return hmac.digest(self._key, text.encode(), "sha256")


def _asked(load: dict[str, Any]) -> str:
    """Return the function of a request and the minions that it is for."""
    fun, target = load.get("fun"), load.get("tgt")
    return f"{', '.join(map(str, fun)) if isinstance(fun, list) else fun} of {target}"[:_LONGEST]


class counted:
    """Increase a counter, an attribute of ``owner``, while the block runs."""

    def __init__(self, owner: Any, name: str) -> None:
        self._owner, self._name = owner, name

    def __enter__(self) -> None:
        setattr(self._owner, self._name, getattr(self._owner, self._name) + 1)

    def __exit__(self, *_: object) -> None:
        setattr(self._owner, self._name, getattr(self._owner, self._name) - 1)


def wrap_method(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a method of one of Salt's classes by ``wrap(method)``."""
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(wrap(original)))

"""``salt-call`` that writes down what it takes from outside: what it asks the master for, and what no key can see.

Runs in the machine that bakes, by the image's own Python:
``python -m saltext.immutable.builder.states.tracing FILE MASTER salt-call ...``. It looks on and changes nothing;
states that run in processes of their own (``parallel``) are seen as well. A line of FILE is one observation, a list
whose first word says what it is:

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

import fnmatch
import functools
import glob
import hashlib
import hmac
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from saltext.immutable.builder.states import custom_code, minion_events
from saltext.immutable.builder.states import purity as unproven
from saltext.immutable.images.manifest import sha256

HASH_KEY = "IMMUTABLE_TRACE_KEY"
"""Variable with the key of the hashes of states, as states hold secrets."""
_FILES = ("_serve_file", "_file_hash", "_file_find", "_file_hash_and_stat")
_ASKED = {
    "_mine_get": "asks the mine",
    "minion_pub": "asks other minions",
    "minion_runner": "asks the master's runners",
}
_FILTERS = ("http_query", "dns_check")
_INNER = ("__run_num__", "order")
"""What a chunk of the low state has for Salt's own use."""
_PASSES_ON = ("bake/tracing.py", "salt/fileclient.py", "modules/cp.py")
_ALWAYS_USED = "/var/cache/salt/minion/extmods/{}/*.py"


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


def _caller() -> str:
    """Return the file, with its folder, of the code that asked for a list; what only passes it on is left out."""
    frame = sys._getframe()
    while frame is not None:
        place = "/".join(frame.f_code.co_filename.rsplit("/", 2)[1:])
        if not place.startswith("loader/") and place not in _PASSES_ON:
            return place
        frame = frame.f_back  # type: ignore[assignment]
    return ""


class Names(list):  # type: ignore[type-arg]
    """A list of names that tells what is asked of it: a member, or all of it.

    C code could read it past these methods, so only code of Salt that is known gets one.
    """

    def __init__(self, names: Sequence[str], member: Callable[[Any], None], whole: Callable[[], None]) -> None:
        super().__init__(names)
        self.member, self._whole = member, whole

    def __contains__(self, name: object) -> bool:
        self.member(name)
        return super().__contains__(name)

    def __iter__(self) -> Iterator[Any]:
        self._whole()
        return super().__iter__()

    def __getitem__(self, index: Any) -> Any:
        self._whole()
        return super().__getitem__(index)

    def __len__(self) -> int:
        self._whole()
        return super().__len__()

    def __eq__(self, other: object) -> bool:
        self._whole()
        return super().__eq__(other)

    def __add__(self, other: Any) -> Any:
        self._whole()
        return super().__add__(other)

    def __reduce__(self) -> Any:
        return (list, (list(self),))

    def matching(self, pattern: str) -> list[str]:
        """Return the names that fit a pattern, and tell of that alone."""
        self.member(pattern)
        return fnmatch.filter(list(super().__iter__()), pattern)


def _filter(names: Any, pattern: str) -> list[str]:
    return names.matching(pattern) if isinstance(names, Names) else fnmatch.filter(names, pattern)


def watch(trace: Trace) -> None:
    """Look on at Salt's own classes."""
    _watch_requests(trace)
    _watch_lists(trace)
    _watch_states(trace)
    _watch_templates(trace)
    sys.addaudithook(trace.audited)
    for kind in ("grains", "renderers"):
        for file in sorted(glob.glob(_ALWAYS_USED.format(kind))):
            custom_code.file(trace, file)


def _around(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(wrap(original)))


def _watch_requests(trace: Trace) -> None:
    import salt.channel.client
    import salt.fileclient
    import salt.utils.url

    def sending(original: Callable[..., Any]) -> Callable[..., Any]:
        def send(self: Any, load: Any, *args: Any, **kwargs: Any) -> Any:
            trace.sent(load)
            return original(self, load, *args, **kwargs)

        return send

    def hashing(original: Callable[..., Any]) -> Callable[..., Any]:
        def hash_file(self: Any, path: str, saltenv: str = "base") -> Any:
            answer = original(self, path, saltenv)
            found = answer[0] if isinstance(answer, tuple) else answer
            if found and str(path).startswith("salt://"):
                trace.note("file", saltenv, salt.utils.url.parse(path)[0], True)
            return answer

        return hash_file

    def getting(original: Callable[..., Any]) -> Callable[..., Any]:
        def get_file(
            self: Any, path: str, dest: str = "", makedirs: bool = False, saltenv: str = "base", *args: Any, **more: Any
        ) -> Any:
            place = original(self, path, dest, makedirs, saltenv, *args, **more)
            if isinstance(place, str) and os.path.isfile(place):
                plain, env = salt.utils.url.parse(path)
                trace.note("given", env or saltenv, plain, sha256(place))
            return place

        return get_file

    _around(salt.fileclient.RemoteClient, "get_file", getting)
    _around(salt.channel.client.AsyncReqChannel, "send", sending)
    _around(salt.channel.client.AsyncReqChannel, "crypted_transfer_decode_dictentry", sending)
    for name in ("hash_file", "hash_and_stat_file"):
        _around(salt.fileclient.RemoteClient, name, hashing)


def _watch_lists(trace: Trace) -> None:
    import salt.fileclient
    import salt.state

    client = salt.fileclient.RemoteClient

    def listing(original: Callable[..., Any]) -> Callable[..., Any]:
        def names(self: Any, saltenv: str = "base", prefix: str = "") -> Any:
            found = original(self, saltenv, prefix) if original.__name__ != "list_env" else original(self, saltenv)
            if trace.quiet:
                return found
            if prefix or not isinstance(found, list) or _caller() != "states/file.py":
                trace.note("list", saltenv, prefix)
                return found
            member, whole = (functools.partial(trace.note, kind, saltenv) for kind in ("has", "list"))
            return Names(found, member, lambda: whole(""))

        return names

    def states(original: Callable[..., Any]) -> Callable[..., Any]:
        def list_states(self: Any, saltenv: str) -> Any:
            with _raised(trace, "quiet"):
                found = original(self, saltenv)
            member = functools.partial(trace.note, "sls", saltenv)
            if _caller() != "salt/state.py":
                member("*")
                return found
            return Names(found, member, lambda: member("*"))

        return list_states

    def folder(original: Callable[..., Any]) -> Callable[..., Any]:
        def cache_dir(self: Any, path: str, saltenv: str = "base", *args: Any, **kwargs: Any) -> Any:
            trace.note("list", saltenv, str(path).removeprefix("salt://"))
            with _raised(trace, "quiet"):
                return original(self, path, saltenv, *args, **kwargs)

        return cache_dir

    for name in ("file_list", "file_list_emptydirs", "dir_list", "symlink_list", "list_env"):
        _around(client, name, listing)
    _around(client, "list_states", states)
    _around(client, "cache_dir", folder)
    # Only salt.state's own name: what it asks of its lists of states are patterns.
    salt.state.fnmatch = SimpleNamespace(**{**vars(fnmatch), "filter": _filter})


class _raised:
    """Count something up while the block runs."""

    def __init__(self, owner: Any, name: str) -> None:
        self._owner, self._name = owner, name

    def __enter__(self) -> None:
        setattr(self._owner, self._name, getattr(self._owner, self._name) + 1)

    def __exit__(self, *_: object) -> None:
        setattr(self._owner, self._name, getattr(self._owner, self._name) - 1)


def _watch_states(trace: Trace) -> None:
    import salt.state

    def calling(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, low: Any, *args: Any, **kwargs: Any) -> Any:
            name = f"{low.get('state')}.{low.get('fun')}"
            trace.note("state", low.get("__sls__"), low.get("__id__"), name, trace.hash(low))
            trace.doing.append(f"state {low.get('__id__')} ({name}) of {low.get('__sls__')}")
            reason = unproven.of_state(low)
            if reason:
                trace.unproven(reason)
            custom_code.custom(trace, self.states, name)
            for function in unproven.calls(low):
                custom_code.custom(trace, self.functions, function)
            proven = _Null() if reason or "source_hash" not in low else _raised(trace, "proven")
            try:
                with proven:
                    return original(self, low, *args, **kwargs)
            finally:
                trace.doing.pop()

        return call

    _around(salt.state.State, "call", calling)


class _Null:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _watch_templates(trace: Trace) -> None:
    import salt.state
    import salt.template
    import salt.utils.dateutils
    import salt.utils.http
    import salt.utils.network
    import salt.utils.templates
    from salt.utils.decorators.jinja import JinjaFilter

    def compiling(original: Callable[..., Any]) -> Callable[..., Any]:
        def compile_template(template: Any, renderers: Any, default: Any, *args: Any, **kwargs: Any) -> Any:
            trace.doing.append(_rendered(str(template)))
            try:
                custom_code.shebang(trace, str(template), str(default))
                return original(template, renderers, default, *args, **kwargs)
            finally:
                trace.doing.pop()

        return compile_template

    for module in (salt.state, salt.template):
        _around(module, "compile_template", compiling)
    for name in custom_code.LANGUAGES[1:]:
        salt.utils.templates.TEMPLATE_REGISTRY[name] = _with_python(trace, salt.utils.templates.TEMPLATE_REGISTRY[name])
    _around(salt.utils.templates.AliasedLoader, "__getitem__", functools.partial(_looking_up, trace))
    _around(salt.utils.templates.AliasedLoader, "__getattr__", functools.partial(_looking_at, trace))
    filters = JinjaFilter.salt_jinja_filters
    for name in _FILTERS:
        if name in filters:
            filters[name] = _told(trace, filters[name], lambda value: True, f"asks the internet (filter {name})")
    for name in ("strftime", "date_format"):
        if name in filters:
            filters[name] = _told(trace, filters[name], _is_now, f"reads the clock (filter {name})")


def _with_python(trace: Trace, render: Callable[..., Any]) -> Callable[..., Any]:
    """Look on at templates, of files that states install, that may have Python in them."""

    @functools.wraps(render)
    def judged(template: Any, *args: Any, **kwargs: Any) -> Any:
        custom_code.python(trace, str(template))
        return render(template, *args, **kwargs)

    return judged


def _rendered(place: str) -> str:
    """Return what is rendered, as the master serves it."""
    return place.rpartition("/files/")[2].partition("/")[2] or place


def _is_now(value: Any) -> bool:
    """Tell whether a date is one that depends on today: none, in words, or only a part of one."""
    return not value or (isinstance(value, str) and not re.match(r"\d{4}-?\d\d-?\d\d|\d{5,}", value))


def _told(trace: Trace, filter_: Callable[..., Any], when: Callable[[Any], bool], reason: str) -> Callable[..., Any]:
    @functools.wraps(filter_)
    def told(value: Any = None, *args: Any, **kwargs: Any) -> Any:
        if when(value):
            trace.unproven(reason)
        return filter_(value, *args, **kwargs)

    return told


def _looking_up(trace: Trace, original: Callable[..., Any]) -> Callable[..., Any]:
    """Look on at ``salt['cmd.run']``."""

    def getitem(self: Any, name: str) -> Any:
        found = original(self, name)
        custom_code.call(trace, object.__getattribute__(self, "wrapped"), name)
        return found

    return getitem


def _looking_at(trace: Trace, original: Callable[..., Any]) -> Callable[..., Any]:
    """Look on at ``salt.cmd.run``."""

    def getattribute(self: Any, name: str) -> Any:
        found = original(self, name)
        if name == "get":
            return functools.partial(_get, trace, object.__getattribute__(self, "wrapped"), found)
        plain = name.startswith("_") or callable(getattr(type(object.__getattribute__(self, "wrapped")), name, None))
        return found if plain else _Module(trace, object.__getattribute__(self, "wrapped"), name, found)

    return getattribute


def _get(trace: Trace, loader: Any, original: Callable[..., Any], name: str, *default: Any) -> Any:
    """Look on at ``salt.get('cmd.run')``."""
    custom_code.call(trace, loader, name)
    return original(name, *default)


class _Module:
    """A module as templates see it."""

    def __init__(self, trace: Trace, loader: Any, name: str, module: Any) -> None:
        self._parts = (trace, loader, name, module)

    def __getattr__(self, function: str) -> Any:
        trace, loader, name, module = self._parts
        found = getattr(module, function)
        custom_code.call(trace, loader, f"{name}.{function}")
        return found


def main() -> None:
    """Do what ``salt-call`` does, and look on; where that cannot be, do nothing and leave no file of a trace."""
    import salt.scripts
    import salt.utils.event

    file, master, *words = sys.argv[1:]
    trace = Trace(file, master, os.environ.pop(HASH_KEY, "").encode())
    try:
        watch(trace)
    except BaseException:
        os.unlink(file)
        raise
    minion_events.wait_for_no_minion(salt.utils.event.SaltEvent)
    sys.argv = words
    salt.scripts.salt_call()


if __name__ == "__main__":
    main()

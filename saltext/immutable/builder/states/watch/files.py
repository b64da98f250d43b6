"""Record what Salt requests from the master: files, lists of names, which names of a list it uses, and the mine."""

from __future__ import annotations

import fnmatch
import functools
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from saltext.immutable.builder.states.trace import Trace, counted, wrap_method
from saltext.immutable.images.manifest import sha256

_FORWARDERS = ("watch/files.py", "states/trace.py", "salt/fileclient.py", "modules/cp.py")
"""Files, each with its folder, whose code only passes a list on to its caller."""


def watch_requests(trace: Trace) -> None:
    """Record each file that is requested, the hash of each that the master gives, and whether minions answered."""
    import salt.channel.client
    import salt.fileclient
    import salt.utils.event
    import salt.utils.url

    async def awaiting(load: Any, answer: Awaitable[Any]) -> Any:
        found = await answer
        trace.record_answer(load, found)
        return found

    def sending(original: Callable[..., Any]) -> Callable[..., Any]:
        def send(self: Any, load: Any, *args: Any, **kwargs: Any) -> Any:
            trace.record_request(load)
            answer = original(self, load, *args, **kwargs)
            if inspect.isawaitable(answer):
                return awaiting(load, answer)
            trace.record_answer(load, answer)
            return answer

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
            file = original(self, path, dest, makedirs, saltenv, *args, **more)
            if isinstance(file, str) and os.path.isfile(file):
                plain, env = salt.utils.url.parse(path)
                trace.note("given", env or saltenv, plain, sha256(file))
            return file

        return get_file

    def firing(original: Callable[..., Any]) -> Callable[..., Any]:
        def fire_event(self: Any, data: Any, tag: str, *args: Any, **kwargs: Any) -> Any:
            trace.record_event(tag)
            return original(self, data, tag, *args, **kwargs)

        return fire_event

    wrap_method(salt.utils.event.SaltEvent, "fire_event", firing)
    wrap_method(salt.fileclient.RemoteClient, "get_file", getting)
    wrap_method(salt.channel.client.AsyncReqChannel, "send", sending)
    wrap_method(salt.channel.client.AsyncReqChannel, "crypted_transfer_decode_dictentry", sending)
    for name in ("hash_file", "hash_and_stat_file"):
        wrap_method(salt.fileclient.RemoteClient, name, hashing)


def watch_lists(trace: Trace) -> None:
    """Record which names of a list are used: single ones, or all."""
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
            return RecordingList(found, member, lambda: whole(""))

        return names

    def states(original: Callable[..., Any]) -> Callable[..., Any]:
        def list_states(self: Any, saltenv: str) -> Any:
            with counted(trace, "quiet"):
                found = original(self, saltenv)
            member = functools.partial(trace.note, "sls", saltenv)
            if _caller() != "salt/state.py":
                member("*")
                return found
            return RecordingList(found, member, lambda: member("*"))

        return list_states

    def folder(original: Callable[..., Any]) -> Callable[..., Any]:
        def cache_dir(self: Any, path: str, saltenv: str = "base", *args: Any, **kwargs: Any) -> Any:
            trace.note("list", saltenv, str(path).removeprefix("salt://"))
            with counted(trace, "quiet"):
                return original(self, path, saltenv, *args, **kwargs)

        return cache_dir

    for name in ("file_list", "file_list_emptydirs", "dir_list", "symlink_list", "list_env"):
        wrap_method(client, name, listing)
    wrap_method(client, "list_states", states)
    wrap_method(client, "cache_dir", folder)
    # Only in salt.state, which matches patterns against its lists of states.
    salt.state.fnmatch = SimpleNamespace(**{**vars(fnmatch), "filter": _filter})


def _caller() -> str:
    """Return the file, with its folder, of the code that requested a list. Code that only passes it on is skipped."""
    frame = sys._getframe()
    while frame is not None:
        path = "/".join(frame.f_code.co_filename.rsplit("/", 2)[1:])
        if not path.startswith("loader/") and path not in _FORWARDERS:
            return path
        frame = frame.f_back  # type: ignore[assignment]
    return ""


class RecordingList(list):  # type: ignore[type-arg]
    """A list of names that reports its use: ``member`` is called with a name or pattern, ``whole`` for all of it.

    C code can bypass these methods, so only known code of Salt gets such a list.
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
        """Return the names that match a pattern, and report the pattern only."""
        self.member(pattern)
        return fnmatch.filter(list(super().__iter__()), pattern)


def _filter(names: Any, pattern: str) -> list[str]:
    return names.matching(pattern) if isinstance(names, RecordingList) else fnmatch.filter(names, pattern)

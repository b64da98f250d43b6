"""The keys of minions on the master: accept in advance, list, delete."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import salt.cache
import salt.key
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.spec import reading

_FILES = "localfs_key"
"""The driver of Salt 3008 that keeps keys in files, where all versions of Salt had them."""
_KINDS = ("minions", "minions_pre", "minions_denied", "minions_rejected")


class Keys:
    """The minion keys of a master. Any thread may call."""

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self._opts = dict(opts)
        # The folder of autosign stubs (salt.daemons.masterapi.AutoKey.check_autosign_dir).
        self._stubs = Path(_pki(opts), "minions_autosign")
        self._keys = threading.Lock()

    def expect(self, minion_id: str) -> None:
        """Let the master accept the first key of this id, by an autosign stub, which the master then deletes."""
        self._stubs.mkdir(mode=0o700, exist_ok=True)
        (self._stubs / _checked(minion_id)).touch(mode=0o600)

    def enrol(self, minion_id: str, pub: str) -> None:
        """Accept this public key (PEM) for an id.

        For an id that is no secret, such as that of a bake: at no time would another key be accepted. The wheel
        function ``key.gen_accept`` does the same, but it returns the private key, which then is in the job cache and
        on the event bus.
        """
        if "keys.cache_driver" in self._opts:  # since Salt 3008
            keys = salt.cache.Cache(self._opts, driver=self._opts["keys.cache_driver"])
            keys.store("keys", _checked(minion_id), {"pub": pub, "state": "accepted"})
        else:
            Path(self._opts["pki_dir"], "minions", _checked(minion_id)).write_text(pub)

    def forget(self, minion_id: str) -> None:
        """Remove the stub and every key of this id, and what it told the mine, which Salt would keep."""
        with suppress(FileNotFoundError):
            (self._stubs / _checked(minion_id)).unlink()
        with self._salt_keys() as keys:
            keys.delete_key(match=_checked(minion_id))
            salt.cache.factory(self._opts).flush("mine", minion_id)

    def known(self) -> set[str]:
        """Return the ids that have a stub or a key: accepted, pending, denied or rejected."""
        keys = self._listed()
        stubs = {stub.name for stub in self._stubs.iterdir()} if self._stubs.is_dir() else set()
        return stubs.union(*(keys.get(kind, []) for kind in _KINDS))

    def _listed(self) -> dict[str, list[str]]:
        """Return the ids that have a key, by its state (see ``_KINDS``)."""
        with self._salt_keys() as keys:
            return dict(keys.list_keys())

    @contextmanager
    def _salt_keys(self) -> Iterator[Any]:
        """Open Salt's keys, as its wheel functions do, for one thread at a time."""
        with self._keys, salt.key.get_key(self._opts) as keys:
            try:
                yield keys
            except OSError as err:
                raise CommandExecutionError(
                    f"the keys of this master cannot be used: {err}; let the master's user read and write them"
                ) from err

    def contested(self, minion_id: str) -> bool:
        """Tell whether the master denied a key of this id, because it has another one."""
        return minion_id in self._listed().get("minions_denied", [])

    def accepted(self, minion_id: str) -> bool:
        """Tell whether the master has accepted a key of this id."""
        return minion_id in self.with_key()

    def with_key(self) -> set[str]:
        """Return the ids that have a key which the master accepted."""
        return set(self._listed().get("minions", []))


def accepted_key(opts: Mapping[str, Any], minion_id: str) -> bytes | None:
    """Return the public key (PEM) that the master accepted for an id, or None."""
    if opts.get("keys.cache_driver", _FILES) != _FILES:  # since Salt 3008
        found = salt.cache.Cache(dict(opts), driver=opts["keys.cache_driver"]).fetch("keys", _checked(minion_id)) or {}
        accepted = isinstance(found, Mapping) and found.get("state") == "accepted" and found.get("pub")
        return str(accepted).encode() if accepted else None
    try:
        return Path(_pki(opts), "minions", _checked(minion_id)).read_bytes()
    except OSError:
        return None


def _pki(opts: Mapping[str, Any]) -> str:
    return str(opts["cluster_pki_dir"] if opts.get("cluster_id") else opts["pki_dir"])


def _checked(minion_id: str) -> str:
    """Return ``minion_id`` if it is a single id and a file name; raise otherwise. (Salt takes ``*`` for every key.)"""
    try:
        return reading.minion_id(minion_id)
    except ValueError as err:
        raise SaltInvocationError(f"minion_id: {err}") from err

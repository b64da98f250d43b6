"""The keys of minions: accepted before they are offered, listed, deleted."""

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

_KINDS = ("minions", "minions_pre", "minions_denied", "minions_rejected")


class Keys:
    """The keys that a master knows. Any thread may call."""

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self._opts = dict(opts)
        # Where Salt's masters look for stubs (salt.daemons.masterapi.AutoKey.check_autosign_dir).
        pki = opts["cluster_pki_dir"] if opts.get("cluster_id") else opts["pki_dir"]
        self._stubs = Path(pki, "minions_autosign")
        self._keys = threading.Lock()

    def expect(self, minion_id: str) -> None:
        """Let the first key that is offered for this id be accepted; Salt's master consumes the stub."""
        self._stubs.mkdir(mode=0o700, exist_ok=True)
        (self._stubs / _checked(minion_id)).touch(mode=0o600)

    def enrol(self, minion_id: str, pub: str) -> None:
        """Accept this public key (PEM) for an id.

        For an id that everybody can know, such as a recipe's: there is no moment at which another key would do. As
        ``key.gen_accept`` does it, but the private half is made where it is used: what a wheel function returns goes
        into the job cache and on the event bus.
        """
        if "keys.cache_driver" in self._opts:  # since Salt 3008
            keys = salt.cache.Cache(self._opts, driver=self._opts["keys.cache_driver"])
            keys.store("keys", _checked(minion_id), {"pub": pub, "state": "accepted"})
        else:
            Path(self._opts["pki_dir"], "minions", _checked(minion_id)).write_text(pub)

    def forget(self, minion_id: str) -> None:
        """Remove the stub and every key of this id."""
        with suppress(FileNotFoundError):
            (self._stubs / _checked(minion_id)).unlink()
        with self._stock() as keys:
            keys.delete_key(match=_checked(minion_id))

    def known(self) -> set[str]:
        """Return the ids that have a stub or a key of any standing."""
        keys = self._listed()
        stubs = {stub.name for stub in self._stubs.iterdir()} if self._stubs.is_dir() else set()
        return stubs.union(*(keys.get(kind, []) for kind in _KINDS))

    def _listed(self) -> dict[str, list[str]]:
        """Return the ids that have a key, by its standing."""
        with self._stock() as keys:
            return dict(keys.list_keys())

    @contextmanager
    def _stock(self) -> Iterator[Any]:
        """Give Salt's keys, as its wheel functions have them, to one thread at a time."""
        with self._keys, salt.key.get_key(self._opts) as keys:
            try:
                yield keys
            except OSError as err:
                raise CommandExecutionError(f"the keys of this master cannot be used: {err}") from err

    def contested(self, minion_id: str) -> bool:
        """Tell whether Salt's master denied a key for this id, because it knows another one."""
        return minion_id in self._listed().get("minions_denied", [])

    def accepted(self, minion_id: str) -> bool:
        """Tell whether a minion of this id has a key that the master accepted."""
        return minion_id in self._listed().get("minions", [])


def _checked(minion_id: str) -> str:
    """Return an id that is one id and one file name; Salt would take ``*`` for every key."""
    try:
        return reading.minion_id(minion_id)
    except ValueError as err:
        raise SaltInvocationError(f"minion_id: {err}") from err

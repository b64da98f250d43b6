"""``cache: only``: a bake that fetches nothing and uses the builder's cache alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

_CHOICES = ("use", "only")


def is_offline(cache: str | None, default: str, refresh: object) -> bool:
    """Return whether nothing may be fetched.

    ``cache``: the argument of this bake, or None. ``default``: the setting of the master config. ``refresh``: the
    bake's argument. Raises SaltInvocationError for another value of ``cache``, and where the bake is offline and asks
    for updates.
    """
    if cache not in (None, *_CHOICES):
        raise SaltInvocationError(f"cache: {cache!r} is neither use nor only; write cache=only")
    offline = (cache or default) == "only"
    if offline and refresh not in (False, None, "never"):
        raise SaltInvocationError("refresh asks the mirrors, which cache=only forbids; leave out one of the two")
    return offline


@contextmanager
def explain_missing(offline: bool) -> Iterator[None]:
    """Add to an error of an offline bake that nothing was fetched, and what to do."""
    try:
        yield
    except CommandExecutionError as err:
        if not offline:
            raise
        raise CommandExecutionError(
            f"nothing was fetched (cache: only); if something is missing in the cache, bake once with cache=use:\n{err}"
        ) from err


def route(order: Mapping[str, Any]) -> str:
    """Return the route of a bake's machine beyond its own network: ``default``, an address with prefix, or '' for none.

    Offline only the master is reachable. ``order``: a mapping with subnet, offline, and minion (its config) where the
    machine calls a master. Raises SaltInvocationError where the master is configured by name.
    """
    if not order.get("offline"):
        return "default"
    master = order.get("minion", {}).get("master")
    if master is None:
        return ""
    try:
        address = ipaddress.IPv4Address(master)
    except ValueError as err:
        raise SaltInvocationError(
            f"immutable:master: {master} is a name, and with cache=only no name server is asked; set it to the address "
            f"of {master}"
        ) from err
    return "" if address in ipaddress.IPv4Network(order["subnet"]) else f"{address}/32"

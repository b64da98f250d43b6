"""``cache: only``: a bake that fetches nothing. The builder's cache is enough, or it is said what is missing."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

_WORDS = ("use", "only")


def wanted(cache: str | None, default: str, refresh: object) -> bool:
    """Tell whether nothing may be fetched; ``cache`` is what this bake says, ``default`` what the config says."""
    if cache not in (None, *_WORDS):
        raise SaltInvocationError(f"cache: must be use or only, not {cache!r}")
    offline = (cache or default) == "only"
    if offline and refresh not in (False, None, "never"):
        raise SaltInvocationError("refresh asks the mirrors, and with cache=only nobody is asked; leave one out")
    return offline


@contextmanager
def told(offline: bool) -> Iterator[None]:
    """Say of what fails that nothing was fetched, and what to do about it."""
    try:
        yield
    except CommandExecutionError as err:
        if not offline:
            raise
        mend = "nothing was fetched (cache: only); if it is missing here, bake once with cache=use"
        raise CommandExecutionError(f"{err}\n{mend}") from err


def route(order: Mapping[str, Any]) -> str:
    """Return where the packets of a bake's machine may go beyond its own network: nowhere but to the master.

    ``order`` has subnet, offline, and minion where there is one to talk to a master.
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
            f"with cache=only no name server is asked; set immutable:master to the address of {master}, not its name"
        ) from err
    return "" if address in ipaddress.IPv4Network(order["subnet"]) else f"{address}/32"

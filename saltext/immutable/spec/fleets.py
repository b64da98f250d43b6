"""Fleets: identical machines that should all run one image."""

from __future__ import annotations

import string
from collections.abc import Iterator

from saltext.immutable.spec import reading
from saltext.immutable.spec.model import (
    Fleet,
    FunctionCheck,
    HttpCheck,
    ProviderSpec,
    Strategy,
)
from saltext.immutable.spec.reading import Section

_TAKEN = {
    "all": "it could be taken for every fleet",
    "adopted": "machines that no fleet launched are called so",
    "drift": "events about drift are called so",
    "image": "events about images are called so",
}
_CHECKS = "write {fun: service.status, args: [nginx]} or {http: 'http://{address}/'}"


def fleet(name: str, read: Section) -> Fleet:
    """Read one fleet. Whether its recipe exists is seen when all recipes are known."""
    if name in _TAKEN:
        read.problem("", f"{name} is no fleet's name, since {_TAKEN[name]}; choose another")
    found = Fleet(
        name=name,
        recipe=read.need("recipe", reading.name, "web"),
        size=read.need("size", reading.count, 3),
        minion_id=read.need("minion_id", _minion_id, f"'{name}-{{token}}.example.com'"),
        provider=_provider(read),
        channel=read.take("channel", reading.name, "stable"),
        strategy=_strategy(read.inside("strategy")),
        health=tuple(_check(check) for check in read.each("health")),
        allow_outage=read.take("allow_outage", reading.flag, False),
    )
    read.close()
    if read.sound:
        for sentence in _impossible(found):
            read.problem("strategy", sentence)
    return found


def _minion_id(value: object) -> str:
    found = reading.text(value)
    if found.count("{token}") != 1:
        raise ValueError(f"must hold {{token}} once, not {found!r}: each machine has an id that no other had")
    reading.minion_id(found.replace("{token}", "0"))
    return found


def _provider(read: Section) -> ProviderSpec:
    if not read.has("provider"):
        read.problem("", "provider is missing; write provider: {name: nspawn}")
        return ProviderSpec("")
    section = read.inside("provider")
    return ProviderSpec(section.need("name", reading.text, "nspawn"), section.rest())


def _strategy(read: Section) -> Strategy:
    default = Strategy()
    ready_within = read.take("ready_within", reading.duration, default.ready_within)
    found = Strategy(
        max_surge=read.take("max_surge", reading.amount, default.max_surge),
        max_unavailable=read.take("max_unavailable", reading.amount, default.max_unavailable),
        ready_within=ready_within,
        progress_within=read.take("progress_within", reading.duration, 2 * ready_within),
        max_failures=read.take("max_failures", reading.count, default.max_failures),
        on_failure="pause" if read.take("on_failure", _on_failure, "rollback") == "pause" else "rollback",
    )
    read.close()
    return found


def _on_failure(value: object) -> str:
    if value not in ("rollback", "pause"):
        raise ValueError(f"must be rollback or pause, not {reading.said(value)}")
    return str(value)


def _check(read: Section) -> FunctionCheck | HttpCheck:
    fun, http = read.has("fun"), read.has("http")
    if fun == http and read.sound:
        read.problem("", f"{'two checks' if fun else 'no check'} in one entry; {_CHECKS}")
    found = _http(read) if http else _function(read)
    read.close()
    return found


def _function(read: Section) -> FunctionCheck:
    return FunctionCheck(
        fun=read.take("fun", _fun, ""),
        args=read.take("args", reading.sequence, ()),
        kwargs=read.take("kwargs", reading.mapping, {}),
    )


def _http(read: Section) -> HttpCheck:
    timeout = read.take("timeout", reading.duration, HttpCheck.timeout)
    return HttpCheck(url=read.take("http", _url, ""), timeout=timeout)


def _fun(value: object) -> str:
    found = reading.text(value)
    module, dot, function = found.partition(".")
    if not (module and dot and function):
        raise ValueError(f"must be a Salt function, not {found!r}; write module.function")
    return found


def _url(value: object) -> str:
    found = reading.text(value)
    if not found.startswith(("http://", "https://")):
        raise ValueError(f"must begin with http:// or https://, not {found!r}")
    fields = {field for _, field, _, _ in string.Formatter().parse(found) if field is not None}
    for field in sorted(fields - {"address", "minion_id"}):
        raise ValueError(f"{{{field}}} cannot be filled in; use {{address}} or {{minion_id}}")
    return found


def _impossible(found: Fleet) -> Iterator[str]:
    """Yield a sentence for each pair of limits with which no rollout could ever end, or none would serve."""
    limits, size = found.strategy, found.size
    down = limits.max_unavailable.down(size)
    if limits.max_surge.value == 0 and limits.max_unavailable.value == 0:
        yield (
            "max_surge and max_unavailable are both 0, so no machine could ever be replaced; "
            "set max_surge to 1"
        )
    elif limits.max_surge.value == 0 and down == 0 and size > 0:
        yield (
            f"max_surge is 0 and max_unavailable {limits.max_unavailable} of {size} rounds down to 0, "
            "so no machine could ever be replaced; set max_unavailable or max_surge to 1"
        )
    if size > 0 and down >= size and not found.allow_outage:
        yield (
            f"max_unavailable {limits.max_unavailable} of {size} lets a rollout leave no machine serving; "
            "lower it, or write allow_outage: true in the fleet"
        )
    if limits.progress_within < limits.ready_within:
        yield (
            f"progress_within ({limits.progress_within:g} s) is shorter than ready_within "
            f"({limits.ready_within:g} s), so a boot that is still allowed would pause the rollout; "
            "leave it out for twice ready_within"
        )

"""Read the fleets of the pillar."""

from __future__ import annotations

import string

from saltext.immutable.spec import reading
from saltext.immutable.spec.model import Budgets, Fleet, FunctionCheck, HttpCheck, ProviderSpec, TrafficSpec, Window
from saltext.immutable.spec.section import Section
from saltext.immutable.spec.strategy import conflicts, strategy
from saltext.immutable.text import quoted

_RESERVED = {
    "all": "commands take it for every fleet",
    "adopted": "it stands for machines that no fleet launched",
    "drift": "tags of events about drift begin with it",
    "image": "tags of events about images begin with it",
}
_CHECKS = "write {fun: service.status, args: [nginx]}, {http: 'http://{address}/'} or {states: false}"


def fleet(name: str, read: Section) -> Fleet:
    """Read one fleet. Whether its recipe exists is checked later, when all recipes are known."""
    if name in _RESERVED:
        read.problem("", f"a fleet cannot have the name {name}: {_RESERVED[name]}; choose another name")
    checks, check_states = _health(read)
    found = Fleet(
        name=name,
        recipe=read.need("recipe", reading.name, "web"),
        size=read.need("size", reading.count, 3),
        minion_id=read.need("minion_id", _minion_id, f"'{name}-{{token}}.example.com'"),
        provider=_provider(read),
        channel=read.take("channel", reading.name, "stable"),
        strategy=strategy(read.inside("strategy")),
        health=checks,
        check_states=check_states,
        allow_outage=read.take("allow_outage", reading.flag, False),
        traffic=_traffic(read),
        max_age=read.take("max_age", reading.duration, None),
        windows=windows(read),
        budgets=budgets(read.inside("budgets")),
        sick_limit=read.take("sick_limit", reading.amount, Fleet.sick_limit),
        unreachable_for=read.take("unreachable_for", reading.duration, Fleet.unreachable_for),
        orphan_grace=read.take("orphan_grace", reading.duration, Fleet.orphan_grace),
        revoked=read.take("revoked", reading.either("keep", "replace"), Fleet.revoked),
    )
    read.close()
    if read.valid:
        for sentence in conflicts(found):
            read.problem("strategy", sentence)
    return found


def _minion_id(value: object) -> str:
    found = reading.text(value)
    if found.count("{token}") != 1:
        why = "each machine gets an id that was never used before"
        raise ValueError(f"must hold {{token}} once, not {quoted(found)}: {why}")
    reading.minion_id(found.replace("{token}", "0"))
    return found


def _provider(read: Section) -> ProviderSpec:
    if not read.has("provider"):
        read.problem("", "provider is missing; write provider: {name: nspawn}")
        return ProviderSpec("")
    section = read.inside("provider")
    return ProviderSpec(section.need("name", reading.text, "nspawn"), section.rest())


def _traffic(read: Section) -> TrafficSpec | None:
    """Read ``traffic: {haproxy: {...}}``: the one key names the adapter, which reads the rest itself."""
    if not read.has("traffic"):
        return None
    section = read.inside("traffic")
    names = section.unread()
    if len(names) != 1:
        if section.valid:
            section.problem("", "must name one adapter; write traffic: {haproxy: {socket: ..., backend: web}}")
        return None
    return TrafficSpec(names[0], section.take(names[0], _settings, {}))


def _settings(value: object) -> dict[str, object]:
    return {} if value is None else reading.data_mapping(value)


def _health(read: Section) -> tuple[tuple[FunctionCheck | HttpCheck, ...], bool]:
    """Return the checks that the pillar names, and whether the states' own is made: ``states: false`` turns it off."""
    found: list[FunctionCheck | HttpCheck] = []
    check_states = True
    for entry in read.each("health", alone="states"):
        states = entry.take("states", reading.flag, None)
        if states is None:
            found.append(_check(entry))
        else:
            check_states = states
            entry.close()
    return tuple(found), check_states


def _check(read: Section) -> FunctionCheck | HttpCheck:
    fun, http = read.has("fun"), read.has("http")
    if fun == http and read.valid:
        read.problem("", f"{'two checks' if fun else 'no check'} in one entry; {_CHECKS}")
    found = _http(read) if http else _function(read)
    read.close()
    return found


def _function(read: Section) -> FunctionCheck:
    return FunctionCheck(
        fun=read.take("fun", _fun, ""),
        args=read.take("args", reading.data_list, ()),
        kwargs=read.take("kwargs", reading.data_mapping, {}),
    )


def _http(read: Section) -> HttpCheck:
    timeout = read.take("timeout", reading.duration, HttpCheck.timeout)
    return HttpCheck(url=read.take("http", _url, ""), timeout=timeout)


def _fun(value: object) -> str:
    found = reading.text(value)
    module, dot, function = found.partition(".")
    if not (module and dot and function):
        raise ValueError(f"must be a Salt function, not {quoted(found)}; write module.function")
    return found


def _url(value: object) -> str:
    found = reading.text(value)
    if not found.startswith(("http://", "https://")):
        raise ValueError(f"must begin with http:// or https://, not {quoted(found)}")
    try:
        parts = list(string.Formatter().parse(found))
    except ValueError as err:
        raise ValueError(f"{quoted(found)} has a brace of its own; use {{address}} or {{minion_id}}") from err
    for _, field, form, conversion in parts:
        if field is not None and (field not in ("address", "minion_id") or form or conversion):
            raise ValueError(f"{{{field}}} is unknown; use {{address}} or {{minion_id}}")
    return found


# Windows and budgets


def windows(read: Section) -> tuple[Window, ...]:
    """Read the list below ``windows``."""
    return tuple(_window(one) for one in read.each("windows"))


def _window(read: Section) -> Window:
    found = Window(
        cron=read.need("cron", reading.text, "'0 2 * * sat'"),
        duration=read.need("duration", reading.duration, "4h"),
        timezone=read.take("timezone", reading.text, Window.timezone),
        freeze=read.take("freeze", reading.flag, Window.freeze),
    )
    read.close()
    return found


def budgets(read: Section) -> Budgets:
    """Read how many machines of one fleet may be launched and disrupted at once."""
    found = Budgets(
        launches=read.take("launches", reading.amount, None),
        disruptions=read.take("disruptions", reading.amount, None),
    )
    read.close()
    for key in ("launches", "disruptions"):
        limit = getattr(found, key)
        if limit is not None and limit.value == 0:
            read.problem(key, "must be 1 or more, or nothing could ever be changed; leave it out for no limit")
    return found


def master_budgets(read: Section) -> Budgets:
    """Read how many machines of all fleets may be launched and disrupted at once: numbers, no percentages."""
    found = budgets(read)
    for key in ("launches", "disruptions"):
        limit = getattr(found, key)
        if limit is not None and limit.percent:
            read.problem(key, f"must be a number of machines, not {limit}")
    return found

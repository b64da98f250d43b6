"""Read windows and budgets: when fleets may be changed, and how much of them at once."""

from __future__ import annotations

from saltext.immutable.spec import reading
from saltext.immutable.spec.model import Budgets, Window
from saltext.immutable.spec.section import Section


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

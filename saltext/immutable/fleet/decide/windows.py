"""When a fleet may be changed: open or closed, until when, and why, from windows and a time. Pure.

The fleet has windows and so has the master: within one list any open window will do, all lists must be open (the most
restrictive wins), and a freeze closes whatever others say. A list without windows, or of freezes only, is open
otherwise. A window that cannot be understood is closed.

Cron is Debian's, by cronsim. A fixed time that a change of the clock skips comes at the change; one that the clock
shows twice comes once, the first time. Crons whose minute or hour begins with ``*`` follow real time. A duration is
elapsed time, whatever the clock does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from saltext.immutable.spec.model import Window
from saltext.immutable.text import quoted

YEAR = 366 * 86400.0
"""How far ahead windows are searched."""
_JOINS = 400
"""How many windows that follow each other without a gap are searched."""
_LEAP = 3 * 3600.0
"""Seconds: more than any change of a clock."""


@dataclass(frozen=True)
class Level:
    """One list of windows, and its path for messages: ``immutable:fleets:web:windows``."""

    path: str
    windows: tuple[Window, ...]


@dataclass(frozen=True)
class Opening:
    """Whether a change may start, and how long this answer holds. Times are seconds since the epoch."""

    is_open: bool
    reason: str
    until: float | None = None
    """Open: until when at least. None: there is no end within a year."""
    opens: float | None = None
    """Closed: when it opens next. None: no such moment was found within a year."""


def mistakes(levels: Iterable[Level]) -> list[str]:
    """Return a sentence for each window that cannot be understood: with such a window a fleet is never open."""
    return [f"{sentence}; until then nothing is changed by choice" for level in levels for sentence in _mistakes(level)]


def opening(levels: Iterable[Level], now: float) -> Opening:
    """Return whether a change may start now."""
    used = [level for level in levels if level.windows]
    wrong = [sentence for level in used for sentence in _mistakes(level)]
    if wrong:
        return Opening(False, f"closed: {'; '.join(wrong)}")
    for level in used:
        if obstacle := _obstacle(level, now):
            opens = _next(used, now)
            when = (
                f"the next opening is {_said(level, opens)}"
                if opens is not None
                else "no opening was found within a year"
            )
            return Opening(False, f"closed: {obstacle.reason}; {when}", opens=opens)
    return _opened(used, now)


def _opened(used: Sequence[Level], now: float) -> Opening:
    ends = [(end, level) for level in used if (end := _closes(level, now)) < now + YEAR]
    if not ends:
        return Opening(True, "open")
    until, level = min(ends, key=lambda one: one[0])
    return Opening(True, f"open until {_said(level, until)} by {level.path}", until=until)


@dataclass(frozen=True)
class _Obstacle:
    """Why a level is closed, and the first moment at which this may end."""

    reason: str
    over: float | None


def _obstacle(level: Level, at: float) -> _Obstacle | None:
    for number, window in enumerate(level.windows):
        if window.freeze and _lasts([window], at) > at:
            return _Obstacle(f"{level.path}:{number} is a freeze", _lasts(_freezes(level), at))
    windows = _windows(level)
    if not windows or _lasts(windows, at) > at:
        return None
    return _Obstacle(f"no window of {level.path} is open", _earliest(windows, at))


def _next(used: Sequence[Level], now: float) -> float | None:
    """Return the first moment after ``now`` at which no level is closed."""
    at = now
    for _ in range(_JOINS):
        obstacles = [obstacle for level in used if (obstacle := _obstacle(level, at))]
        if not obstacles:
            return at
        moments = [obstacle.over for obstacle in obstacles if obstacle.over is not None]
        if len(moments) < len(obstacles) or max(moments) > now + YEAR:
            return None
        at = max(moments)
    return None


def _closes(level: Level, now: float) -> float:
    """Return when an open level closes, at the earliest."""
    windows, freeze = _windows(level), _earliest(_freezes(level), now)
    end = _lasts(windows, now) if windows else now + YEAR
    return end if freeze is None else min(end, freeze)


def _lasts(windows: Sequence[Window], at: float) -> float:
    """Return until when one of the windows is open without a gap; ``at`` itself if none is. A year is the most."""
    end, horizon = at, at + YEAR
    for _ in range(_JOINS):
        starts = [(window, _at_or_before(window, end)) for window in windows]
        reach = max((start + window.duration for window, start in starts if start is not None), default=end)
        if reach <= end or end >= horizon:
            break
        end = min(reach, horizon)
    return end


def _earliest(windows: Sequence[Window], at: float) -> float | None:
    return min((start for window in windows if (start := _after(window, at)) is not None), default=None)


def _windows(level: Level) -> list[Window]:
    return [window for window in level.windows if not window.freeze]


def _freezes(level: Level) -> list[Window]:
    return [window for window in level.windows if window.freeze]


# Cron: the moments at which a window begins. They are whole minutes.


def _at_or_before(window: Window, at: float) -> float | None:
    return _start(window.cron, window.timezone, at // 60, back=True)


def _after(window: Window, at: float) -> float | None:
    return _start(window.cron, window.timezone, at // 60, back=False)


@lru_cache(maxsize=4096)
def _start(cron: str, timezone: str, minute: float, back: bool) -> float | None:
    """Return the last start up to this minute, or the first after it.

    Cronsim is asked for what a clock shows, and never for the zone: it misses starts where a clock is moved by half an
    hour. Near such a moment the order of clock times differs from that of moments, so the search goes further.
    """
    at, zone = minute * 60, ZoneInfo(timezone)
    margin, fits, found = _margin(zone, at), list[float](), None
    begin = _face(zone, at) + (margin + timedelta(seconds=1) if back else -margin)
    for face in CronSim(cron, begin, reverse=back):
        fits += [moment for moment in _moments(zone, face, _real_time(cron)) if (moment <= at) == back]
        found = face if fits and found is None else found
        if found is not None and abs(face - found) >= margin:
            break
    return (max if back else min)(fits, default=None)


def _face(zone: ZoneInfo, at: float) -> datetime:
    return datetime.fromtimestamp(at, zone).replace(tzinfo=None, fold=0)


def _moments(zone: ZoneInfo, face: datetime, real_time: bool) -> Sequence[float]:
    """Return when a clock shows this: usually once, twice or never at a change of the clock.

    A fixed time always comes once: the first time, or at the change that skips it.
    """
    first, second = (face.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))
    if _face(zone, first) == face:
        return (first, second) if real_time else (first,)
    if real_time:
        return ()
    while _face(zone, face.replace(tzinfo=zone).timestamp()) != face:
        face += timedelta(minutes=1)
    return (face.replace(tzinfo=zone).timestamp(),)


def _real_time(cron: str) -> bool:
    """Tell whether a cron follows real time, so that a change of the clock does not matter (as in Debian)."""
    return any(field.startswith("*") for field in cron.split()[:2])


def _margin(zone: ZoneInfo, at: float) -> timedelta:
    """Return how far around a moment a change of the clock may put clock times in another order."""
    before, after = (datetime.fromtimestamp(at + side, zone).utcoffset() for side in (-_LEAP, _LEAP))
    return timedelta(seconds=0 if before == after else _LEAP)


# Messages


def _mistakes(level: Level) -> list[str]:
    found = []
    for number, window in enumerate(level.windows):
        for key, sentence in _mistake(window.cron, window.timezone):
            found.append(f"{level.path}:{number}:{key}: {sentence}")
    return found


@lru_cache(maxsize=256)
def _mistake(cron: str, timezone: str) -> tuple[tuple[str, str], ...]:
    """Return key and sentence of each value that cannot be understood."""
    found = []
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        found.append(("timezone", f"there is no time zone {quoted(timezone)}; write Europe/Berlin or UTC"))
    try:
        if len(cron.split()) != 5:
            raise CronSimError("it has not five fields")
        CronSim(cron, datetime(2000, 1, 1))
    except (CronSimError, ValueError, AssertionError) as err:
        why = str(err) or "bad field"
        found.append(("cron", f"{quoted(cron)} is no cron expression ({why[0].lower()}{why[1:]}); write '0 2 * * sat'"))
    return tuple(found)


def _said(level: Level, at: float) -> str:
    """Return a moment in the time zone of the level's first window."""
    zone = level.windows[0].timezone
    return f"{datetime.fromtimestamp(at, ZoneInfo(zone)):%a %Y-%m-%d %H:%M} {zone}"

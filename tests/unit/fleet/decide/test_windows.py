"""When a fleet may be changed: known dates, and every minute around the days on which clocks are moved."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saltext.immutable.fleet.decide.windows import YEAR, Level, opening
from saltext.immutable.spec.model import Window

WEB = "immutable:fleets:web:windows"
ALL = "config immutable:windows"
HOUR = 3600.0
DAY = 24 * HOUR
SATURDAY = Window("0 2 * * sat", 4 * HOUR, "Europe/Berlin")


def at(moment: str) -> float:
    """``2026-11-28 02:00``, in UTC unless an offset follows, as seconds since the epoch."""
    read = datetime.fromisoformat(moment)
    return (read if read.tzinfo else read.replace(tzinfo=timezone.utc)).timestamp()


def said(moment: float | None) -> str | None:
    return None if moment is None else f"{datetime.fromtimestamp(moment, timezone.utc):%Y-%m-%d %H:%M}"


def web(*windows: Window) -> list[Level]:
    return [Level(WEB, windows)]


@pytest.mark.parametrize(
    ("now", "open_", "until", "opens"),
    [
        pytest.param("2026-11-23 12:00", False, None, "2026-11-28 01:00", id="Monday waits for Saturday"),
        pytest.param("2026-11-28 00:59", False, None, "2026-11-28 01:00", id="a minute before"),
        pytest.param("2026-11-28 01:00", True, "2026-11-28 05:00", None, id="opens on the minute"),
        pytest.param("2026-11-28 04:59", True, "2026-11-28 05:00", None, id="open to the last minute"),
        pytest.param("2026-11-28 05:00", False, None, "2026-12-05 01:00", id="closed when its time is over"),
        pytest.param("2026-07-04 00:00", True, "2026-07-04 04:00", None, id="in summer two hours before UTC"),
    ],
)
def test_a_weekly_window(now, open_, until, opens):
    found = opening(web(SATURDAY), at(now))
    assert (found.is_open, said(found.until), said(found.opens)) == (open_, until, opens)


def daily(cron: str, zone: str, hours: float = 1) -> list[Level]:
    return web(Window(cron, hours * HOUR, zone))


@pytest.mark.parametrize(
    ("levels", "now", "open_", "until", "opens"),
    [
        pytest.param(
            daily("30 2 * * *", "Europe/Berlin"),
            "2026-03-29 00:59",
            False,
            None,
            "2026-03-29 01:00",
            id="Berlin leaps from 2 to 3: half past two comes with the leap",
        ),
        pytest.param(
            daily("30 2 * * *", "Europe/Berlin"), "2026-03-29 01:00", True, "2026-03-29 02:00", None, id="and lasts"
        ),
        pytest.param(
            daily("30 2 * * *", "Europe/Berlin"),
            "2026-10-25 00:30",
            True,
            "2026-10-25 01:30",
            None,
            id="Berlin shows half past two twice: it opens the first time",
        ),
        pytest.param(
            daily("30 2 * * *", "Europe/Berlin"),
            "2026-10-25 01:30",
            False,
            None,
            "2026-10-26 01:30",
            id="and not the second",
        ),
        pytest.param(
            daily("30 2 * * *", "Europe/Berlin", 0.75),
            "2026-10-25 01:10",
            True,
            "2026-10-25 01:15",
            None,
            id="10 past 2 for the second time is after half past 2 for the first",
        ),
        pytest.param(
            daily("0 1 * * *", "Europe/Berlin", 3),
            "2026-10-24 23:00",
            True,
            "2026-10-25 02:00",
            None,
            id="three hours are three hours, though the clock shows 3 then",
        ),
        pytest.param(
            daily("30 1 * * *", "America/New_York"),
            "2026-11-01 05:30",
            True,
            "2026-11-01 06:30",
            None,
            id="New York, half past one for the first time",
        ),
        pytest.param(
            daily("30 1 * * *", "America/New_York"),
            "2026-11-01 06:30",
            False,
            None,
            "2026-11-02 06:30",
            id="New York, half past one for the second time",
        ),
        pytest.param(
            daily("15 2 * * *", "America/New_York"),
            "2026-03-08 06:59",
            False,
            None,
            "2026-03-08 07:00",
            id="New York leaps over a quarter past two",
        ),
        pytest.param(
            daily("10 2 * * *", "Australia/Lord_Howe"),
            "2026-10-03 15:29",
            False,
            None,
            "2026-10-03 15:30",
            id="Lord Howe leaps half an hour",
        ),
        pytest.param(
            daily("45 1 * * *", "Australia/Lord_Howe", 0.25),
            "2026-04-04 15:15",
            False,
            None,
            "2026-04-05 15:15",
            id="Lord Howe shows a quarter to two twice",
        ),
        pytest.param(
            daily("45 1 * * *", "Australia/Lord_Howe", 0.25),
            "2026-04-04 14:45",
            True,
            "2026-04-04 15:00",
            None,
            id="Lord Howe, the first of them",
        ),
        pytest.param(
            daily("0 0 29 2 *", "UTC"), "2028-02-28 12:00", False, None, "2028-02-29 00:00", id="the 29th of February"
        ),
        pytest.param(
            daily("0 0 29 2 *", "UTC"), "2025-06-01 00:00", False, None, None, id="is more than a year away mostly"
        ),
        pytest.param(
            daily("0 3 L * *", "UTC"), "2026-02-10 00:00", False, None, "2026-02-28 03:00", id="the last of a month"
        ),
        pytest.param(
            daily("0 3 * * tue#2", "UTC"), "2026-06-01 00:00", False, None, "2026-06-09 03:00", id="the day for patches"
        ),
    ],
)
def test_the_clock_on_the_wall(levels, now, open_, until, opens):
    found = opening(levels, at(now))
    assert (found.is_open, said(found.until), said(found.opens)) == (open_, until, opens)


DECEMBER = Window("0 0 1 12 *", 31 * DAY, freeze=True)
NIGHTS = Window("0 22 * * *", 8 * HOUR)
DAYS = Window("0 9 * * mon-fri", 8 * HOUR)


@pytest.mark.parametrize(
    ("levels", "now", "open_", "until", "opens"),
    [
        pytest.param([], "2026-06-01 12:00", True, None, None, id="no list: always"),
        pytest.param(web(), "2026-06-01 12:00", True, None, None, id="an empty list: always"),
        pytest.param(web(DAYS, NIGHTS), "2026-06-01 23:00", True, "2026-06-02 06:00", None, id="any of one list"),
        pytest.param(web(DAYS, NIGHTS), "2026-06-01 18:00", False, None, "2026-06-01 22:00", id="none of one list"),
        pytest.param(
            web(NIGHTS, Window("0 5 * * *", 4 * HOUR), DAYS),
            "2026-06-01 23:00",
            True,
            "2026-06-02 17:00",
            None,
            id="windows that touch are one",
        ),
        pytest.param(web(DECEMBER), "2026-11-01 00:00", True, "2026-12-01 00:00", None, id="only a freeze: else open"),
        pytest.param(web(DECEMBER), "2026-12-24 18:00", False, None, "2027-01-01 00:00", id="frozen"),
        pytest.param(
            web(NIGHTS, DECEMBER), "2026-12-24 23:00", False, None, "2027-01-01 00:00", id="a freeze beats a window"
        ),
        pytest.param(
            web(NIGHTS, DECEMBER),
            "2026-11-30 23:00",
            True,
            "2026-12-01 00:00",
            None,
            id="a window ends where a freeze begins",
        ),
        pytest.param(
            [*web(NIGHTS), Level(ALL, (DECEMBER,))],
            "2026-12-24 23:00",
            False,
            None,
            "2027-01-01 00:00",
            id="the master's freeze beats a fleet's window",
        ),
        pytest.param(
            [*web(NIGHTS), Level(ALL, (Window("0 0 * * sat", 2 * DAY),))],
            "2026-06-01 23:00",
            False,
            None,
            "2026-06-06 00:00",
            id="both lists must be open",
        ),
        pytest.param(
            [*web(NIGHTS), Level(ALL, (Window("0 0 * * sat", 2 * DAY),))],
            "2026-06-06 01:00",
            True,
            "2026-06-06 06:00",
            None,
            id="and the first that closes closes",
        ),
        pytest.param(
            [*web(Window("0 1 * * *", HOUR)), Level(ALL, (Window("0 3 * * *", HOUR),))],
            "2026-06-01 01:30",
            False,
            None,
            None,
            id="lists that are never open together",
        ),
        pytest.param(web(Window("* * * * *", 120.0)), "2026-06-01 00:00", True, "later", None, id="each minute"),
        pytest.param(web(Window("0 0 * * *", DAY)), "2026-06-01 05:00", True, None, None, id="day after day: always"),
        pytest.param(
            web(Window("0 0 * * *", DAY, "Europe/Berlin")),
            "2026-06-01 05:00",
            True,
            "2026-10-25 22:00",
            None,
            id="but for the hour that a day of 25 hours has",
        ),
        pytest.param(
            web(Window("0 0 1 1 *", 1e12)), "2026-06-01 05:00", True, None, None, id="longer than there are years"
        ),
        pytest.param(
            web(Window("0 0 1 1 *", 1e12, freeze=True)), "2026-06-01 05:00", False, None, None, id="frozen forever"
        ),
        pytest.param(
            web(Window("30 12 * * *", 0.5)), "2026-06-01 12:30:00.4", True, "2026-06-01 12:30", None, id="an instant"
        ),
        pytest.param(
            web(Window("30 12 * * *", 0.5)), "2026-06-01 12:30:00.5", False, None, "2026-06-02 12:30", id="is over"
        ),
    ],
)
def test_windows_together(levels, now, open_, until, opens):
    moment = at(now) if "." not in now else at(now.partition(".")[0]) + float("0." + now.partition(".")[2])
    found = opening(levels, moment)
    if until == "later":
        assert found.is_open and found.until is not None and found.until > moment + HOUR
    else:
        assert (found.is_open, said(found.until), said(found.opens)) == (open_, until, opens)


@pytest.mark.parametrize(
    ("levels", "now", "reason"),
    [
        pytest.param(
            web(SATURDAY),
            "2026-11-23 12:00",
            f"closed: no window of {WEB} is open; the next opening is Sat 2026-11-28 02:00 Europe/Berlin",
            id="when it opens, on its own clock",
        ),
        pytest.param(
            web(SATURDAY), "2026-11-28 02:00", f"open until Sat 2026-11-28 06:00 Europe/Berlin by {WEB}", id="until"
        ),
        pytest.param(
            [*web(NIGHTS), Level(ALL, (DECEMBER,))],
            "2026-12-24 23:00",
            f"closed: {ALL}:0 is a freeze; the next opening is Fri 2027-01-01 00:00 UTC",
            id="the freeze by its path",
        ),
        pytest.param(
            daily("0 0 29 2 *", "UTC"),
            "2025-06-01 00:00",
            f"closed: no window of {WEB} is open; no opening was found within a year",
            id="never soon",
        ),
        pytest.param(web(), "2026-06-01 12:00", "open", id="no windows"),
        pytest.param(
            web(Window("0 24 * * *", HOUR), NIGHTS),
            "2026-06-01 23:00",
            f"closed: {WEB}:0:cron: '0 24 * * *' is no cron expression (bad hour); write '0 2 * * sat'",
            id="a mistake closes, though another window is open",
        ),
        pytest.param(
            web(NIGHTS, Window("0 2 * * *", HOUR, "Europe/Brlin", freeze=True)),
            "2026-06-01 23:00",
            f"closed: {WEB}:1:timezone: there is no time zone 'Europe/Brlin'; write Europe/Berlin or UTC",
            id="a mistake in a freeze closes",
        ),
        pytest.param(
            [*web(NIGHTS), Level(ALL, (Window("@daily", HOUR, "../UTC"),))],
            "2026-06-01 23:00",
            f"closed: {ALL}:0:timezone: there is no time zone '../UTC'; write Europe/Berlin or UTC; {ALL}:0:cron: "
            "'@daily' is no cron expression (it has not five fields); write '0 2 * * sat'",
            id="all mistakes at once",
        ),
        pytest.param(
            web(Window("0 0 2 * * sat", HOUR)),
            "2026-06-01 23:00",
            f"closed: {WEB}:0:cron: '0 0 2 * * sat' is no cron expression (it has not five fields); "
            "write '0 2 * * sat'",
            id="seconds have no field",
        ),
        pytest.param(
            web(Window("0 0 30 2 *", HOUR)),
            "2026-06-01 23:00",
            f"closed: {WEB}:0:cron: '0 0 30 2 *' is no cron expression (bad day-of-month); write '0 2 * * sat'",
            id="a day that never comes",
        ),
    ],
)
def test_the_reason_is_a_sentence(levels, now, reason):
    assert opening(levels, at(now)).reason == reason


# Every minute, against a model that knows nothing of cronsim.

MINUTES = {"*": range(60), "*/20": range(0, 60, 20), "0": [0], "30": [30], "5,45": [5, 45], "10-12": [10, 11, 12]}
HOURS = {"*": range(24), "*/2": range(0, 24, 2), "0": [0], "1": [1], "2": [2], "3": [3], "0-3": range(4), "23": [23]}
DATES = {"*": range(1, 32), "25": [25], "29": [29], "1-8": range(1, 9)}
WEEKDAYS = {"*": range(7), "sun": [6], "sat,sun": [5, 6], "mon": [0]}
MOVED = {
    "Europe/Berlin": ["2026-03-29 01:00", "2026-10-25 01:00"],
    "America/New_York": ["2026-03-08 07:00", "2026-11-01 06:00"],
    "Australia/Lord_Howe": ["2026-04-04 15:00", "2026-10-03 15:30"],
    "America/Havana": ["2026-03-08 05:00", "2026-11-01 05:00"],
    "Africa/Cairo": ["2026-04-23 22:00", "2026-10-29 21:00"],
    "Antarctica/Troll": ["2026-03-29 01:00", "2026-10-25 01:00"],
    "Asia/Kathmandu": ["2026-03-29 01:00"],
    "UTC": ["2026-03-29 01:00"],
}
"""Zones, and the moments at which their clocks are moved; two of them at midnight, one by two hours."""


def day_fits(cron: str, day: datetime) -> bool:
    _, _, date, _, weekday = cron.split()
    fits = (day.day in DATES[date], day.weekday() in WEEKDAYS[weekday])
    return all(fits) if "*" in (date, weekday) else any(fits)


def model_starts(window: Window, begin: float, end: float) -> list[float]:
    """Each moment at which the window begins, found by looking at the clock on the wall each minute."""
    zone, (minute, hour) = ZoneInfo(window.timezone), window.cron.split()[:2]
    wall = {moment: datetime.fromtimestamp(moment, zone) for moment in range(int(begin), int(end), 60)}
    if minute.startswith("*") or hour.startswith("*"):
        return [
            float(moment)
            for moment, shown in wall.items()
            if shown.minute in MINUTES[minute] and shown.hour in HOURS[hour] and day_fits(window.cron, shown)
        ]
    first_shown: dict[datetime, int] = {}
    for moment, shown in wall.items():
        first_shown.setdefault(shown.replace(tzinfo=None, fold=0), moment)
    starts, face = set(), min(first_shown)
    while face <= max(first_shown):
        if face.minute in MINUTES[minute] and face.hour in HOURS[hour] and day_fits(window.cron, face):
            shown_at = face
            while shown_at not in first_shown:
                shown_at += timedelta(minutes=1)
            starts.add(float(first_shown[shown_at]))
        face += timedelta(minutes=1)
    return sorted(starts)


CRONS = st.builds(
    "{} {} {} * {}".format,
    st.sampled_from(sorted(MINUTES)),
    st.sampled_from(sorted(HOURS)),
    st.sampled_from(sorted(DATES)),
    st.sampled_from(sorted(WEEKDAYS)),
)
ZONES_AND_MOMENTS = st.sampled_from([(zone, moment) for zone, moments in MOVED.items() for moment in moments])


@st.composite
def situations(draw):
    """One or two lists of windows in one zone, and a minute around the moment at which its clock is moved."""
    zone, moved = draw(ZONES_AND_MOMENTS)
    durations = st.integers(1, 40).map(lambda quarters: quarters * 420.0)
    window = st.builds(Window, CRONS, durations, st.just(zone), st.booleans())
    lists = draw(st.lists(st.lists(window, min_size=1, max_size=3), min_size=1, max_size=2))
    levels = [Level(f"list {number}", tuple(one)) for number, one in enumerate(lists)]
    return levels, at(moved) + draw(st.integers(-300, 300)) * 60.0


def model_open(levels: list[Level], starts: dict[Window, list[float]], now: float) -> bool:
    def active(window):
        return any(start <= now < start + window.duration for start in starts[window])

    for level in levels:
        windows = [window for window in level.windows if not window.freeze]
        if any(active(window) for window in level.windows if window.freeze):
            return False
        if windows and not any(active(window) for window in windows):
            return False
    return True


@settings(deadline=None, max_examples=100)
@given(situations())
def test_what_is_open_is_the_union_of_windows_less_the_freezes(situation):
    levels, now = situation
    begin, end = now - 0.5 * DAY, now + 0.5 * DAY
    starts = {window: model_starts(window, begin, end) for level in levels for window in level.windows}
    found = opening(levels, now)
    assert found.is_open == model_open(levels, starts, now)
    changes = (now + 60.0 * minute for minute in range(int(0.25 * DAY / 60)))
    change = next((moment for moment in changes if model_open(levels, starts, moment) != found.is_open), None)
    told = found.until if found.is_open else found.opens
    if change is None:
        assert told is None or told >= now + 0.25 * DAY
    else:
        assert told == change


@settings(deadline=None, max_examples=300)
@given(
    st.text() | st.lists(st.text("0123456789*/,-#LW@ adeimnorstuw", max_size=6), max_size=7).map(" ".join), st.text()
)
def test_what_cannot_be_understood_is_closed_and_never_raises(cron, zone):
    for window in (Window(cron, HOUR), Window("0 2 * * *", HOUR, zone or "UTC"), Window(cron, HOUR, freeze=True)):
        found = opening(web(window), at("2026-06-01 00:00"))
        assert found.reason


@settings(deadline=None, max_examples=40)
@given(situations(), st.integers(1, 500))
def test_an_answer_holds_as_long_as_it_says(situation, share):
    levels, now = situation
    found = opening(levels, now)
    end = (found.until if found.is_open else found.opens) or now + YEAR
    assume(end < now + YEAR)
    later = now + (end - now) * share / 501
    assert opening(levels, later).is_open == found.is_open

"""Windows and budgets, of a fleet and of the master: each key, right and wrong."""

from __future__ import annotations

from typing import Any

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable.spec import definitions, settings
from saltext.immutable.spec.model import Amount, Budgets, Window


def of_a_fleet(**keys: Any) -> Any:
    web = {"recipe": "base", "size": 6, "minion_id": "web-{token}", "provider": {"name": "nspawn"}, **keys}
    found = {"recipes": {"base": {"from": {"debian": "bookworm"}}}, "fleets": {"web": web}}
    return definitions({"immutable": found}).fleets["web"]


def of_the_master(**keys: Any) -> Any:
    return settings({"immutable": keys})


SOURCES = [
    pytest.param(of_a_fleet, "immutable:fleets:web", id="fleet"),
    pytest.param(of_the_master, "config immutable", id="master"),
]


def refused(read: Any, **keys: Any) -> str:
    with pytest.raises(SaltInvocationError) as err:
        read(**keys)
    return str(err.value)


@pytest.mark.parametrize(("read", "path"), SOURCES)
def test_windows_are_read(read, path):
    given = [
        {"cron": "0 2 * * sat", "duration": "4h", "timezone": "Europe/Berlin"},
        {"cron": "0 0 20 12 *", "duration": "14d", "freeze": True},
    ]
    assert read(windows=given).windows == (
        Window("0 2 * * sat", 4 * 3600.0, "Europe/Berlin"),
        Window("0 0 20 12 *", 14 * 86400.0, "UTC", freeze=True),
    )
    assert read().windows == read(windows=[]).windows == ()


@pytest.mark.parametrize(("read", "path"), SOURCES)
def test_what_a_cron_means_is_judged_where_it_is_used(read, path):
    given = [{"cron": "every saturday", "duration": "4h", "timezone": "Berlin"}]
    assert read(windows=given).windows == (Window("every saturday", 4 * 3600.0, "Berlin"),)


@pytest.mark.parametrize(("read", "path"), SOURCES)
@pytest.mark.parametrize(
    ("windows", "sentence"),
    [
        pytest.param("sat", ":windows: must be a list, not str 'sat'; write [sat]", id="a list"),
        pytest.param(
            {"cron": "0 2 * * sat", "duration": "4h"},
            ":windows: must be a list, not dict {'cron': '0 2 * * sat', 'duration': '4h'}; "
            "write [{'cron': '0 2 * * sat', 'duration': '4h'}]",
            id="one window is a list of one",
        ),
        pytest.param(["sat"], ":windows:0: must be a mapping, not str 'sat'", id="of mappings"),
        pytest.param(
            [{"duration": "4h"}], ":windows:0: cron is missing; write cron: '0 2 * * sat'", id="that begin some time"
        ),
        pytest.param(
            [{"cron": "0 2 * * sat"}], ":windows:0: duration is missing; write duration: 4h", id="and end some time"
        ),
        pytest.param(
            [{"cron": 5, "duration": "4h"}], ":windows:0:cron: must be text, not int 5; quote it", id="cron is text"
        ),
        pytest.param(
            [{"cron": "0 2 * * sat", "duration": "4"}],
            ":windows:0:duration: must be a duration, not str '4'; write 90s, 10m, 1h30m or 30d",
            id="a duration has a unit",
        ),
        pytest.param(
            [{"cron": "0 2 * * sat", "duration": 0}],
            ":windows:0:duration: must be more than 0 and finite, not 0",
            id="and is longer than nothing",
        ),
        pytest.param(
            [{"cron": "0 2 * * sat", "duration": "4h", "timezone": None}],
            ":windows:0:timezone: must be text, not empty; write a value",
            id="a time zone is text",
        ),
        pytest.param(
            [{"cron": "0 2 * * sat", "duration": "4h", "freeze": "yes"}],
            ":windows:0:freeze: must be true or false, not str 'yes'",
            id="freeze is a flag",
        ),
        pytest.param(
            [{"cron": "0 2 * * sat", "duration": "4h"}, {"cron": "0 2 * * sat", "duration": "4h", "tz": "UTC"}],
            ":windows:1:tz: no such key; known here: cron, duration, freeze, timezone",
            id="and no other key",
        ),
    ],
)
def test_windows_are_checked(read, path, windows, sentence):
    assert refused(read, windows=windows) == path + sentence


@pytest.mark.parametrize(("read", "path"), SOURCES)
def test_budgets_are_read(read, path):
    assert read(budgets={"launches": 4, "disruptions": 2}).budgets == Budgets(Amount(4), Amount(2))
    assert read(budgets={"launches": 4}).budgets == Budgets(launches=Amount(4))
    assert read().budgets == read(budgets={}).budgets == Budgets()


def test_a_fleet_has_a_size_that_a_share_is_of():
    assert of_a_fleet(budgets={"launches": "50%"}).budgets.launches == Amount(50, percent=True)


def test_the_master_has_no_size_that_a_share_is_of():
    assert refused(of_the_master, budgets={"launches": 4, "disruptions": "50%"}) == (
        "config immutable:budgets:disruptions: must be a number of machines, not 50%"
    )


@pytest.mark.parametrize(("read", "path"), SOURCES)
@pytest.mark.parametrize(
    ("budgets", "sentence"),
    [
        pytest.param(4, ": must be a mapping, not int 4", id="a mapping"),
        pytest.param(
            {"launches": 0},
            ":launches: must be 1 or more, or nothing could ever be changed; leave it out for no limit",
            id="a budget of nothing",
        ),
        pytest.param(
            {"disruptions": "4"},
            ":disruptions: must be a number of machines or 0% to 100%, not '4'; write 1 or 25%",
            id="a quoted number",
        ),
        pytest.param(
            {"launchs": 1}, ":launchs: no such key; did you mean 'launches'?", id="an unknown key gets the nearest"
        ),
    ],
)
def test_budgets_are_checked(read, path, budgets, sentence):
    assert refused(read, budgets=budgets) == f"{path}:budgets{sentence}"


def test_a_share_of_zero_percent_is_refused():
    assert ":budgets:launches: must be 1 or more" in refused(of_a_fleet, budgets={"launches": "0%"})

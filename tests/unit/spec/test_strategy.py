"""How a fleet goes from one generation to the next: each key, right and wrong."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from salt.exceptions import SaltInvocationError

from saltext.immutable.spec import definitions
from saltext.immutable.spec.model import Amount, Fleet, Strategy, TrafficSpec

HAPROXY = {"haproxy": {"socket": "/run/haproxy/admin.sock", "backend": "web"}}
HERE = "immutable:fleets:web:strategy"


def fleet_with(strategy: Any = None, **keys: Any) -> Fleet:
    web = {"recipe": "base", "size": 6, "minion_id": "web-{token}", "provider": {"name": "nspawn"}, **keys}
    web |= {} if strategy is None else {"strategy": strategy}
    found = {"recipes": {"base": {"from": {"debian": "bookworm"}}}, "fleets": {"web": web}}
    return definitions({"immutable": found}).fleets["web"]


def refused(strategy: Any = None, **keys: Any) -> str:
    with pytest.raises(SaltInvocationError) as err:
        fleet_with(strategy, **keys)
    return str(err.value)


def test_an_absent_strategy_means_the_defaults():
    assert fleet_with().strategy == fleet_with({}).strategy
    assert fleet_with().strategy == Strategy(progress_within=1230.0)


def test_all_of_a_strategy_is_read():
    given = {
        "max_surge": 2,
        "max_unavailable": "34%",
        "steps": [1, "50%", "100%"],
        "soak": "5m",
        "approve": True,
        "ready_within": "2m",
        "min_ready": "30s",
        "unhealthy_for": 20,
        "progress_within": "1h",
        "max_failures": "25%",
        "on_failure": "pause",
        "drain_within": "90s",
        "keep_old": "1h",
        "skip_matching": False,
        "protected": "skip",
        "fast_rollback": 5,
    }
    expected = Strategy(
        max_surge=Amount(2),
        max_unavailable=Amount(34, percent=True),
        steps=(Amount(1), Amount(50, percent=True), Amount(100, percent=True)),
        soak=300.0,
        approve=True,
        ready_within=120.0,
        min_ready=30.0,
        unhealthy_for=20.0,
        progress_within=3600.0,
        max_failures=Amount(25, percent=True),
        on_failure="pause",
        drain_within=90.0,
        keep_old=3600.0,
        skip_matching=False,
        protected="skip",
        fast_rollback=5,
    )
    assert fleet_with(given, traffic=HAPROXY).strategy == expected
    read = {*given, "blue_green"}
    assert read == {field.name for field in fields(Strategy)}, "a key that this test forgot"


def test_blue_green_may_wait_for_approval():
    found = fleet_with({"blue_green": True, "approve": True}).strategy
    assert (found.blue_green, found.approve, found.steps) == (True, True, ())


@pytest.mark.parametrize(
    ("strategy", "within"),
    [
        pytest.param({}, 1230.0, id="twice 10 minutes, and 30 s of draining"),
        pytest.param({"ready_within": "2m"}, 270.0, id="twice 2 minutes, and 30 s"),
        pytest.param({"ready_within": "2m", "min_ready": "5m", "drain_within": 0}, 540.0, id="and what min_ready adds"),
        pytest.param({"progress_within": "15m"}, 900.0, id="as it is written"),
    ],
)
def test_the_default_of_progress_within(strategy, within):
    assert fleet_with(strategy).strategy.progress_within == within


@pytest.mark.parametrize(
    ("value", "failures"),
    [
        pytest.param(0, Amount(0), id="none"),
        pytest.param(3, Amount(3), id="a number"),
        pytest.param("25%", Amount(25, percent=True), id="a share"),
        pytest.param(0.25, Amount(25, percent=True), id="a ratio as Swarm writes it"),
        pytest.param(0.29, Amount(29, percent=True), id="29 hundredths are no whole number times 100 in binary"),
    ],
)
def test_max_failures_is_read(value, failures):
    assert fleet_with({"max_failures": value}).strategy.max_failures == failures


@given(st.integers(1, 99))
def test_every_ratio_of_whole_percents_is_read(percent):
    assert fleet_with({"max_failures": percent / 100}).strategy.max_failures == Amount(percent, percent=True)


@given(st.integers(0, 100), st.integers(0, 200), st.integers(0, 200))
def test_a_share_is_exceeded_by_more_and_not_by_as_much(percent, part, whole):
    assert Amount(percent, percent=True).exceeded(part, whole) == (part > Fraction(percent, 100) * whole)
    assert Amount(percent).exceeded(part, whole) == (part > percent)


@pytest.mark.parametrize(
    ("size", "steps"),
    [
        pytest.param(6, [1, "50%", "100%"], id="a number, then shares"),
        pytest.param(6, [1, 3, 6], id="numbers up to all"),
        pytest.param(1, [1, "50%", "100%"], id="all of one machine three times"),
        pytest.param(0, [1, "50%", "100%"], id="an empty fleet"),
        pytest.param(3, [5, "100%"], id="more than there are is all"),
        pytest.param(3, [1, 5], id="the last may be more than there are"),
        pytest.param(6, ["100%"], id="one step"),
        pytest.param(6, [], id="none"),
    ],
)
def test_steps_that_ascend(size, steps):
    assert len(fleet_with({"steps": steps}, size=size).strategy.steps) == len(steps)


@pytest.mark.parametrize(
    ("size", "steps", "sentence"),
    [
        pytest.param(6, 3, f"{HERE}:steps: must be a list, not int 3; write [3]", id="one step is a list"),
        pytest.param(6, [0, "100%"], f"{HERE}:steps: a step of 0 machines does nothing", id="no step of nobody"),
        pytest.param(6, ["0%", "100%"], f"{HERE}:steps: a step of 0 machines does nothing", id="nor in percent"),
        pytest.param(6, [2, 1, "100%"], f"{HERE}:steps: must ascend, but 1 comes after 2", id="numbers ascend"),
        pytest.param(6, ["50%", "50%"], f"{HERE}:steps: must ascend, but 50% comes after 50%", id="and differ"),
        pytest.param(
            6,
            [4, "50%", "100%"],
            f"{HERE}: steps must ascend, but [4, 50%, 100%] of 6 machines are [4, 3, 6]",
            id="mixed",
        ),
        pytest.param(6, [1, "50%"], f"{HERE}: the last step must be all machines, not 50%", id="half is not all"),
        pytest.param(6, [1, 5], f"{HERE}: the last step must be all machines, not 5; write [..., 100%]", id="nor is 5"),
        pytest.param(6, ["1/3"], f"{HERE}:steps: must be a number of machines or 0% to 100%, not '1/3'", id="a part"),
        pytest.param(6, [1.5], f"{HERE}:steps: must be a whole number, not float 1.5", id="half a machine"),
        pytest.param(6, [-1], f"{HERE}:steps: must be 0 or more, not -1", id="less than nobody"),
    ],
)
def test_wrong_steps_are_refused(size, steps, sentence):
    assert sentence in refused({"steps": steps}, size=size)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        pytest.param("max_surge", "1.5%", "must be a number of machines or 0% to 100%, not '1.5%'", id="max_surge"),
        pytest.param("max_unavailable", -1, "must be 0 or more, not -1", id="max_unavailable"),
        pytest.param("soak", "5 min", "must be a duration, not str '5 min'; write 90s, 10m, 1h30m or 30d", id="soak"),
        pytest.param("soak", False, "must be a duration, not bool False", id="soak false"),
        pytest.param("approve", "yes", "must be true or false, not str 'yes'", id="approve"),
        pytest.param("blue_green", 1, "must be true or false, not int 1", id="blue_green"),
        pytest.param("ready_within", 0, "must be more than 0 and finite, not 0", id="ready_within"),
        pytest.param("min_ready", -1, "must be more than 0 and finite, not -1", id="min_ready"),
        pytest.param("unhealthy_for", 0, "must be more than 0", id="unhealthy_for"),
        pytest.param("progress_within", None, "must be a duration, not empty", id="progress_within"),
        pytest.param(
            "max_failures", 1.5, "must be a number of machines or a percentage such as 25%", id="max_failures"
        ),
        pytest.param("max_failures", 0.125, "must be a number of machines or a percentage", id="max_failures in mille"),
        pytest.param("max_failures", "200%", "must be a number of machines or 0% to 100%", id="max_failures of more"),
        pytest.param("on_failure", "abort", "must be rollback or pause, not str 'abort'", id="on_failure"),
        pytest.param("drain_within", "never", "must be a duration, not str 'never'", id="drain_within"),
        pytest.param("keep_old", float("inf"), "must be more than 0 and finite", id="keep_old"),
        pytest.param("skip_matching", "no", "must be true or false, not str 'no'", id="skip_matching"),
        pytest.param("protected", "ask", "must be wait or skip, not str 'ask'", id="protected"),
        pytest.param("protected", None, "must be wait or skip, not empty", id="protected and nothing said"),
        pytest.param("fast_rollback", "3", "must be a whole number, not str '3'", id="fast_rollback"),
        pytest.param("maxSurge", 1, "no such key; did you mean 'max_surge'?", id="as Kubernetes writes it"),
        pytest.param("min_healthy", "90%", "no such key; did you mean", id="as Auto Scaling calls it"),
    ],
)
def test_an_error_names_the_path_and_what_to_write(key, value, sentence):
    assert f"{HERE}:{key}: {sentence}" in refused({key: value})


@pytest.mark.parametrize(
    ("strategy", "keys", "sentence"),
    [
        pytest.param(
            {"blue_green": True, "steps": [1, "100%"]},
            {},
            "blue_green switches the traffic at once, so there can be no steps; leave out one of the two",
            id="blue-green has no steps",
        ),
        pytest.param(
            {"approve": True},
            {},
            "approve waits between steps, but there are no steps; write steps: [1, 100%]",
            id="approve",
        ),
        pytest.param(
            {"keep_old": "1h"},
            {},
            "keep_old needs traffic, which takes an old machine out of use; leave it out, or configure traffic",
            id="what is kept is out of the traffic",
        ),
        pytest.param(
            {"ready_within": "10m", "progress_within": "5m"},
            {},
            "progress_within (300 s) is shorter than ready_within (600 s), so a slow boot that ready_within",
            id="a boot that is allowed is no standstill",
        ),
        pytest.param(
            {"min_ready": "30m", "progress_within": "30m"},
            {},
            "progress_within (1800 s) is not longer than min_ready (1800 s), so waiting for that would pause",
            id="nor is waiting for min_ready",
        ),
        pytest.param(
            {"drain_within": "30m", "progress_within": "20m"},
            {"traffic": HAPROXY},
            "progress_within (1200 s) is not longer than drain_within (1800 s)",
            id="nor is draining",
        ),
        pytest.param(
            {},
            {"max_age": "20m"},
            "the fleet's max_age (1200 s) is not longer than progress_within (1230 s), so new machines would be",
            id="no machine is too old before the fleet is new",
        ),
        pytest.param(
            {"max_surge": 0, "max_unavailable": 0}, {}, "both 0, so no machine could ever be replaced", id="no room"
        ),
        pytest.param(
            {"max_surge": 0, "max_unavailable": "16%"},
            {},
            "max_surge is 0 and max_unavailable 16% of 6 rounds down to 0",
            id="no room by rounding",
        ),
        pytest.param(
            {"max_unavailable": 6},
            {},
            "max_unavailable 6 of 6 would let a rollout leave no machine serving",
            id="an outage",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(strategy, keys, sentence):
    error = refused(strategy, **keys)
    assert error.startswith(f"{HERE}: ")
    assert sentence in error


@pytest.mark.parametrize(
    ("strategy", "keys"),
    [
        pytest.param({"blue_green": True, "max_surge": 0}, {}, id="blue-green brings its own surge"),
        pytest.param({"drain_within": "2h", "progress_within": "20m"}, {}, id="without traffic nothing drains"),
        pytest.param({"keep_old": 0}, {}, id="keep_old that is off needs no traffic"),
        pytest.param({"max_surge": 0, "max_unavailable": "17%"}, {}, id="17 % of 6 is one"),
        pytest.param({"max_unavailable": "100%"}, {"allow_outage": True}, id="an outage that is meant"),
        pytest.param({"soak": "2h"}, {}, id="a soak may be longer than progress_within"),
    ],
)
def test_settings_that_do_not_contradict_each_other_are_accepted(strategy, keys):
    fleet_with(strategy, **keys)


def test_all_errors_of_a_strategy_are_reported_at_once():
    error = refused({"max_surge": "x", "steps": [0], "onfailure": "pause"}).splitlines()
    assert [line.split(": ")[0] for line in error] == [f"{HERE}:{key}" for key in ("max_surge", "steps", "onfailure")]


# What else a fleet says about its rollouts


def test_the_rest_of_a_fleet_is_read():
    found = fleet_with(
        traffic=HAPROXY, max_age="30d", sick_limit=2, unreachable_for="5m", orphan_grace="2h", allow_outage=True
    )
    assert found.traffic == TrafficSpec("haproxy", HAPROXY["haproxy"])
    assert (found.max_age, found.sick_limit) == (30 * 86400.0, Amount(2))
    assert (found.unreachable_for, found.orphan_grace, found.allow_outage) == (300.0, 7200.0, True)


def test_a_fleet_has_defaults():
    found = fleet_with()
    assert (found.traffic, found.max_age, found.sick_limit) == (None, None, Amount(20, percent=True))
    assert (found.unreachable_for, found.orphan_grace, found.windows) == (600.0, 3600.0, ())


def test_an_adapter_without_settings_is_read():
    assert fleet_with(traffic={"lvs": None}).traffic == TrafficSpec("lvs")


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        pytest.param(
            {"traffic": "haproxy"},
            "immutable:fleets:web:traffic: must be a mapping, not str 'haproxy'",
            id="traffic is a mapping",
        ),
        pytest.param(
            {"traffic": {}},
            "immutable:fleets:web:traffic: must name one adapter; "
            "write traffic: {haproxy: {socket: ..., backend: web}}",
            id="traffic goes somewhere",
        ),
        pytest.param(
            {"traffic": {"haproxy": {}, "lvs": {}}},
            "immutable:fleets:web:traffic: must name one adapter; "
            "write traffic: {haproxy: {socket: ..., backend: web}}",
            id="and to one place",
        ),
        pytest.param(
            {"traffic": {"haproxy": "/run/haproxy.sock"}},
            "immutable:fleets:web:traffic:haproxy: must be a mapping, not str '/run/haproxy.sock'",
            id="its settings are a mapping",
        ),
        pytest.param(
            {"max_age": "1 month"},
            "immutable:fleets:web:max_age: must be a duration, not str '1 month'; write 90s, 10m, 1h30m or 30d",
            id="max_age",
        ),
        pytest.param(
            {"sick_limit": 0.2},
            "immutable:fleets:web:sick_limit: must be a whole number, not float 0.2; write it without quotes",
            id="sick_limit",
        ),
        pytest.param(
            {"unreachable_for": 0},
            "immutable:fleets:web:unreachable_for: must be more than 0 and finite, not 0",
            id="unreachable_for",
        ),
        pytest.param(
            {"orphan_grace": True},
            "immutable:fleets:web:orphan_grace: must be a duration, not bool True; write 90s, 10m, 1h30m or 30d",
            id="orphan_grace",
        ),
        pytest.param(
            {"allow_outage": "true"},
            "immutable:fleets:web:allow_outage: must be true or false, not str 'true'",
            id="allow_outage",
        ),
        pytest.param(
            {"window": []}, "immutable:fleets:web:window: no such key; did you mean 'windows'?", id="an unknown key"
        ),
    ],
)
def test_the_rest_of_a_fleet_is_checked(keys, error):
    assert refused(**keys) == error

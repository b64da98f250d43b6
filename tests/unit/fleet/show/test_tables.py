"""The text for terminals: correct, complete at any width, and safe whatever its content."""

from __future__ import annotations

import string

import hypothesis
import pytest
from hypothesis import strategies as some

from saltext.immutable.fleet.show import tables

WEB_A, WEB_B = "web-6f1c0d2a93b47e58.example.com", "web-0a1b2c3d4e5f6071.example.com"
MACHINES = [
    {
        "minion_id": WEB_A,
        "generation": 2,
        "image": "web@111111111111",
        "phase": "serving",
        "address": "10.0.0.2",
        "age": 273_600,
        "tainted": ["changed nginx.conf by hand"],
    },
    {
        "minion_id": WEB_B,
        "generation": 3,
        "image": "web@222222222222",
        "phase": "booting",
        "address": None,
        "age": 4,
        "tainted": [],
    },
]
ROLLOUT = {
    "id": 12,
    "kind": "roll",
    "from": 2,
    "to": 3,
    "started": "2026-11-28 02:00:00+00:00",
    "seconds": None,
    "outcome": "unfinished",
    "verdict": "2 of 6 healthy on generation 3, step 1 of 3 (2)",
    "reason": "",
    "progress": [2, 6],
}
WEB = {
    "fleet": "web",
    "generation": 2,
    "image": "web@111111111111",
    "size": 2,
    "wanted": 3,
    "machines": MACHINES,
    "rollout": ROLLOUT,
    "held_by": "pid 7 on master",
}


def test_a_fleet_on_a_wide_terminal():
    assert tables.status(WEB, 120).splitlines() == [
        "fleet web: 2 of 3 machines, generation 2, web@111111111111",
        "roll 12: unfinished",
        "  [######..............] 2 of 6 healthy on generation 3, step 1 of 3 (2)",
        "held by: pid 7 on master",
        "",
        "MACHINE                           GEN  IMAGE             PHASE    AGE",
        "web-6f1c0d2a93b47e58.example.com  2    web@111111111111  serving  3d 4h",
        "    tainted: changed nginx.conf by hand",
        "web-0a1b2c3d4e5f6071.example.com  3    web@222222222222  booting  4s",
    ]


def test_a_fleet_on_a_narrow_terminal_loses_nothing():
    shown = tables.status(WEB, 40).splitlines()
    assert shown[shown.index(WEB_A) :] == [
        WEB_A,
        "    gen 2, image web@111111111111, phase",
        "      serving, age 3d 4h",
        "    tainted: changed nginx.conf by hand",
        WEB_B,
        "    gen 3, image web@222222222222, phase",
        "      booting, age 4s",
    ]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param({"rollout": None, "generation": None, "image": None}, "nothing was rolled out yet", id="new"),
        pytest.param({"wanted": None}, "fleet web: 2 machines, generation 2", id="gone from the pillar"),
        pytest.param({"size_set": "5 by fleet.scale"}, "size: 5 by fleet.scale", id="another size than the pillar's"),
        pytest.param({"orders": ["pause, by jane"]}, "order: pause, by jane", id="an order that waits"),
        pytest.param(
            {"rollout": {**ROLLOUT, "outcome": "done", "seconds": 61.0, "progress": None}},
            "roll 12 of 2026-11-28 02:00:00+00:00: done after 1m 1s",
            id="a rollout that ended",
        ),
        pytest.param(
            {
                "rollout": {
                    **ROLLOUT,
                    "outcome": "paused",
                    "paused_by": "failure",
                    "reason": "`salt-run fleet.resume web` goes on",
                }
            },
            "step 1 of 3 (2)\n  `salt-run fleet.resume web` goes on\n",
            id="what leads on from a pause",
        ),
        pytest.param(
            {"machines": [{**MACHINES[1], "protected": "a debugger is at it", "kept_for": 90, "note": "no answer"}]},
            "    protected: a debugger is at it\n    kept for another 1m 30s\n    no answer",
            id="what else is to be said of a machine",
        ),
    ],
)
def test_the_head_says(changes, text):
    assert text in tables.status({**WEB, **changes}, 120)


def test_all_fleets_and_what_no_fleet_launched():
    empty = {"fleet": "db", "generation": None, "image": None, "size": 0, "wanted": 2}
    empty |= {"machines": [], "rollout": None, "held_by": None, "unlisted": "the provider does not answer"}
    shown = tables.status({"fleets": {"db": empty, "web": WEB}, "adopted": {"pet": ["drifted"]}}, 120).split("\n\n")
    assert shown[0] == "fleet db: 0 of 2 machines, nothing was rolled out yet\nthe provider does not answer"
    assert shown[1].startswith("fleet web: 2 of 3")
    assert shown[-1] == "tainted machines that no fleet launched\n  pet: drifted"
    assert tables.status({"fleets": {}, "adopted": {}}, 80) == "there is no fleet"


SHOWN = {
    "id": 12,
    "fleet": "web",
    "kind": "roll",
    "outcome": "rolled back",
    "started": "2026-11-28 02:00:00+00:00",
    "seconds": 41.2,
    "from": {"generation": 2, "image": "web@111111111111", "provider": "nspawn"},
    "to": {"generation": 3, "image": "web@222222222222", "provider": "nspawn"},
    "settings_changed": ["memory: 1G -> 2G"],
    "verdict": "3 of 3 healthy on generation 2",
    "reason": "nginx is dead",
    "orders": [
        {"at": "2026-11-28 02:00:30+00:00", "rollout": 12, "what": "back", "who": "jane", "reason": "", "taken": False}
    ],
    "timeline": [
        {"at": 0.0, "what": "launch", "minion_id": WEB_B, "reason": "1 of 3 on generation 3"},
        {"at": 9.26, "what": "console", "minion_id": WEB_B, "reason": "line one\n\x1b[31mline two"},
        {"at": 41.2, "what": "back", "reason": "nginx is dead"},
    ],
}


def test_a_rollout_as_a_timeline():
    assert tables.rollout(SHOWN, 120).splitlines() == [
        "roll 12 of fleet web: rolled back",
        "started 2026-11-28 02:00:00+00:00, took 41s",
        "from: generation 2, web@111111111111, provider nspawn",
        "to: generation 3, web@222222222222, provider nspawn",
        "settings changed: memory: 1G -> 2G",
        "verdict: 3 of 3 healthy on generation 2",
        "reason: nginx is dead",
        "ordered 2026-11-28 02:00:30+00:00: back by jane (not applied yet)",
        "",
        " 0.0 s  launch   web-0a1b2c3d4e5f6071.example.com  1 of 3 on generation 3",
        " 9.3 s  console  web-0a1b2c3d4e5f6071.example.com",
        "                                                   line one",
        "                                                   \\x1b[31mline two",
        "41.2 s  back                                       nginx is dead",
    ]


def test_on_a_narrow_terminal_reasons_stand_below():
    shown = tables.rollout(SHOWN, 60).splitlines()
    at = shown.index(f" 0.0 s  launch   {WEB_B}")
    assert shown[at + 1] == "    1 of 3 on generation 3"


def test_of_a_long_console_the_end_is_shown():
    console = {"at": 1.0, "what": "console", "minion_id": WEB_A, "reason": "\n".join(map(str, range(100)))}
    shown = [row.strip() for row in tables.timeline([console], 120)]
    assert shown[1] == "(75 lines before this: --out=json)"
    assert shown[2:] == [str(number) for number in range(75, 100)]


PLAN = {
    "fleet": "web",
    "verdict": "roll",
    "reason": "1 to launch, 1 to destroy",
    "generation": 2,
    "image": "web@222222222222",
    "plan": "p1a2b3c4d",
    "warnings": ["the master has open_mode: True"],
    "actions": [
        {"kind": "launch", "generation": 3, "reason": "1 of 1 on generation 3"},
        {"kind": "destroy", "generation": 2, "reason": "generation 2 goes", "minion_id": WEB_A},
    ],
    "difference": {
        "from": "web@111111111111",
        "to": "web@222222222222",
        "same": False,
        "packages": {"changed": {f"p{number:02}": "1 -> 2" for number in range(15)}},
        "states": {"added": ["web.tls"]},
        "also": ["the pillar of web"],
        "size": -1_500_000,
        "unknown": ["the weather"],
    },
}


def test_a_plan_names_actions_differences_and_the_command_that_does_it():
    packages = ", ".join(f"p{number:02} 1 -> 2" for number in range(12))
    assert tables.plan(PLAN, 250).splitlines() == [
        "warning: the master has open_mode: True",
        "fleet web: roll: 1 to launch, 1 to destroy",
        "image web@222222222222 would run",
        "",
        "   WHAT     MACHINE                           WHY",
        "1  launch   a new one of generation 3         1 of 1 on generation 3",
        "2  destroy  web-6f1c0d2a93b47e58.example.com  generation 2 goes",
        "",
        "from web@111111111111 to web@222222222222:",
        f"  packages changed (15): {packages}, and 3 more (--out=json)",
        "  states added (1): web.tls",
        "  also changed: the pillar of web",
        "  size: -1.5 MB",
        "  unknown: the weather",
        "",
        "run exactly this plan: salt-run fleet.roll web plan=p1a2b3c4d",
    ]


def test_a_plan_with_nothing_to_do():
    nothing = {"verdict": "done", "reason": "every machine is as it should be", "actions": []}
    data = {**PLAN, **nothing, "plan": None, "difference": None, "warnings": []}
    assert tables.plan(data, 80) == "fleet web: done: every machine is as it should be"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "0s"), (0, "0s"), (0.9, "0s"), (59, "59s"), (3600, "1h"), (3661, "1h 1m"), (90_000, "1d 1h")],
)
def test_how_long(seconds, text):
    assert tables.span(seconds) == text


@pytest.mark.parametrize(("done", "whole", "full"), [(0, 6, 0), (6, 6, 20), (9, 6, 20), (0, 0, 20), (1, 3, 6)])
def test_a_bar_has_always_the_same_width(done, whole, full):
    assert tables.bar(done, whole) == f"[{'#' * full}{'.' * (20 - full)}]"


ANYTHING = some.text(max_size=120) | some.sampled_from(["\x1b[2J", "a\nb", "\u202e", "x" * 200, "-" * 90])


@hypothesis.given(ANYTHING, ANYTHING, ANYTHING, some.integers(0, 200))
def test_any_text_fits_and_is_printable(one, two, three, width):
    machine = {**MACHINES[0], "image": one, "tainted": [two], "protected": three, "note": one}
    fleet = {**WEB, "machines": [machine], "rollout": {**ROLLOUT, "reason": two, "verdict": three}}
    entry = {"at": 1.0, "what": "console", "minion_id": WEB_A, "reason": f"{one}\n{two}"}
    action = {"kind": "launch", "generation": 1, "reason": one, "minion_id": None}
    difference = {**PLAN["difference"], "states": {"added": [two]}, "also": [three]}
    for shown in (
        tables.status(fleet, width),
        tables.rollout({**SHOWN, "reason": three, "timeline": [entry]}, width),
        tables.plan({**PLAN, "actions": [action], "difference": difference}, width),
    ):
        for row in shown.splitlines():
            assert len(row) <= max(width, tables.MIN_WIDTH), row
        assert shown.replace("\n", "").isprintable()


def test_every_letter_of_a_reason_is_shown():
    shown = tables.status({**WEB, "rollout": {**ROLLOUT, "reason": string.ascii_letters * 3}}, 30)
    assert string.ascii_letters * 3 in shown.replace("\n", "").replace(" ", "")

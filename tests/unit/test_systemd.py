"""What systemd says of units, by answers as it gives them."""

from __future__ import annotations

from subprocess import CompletedProcess

import pytest

from saltext.immutable import systemd

CONDITION = "ConditionCapability=CAP_SYS_TIME"


@pytest.fixture
def said(monkeypatch):
    """Answers of systemd by the first word of the command: output, and exit code."""
    answers: dict[str, tuple[str, int]] = {}

    def run(*words: str, program: str = "systemctl") -> CompletedProcess[str] | None:
        output, code = answers.get(words[0], ("", 1))
        return CompletedProcess([program, *words], code, output, "")

    monkeypatch.setattr(systemd, "run", run)
    return answers


def test_a_device_that_is_not_there_is_named(said):
    name = r"dev-virtio\x2dports-org.qemu.guest_agent.0.device"
    quoted = name.replace("\\", "\\\\")
    said["show"] = (f'Requires=sysinit.target system.slice\nRequisite=\nBindsTo="{quoted}"\n', 0)
    said["is-active"] = ("inactive\n", 3)
    assert systemd.missing_device("qemu-guest-agent.service") == f"it needs {name}"
    said["is-active"] = ("active\n", 0)
    assert systemd.missing_device("qemu-guest-agent.service") is None
    said["show"] = ("Requires=sysinit.target\nRequisite=\nBindsTo=\n", 0)
    said["is-active"] = ("inactive\n", 3)
    assert systemd.missing_device("nginx.service") is None


def shown(condition: str = "yes", assertion: str = "yes", when: int = 7) -> str:
    return (
        f"ConditionResult={condition}\nConditionTimestampMonotonic={when}\n"
        f"AssertResult={assertion}\nAssertTimestampMonotonic={when}\n"
    )


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        pytest.param(
            {"show": (shown("no"), 0), "status": (f"  └─ {CONDITION} was not met\n", 3)},
            CONDITION,
            id="a start that was skipped",
        ),
        pytest.param(
            {"--no-pager": (f"x.service was skipped because of an unmet condition check ({CONDITION}).\n", 0)},
            CONDITION,
            id="systemd has forgotten it, and its programs have rights that its init has not",
        ),
        pytest.param({"--no-pager": ("Started x.service.\n", 0)}, None, id="a start that was not skipped"),
        pytest.param(
            {"show": (shown("no"), 0), "status": ("", 3), "condition": (f"x: {CONDITION} failed.\n", 1)},
            CONDITION,
            id="its status does not name it",
        ),
        pytest.param(
            {"show": (shown("yes", "no"), 0), "status": ("AssertPathExists=/x was not met\n", 3)},
            "AssertPathExists=/x",
            id="an assertion",
        ),
        pytest.param(
            {"show": (shown("no", when=0), 0), "condition": (f"chrony.service: {CONDITION} failed.\nfailed.\n", 1)},
            CONDITION,
            id="systemd has forgotten the start",
        ),
        pytest.param(
            {
                "show": (shown("no", when=0), 0),
                "--boot": (f"x.service - x was skipped because of an unmet condition check ({CONDITION}).\n", 0),
                "condition": ("Conditions succeeded.\n", 0),
            },
            CONDITION,
            id="so have those who may more than a unit, but its journal has not",
        ),
        pytest.param(
            {"show": (shown("no", when=0), 0), "--boot": ("x.service: Failed with result 'exit-code'.\n", 0)},
            None,
            id="it was started later and failed",
        ),
        pytest.param(
            {"condition": (f"x: AssertPathExists=/x failed.\nx: {CONDITION} failed.\nConditions failed.\n", 1)},
            CONDITION,
            id="a condition says more than an assertion",
        ),
        pytest.param(
            {"show": (shown("no", when=0), 0), "condition": (f"x: {CONDITION} failed.\nConditions succeeded.\n", 0)},
            None,
            id="one of several alternatives is met",
        ),
        pytest.param({"show": (shown(), 0), "condition": ("Unknown option\n", 1)}, None, id="another failure"),
        pytest.param({}, None, id="no systemd"),
    ],
)
def test_why_a_start_is_skipped(said, answers, reason):
    said.update(answers)
    assert systemd.unmet_condition("chrony.service") == reason


@pytest.mark.parametrize(
    ("condition", "place"),
    [
        ("ConditionVirtualization=!container", True),
        ("ConditionCapability=CAP_SYS_TIME", True),
        ("ConditionSecurity=apparmor", True),
        ("ConditionKernelCommandLine=!audit=0", True),
        ("ConditionPathExists=/dev/rtc0", True),
        ("ConditionPathIsReadWrite=|/sys/kernel", True),
        ("ConditionDirectoryNotEmpty=!/sys/class/net", True),
        ("AssertPathExists=/proc/mdstat", True),
        ("ConditionPathExists=/etc/app/app.conf", False),
        ("ConditionFileIsExecutable=/usr/bin/app", False),
        ("ConditionPathExists=!/devices", False),
        ("ConditionEnvironment=X=/dev/y", False),
        ("AssertUser=app", False),
    ],
)
def test_a_condition_on_the_place_may_be_met_elsewhere_and_one_on_a_file_was_forgotten(condition, place):
    assert systemd.is_of_place(condition) is place


def test_a_unit_is_described_by_its_status_and_its_journal(said):
    said["status"] = ("● nginx.service\n   Active: failed\n", 3)
    said["--no-pager"] = ("emerg: unknown directive\n", 0)
    described = systemd.describe("nginx.service")
    assert described == "● nginx.service\n   Active: failed\nLast lines of its journal:\nemerg: unknown directive"


def test_without_systemd_nothing_is_said(monkeypatch):
    monkeypatch.setattr(systemd, "run", lambda *_, **__: None)
    assert (systemd.missing_device("a.service"), systemd.unmet_condition("a.service")) == (None, None)
    assert systemd.describe("a.service") == ""


def properties(active: str, loaded: str = "loaded", result: str = "success", enabled: str = "enabled") -> str:
    return f"LoadState={loaded}\nActiveState={active}\nResult={result}\nUnitFileState={enabled}\n"


@pytest.mark.parametrize(
    ("shown_state", "answers", "state", "runs"),
    [
        pytest.param(properties("active"), {}, "active", True, id="it runs"),
        pytest.param(properties("reloading"), {}, "active", True, id="it reloads"),
        pytest.param(properties("activating"), {}, "activating", False, id="not yet"),
        pytest.param(properties("failed", result="exit-code"), {}, "failed (exit-code)", False, id="it failed"),
        pytest.param(properties("inactive", "not-found"), {}, "not-found", False, id="its package is gone"),
        pytest.param(properties("inactive", "masked"), {}, "masked", False, id="masked"),
        pytest.param(properties("inactive"), {}, "inactive", False, id="it was stopped, or has ended"),
        pytest.param(
            properties("inactive", enabled="disabled"),
            {},
            "inactive: nothing starts it at boot (enable: True in its service.running does)",
            False,
            id="nobody enabled it",
        ),
        pytest.param(
            properties("inactive", enabled="disabled") + "TriggeredBy=x.socket\n",
            {"is-active": ("active\n", 0)},
            "waiting: x.socket starts it",
            True,
            id="its socket starts it",
        ),
        pytest.param(
            properties("inactive", enabled="disabled") + "TriggeredBy=x.socket\n",
            {"is-active": ("inactive\n", 3)},
            "inactive",
            False,
            id="its socket does not listen",
        ),
        pytest.param(
            properties("inactive", enabled="static") + "Type=dbus\n", {}, "waiting: D-Bus starts it", True, id="D-Bus"
        ),
        pytest.param(
            properties("inactive"),
            {"condition": (f"x: {CONDITION} failed.\n", 1)},
            f"not applicable: {CONDITION} is not met",
            True,
            id="no container may set the clock",
        ),
        pytest.param(
            properties("inactive"),
            {"condition": ("x: ConditionPathExists=/etc/app.conf failed.\n", 1)},
            "inactive: ConditionPathExists=/etc/app.conf is not met",
            False,
            id="a file is missing",
        ),
    ],
)
def test_how_a_unit_is(said, shown_state, answers, state, runs):
    said.update({"show": (shown_state, 0), **answers})
    assert systemd.states(["x.service"]) == {"x.service": state}
    assert systemd.runs(state) is runs


def test_several_units_are_asked_about_at_once_and_keep_their_names(said):
    """systemd shows the name of the unit that an alias stands for."""
    said["show"] = (properties("active") + "\n" + properties("failed", result="timeout"), 0)
    assert systemd.states(["mysql.service", "x.timer"]) == {"mysql.service": "active", "x.timer": "failed (timeout)"}
    assert systemd.states([]) == {}


def test_a_unit_of_which_systemd_says_nothing_does_not_run(said):
    [state] = systemd.states(["nginx.service"]).values()
    assert not systemd.runs(state)


@pytest.mark.parametrize(("state", "absent"), [("not-found", True), ("masked", True), ("loaded", False)])
def test_a_unit_is_absent_where_systemd_has_none_of_its_name_or_masks_it(said, state, absent):
    said["show"] = (f"LoadState={state}\n", 0)
    assert systemd.is_absent("x.service") is absent
    said.clear()
    assert not systemd.is_absent("x.service"), "where systemd says nothing, nothing is known"

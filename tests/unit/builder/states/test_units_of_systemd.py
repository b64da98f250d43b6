"""What systemd says of units, by answers as it gives them."""

from __future__ import annotations

from subprocess import CompletedProcess

import pytest

from saltext.immutable.builder.states import units

CONDITION = "ConditionCapability=CAP_SYS_TIME"


@pytest.fixture
def systemd(monkeypatch):
    """Answers of systemd by the first word of the command: output, and exit code."""
    answers: dict[str, tuple[str, int]] = {}

    def run(*words: str, program: str = "systemctl") -> CompletedProcess[str] | None:
        output, code = answers.get(words[0], ("", 1))
        return CompletedProcess([program, *words], code, output, "")

    monkeypatch.setattr(units, "run", run)
    return answers


def test_a_device_that_is_not_there_is_named(systemd):
    name = r"dev-virtio\x2dports-org.qemu.guest_agent.0.device"
    quoted = name.replace("\\", "\\\\")
    systemd["show"] = (f'Requires=sysinit.target system.slice\nRequisite=\nBindsTo="{quoted}"\n', 0)
    systemd["is-active"] = ("inactive\n", 3)
    assert units.missing_device("qemu-guest-agent.service") == f"it needs {name}"
    systemd["is-active"] = ("active\n", 0)
    assert units.missing_device("qemu-guest-agent.service") is None
    systemd["show"] = ("Requires=sysinit.target\nRequisite=\nBindsTo=\n", 0)
    systemd["is-active"] = ("inactive\n", 3)
    assert units.missing_device("nginx.service") is None


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
def test_why_a_start_is_skipped(systemd, answers, reason):
    systemd.update(answers)
    assert units.unmet_condition("chrony.service") == reason


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
    assert units.is_of_place(condition) is place


def test_a_unit_is_described_by_its_status_and_its_journal(systemd):
    systemd["status"] = ("● nginx.service\n   Active: failed\n", 3)
    systemd["--no-pager"] = ("emerg: unknown directive\n", 0)
    said = units.describe("nginx.service")
    assert said == "● nginx.service\n   Active: failed\nLast lines of its journal:\nemerg: unknown directive"


def test_without_systemd_nothing_is_said(monkeypatch):
    monkeypatch.setattr(units, "run", lambda *_, **__: None)
    assert (units.missing_device("a.service"), units.unmet_condition("a.service")) == (None, None)
    assert units.describe("a.service") == ""

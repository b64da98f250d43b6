"""The launch phase: what is applied, when it is over, what is reported. No Salt runs here."""

from __future__ import annotations

import json

import pytest
from salt.exceptions import CommandExecutionError, SaltClientError, SaltReqTimeoutError

from saltext.immutable.guard import launch

ONE = {"sls": ["secrets", "peers"], "saltenv": "base", "pillarenv": None}
TWO = {"sls": ["secrets"], "saltenv": "prod", "pillarenv": "blue"}
POLICY = {"at_launch": [ONE], "writable": ["/srv/data", "/var/x"]}
NOTHING = {"at_launch": [], "writable": ["/srv/data"]}


def state(name: str, result: bool | None, comment: str = "") -> dict[str, object]:
    return {"__id__": name, "result": result, "comment": comment}


class Salt:
    """Salt's API, which says what it is given; an exception is raised."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[object, ...]] = []

    def cmd(self, fun: str, mods: list[str], **kwargs: object) -> object:
        self.calls.append((fun, mods, kwargs))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def run(steps, salt, slept=None):
    return launch.run_phase(steps, lambda: salt, sleep=(slept if slept is not None else []).append, clock=lambda: 7.0)


def test_each_step_is_applied_in_its_own_environment_and_for_real():
    salt = Salt({"a": state("a", True)}, {"b": state("b", True)})
    result = run([ONE, TWO], salt)
    assert salt.calls == [
        ("state.sls", ["secrets", "peers"], {"test": False, "concurrent": True, "saltenv": "base"}),
        ("state.sls", ["secrets"], {"test": False, "concurrent": True, "saltenv": "prod", "pillarenv": "blue"}),
    ]
    sls = ["secrets", "peers", "secrets"]
    assert result == {"ok": True, "sls": sls, "failed": {}, "seconds": 0.0}


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        pytest.param({}, {}, id="nothing to do is well done"),
        pytest.param(
            {"x": state("fine", True), "y": state("db", False, "no route ")},
            {"db": "no route"},
            id="a state that failed",
        ),
        pytest.param({"x": state("db", None, "would change")}, {"db": "would change"}, id="one that was not applied"),
        pytest.param(
            {"x": state("db", False, "one"), "y": state("db", False, "two")}, {"db": "one\ntwo"}, id="two of one id"
        ),
        pytest.param(["No matching sls", "and more"], {"secrets, peers": "No matching sls\nand more"}, id="no states"),
        pytest.param(CommandExecutionError("broken"), {"launch": "CommandExecutionError: broken"}, id="Salt said no"),
        pytest.param(KeyError("x"), {"launch": "KeyError: 'x'"}, id="a defect"),
    ],
)
def test_failures_are_reported_by_state(answer, failed):
    result = run([ONE], Salt(answer))
    assert (result["ok"], result["failed"]) == (not failed, failed)


@pytest.mark.parametrize("unreachable", [SaltClientError("no key"), SaltReqTimeoutError("silence"), SystemExit(1)])
def test_a_master_that_cannot_be_reached_is_waited_for_and_all_is_applied_again(unreachable):
    slept: list[float] = []
    salt = Salt({"a": state("a", True)}, unreachable, {"a": state("a", True)}, {"b": state("b", True)})
    assert run([ONE, TWO], salt, slept)["ok"]
    assert len(salt.calls) == 4
    assert len(slept) == 1 and slept[0] > 0


@pytest.fixture
def outcome(tmp_path):
    """Return what the machine reports after its phase wrote this."""

    def read(policy, **result):
        path = tmp_path / "launch.json"
        if result:
            path.write_text(
                json.dumps({"boot_id": "now", "sls": [], "seconds": 1.0, "failed": {}, "at": 1.0, **result})
            )
        return launch.launched(policy, str(path), "now")

    return read


@pytest.mark.parametrize(
    ("policy", "result", "expected"),
    [
        pytest.param(NOTHING, {}, True, id="nothing to apply"),
        pytest.param({}, {}, True, id="a minion that was sealed as it ran"),
        pytest.param(POLICY, {}, False, id="not over"),
        pytest.param(POLICY, {"ok": True}, True, id="over"),
        pytest.param(POLICY, {"ok": True, "boot_id": "earlier"}, False, id="of another boot"),
        pytest.param(
            POLICY,
            {"ok": False, "failed": {"db": "no route", "ca": "no key"}},
            "the launch phase failed: db: no route; ca: no key",
            id="failed",
        ),
    ],
)
def test_what_a_machine_reports_of_its_launch(outcome, policy, result, expected):
    assert outcome(policy, **result) == expected


@pytest.mark.parametrize(
    "text", ['{"ok": tr', "[]", "null", '{"ok": true}', '{"ok": true, "boot_id": "now", "failed": []}']
)
def test_a_result_that_is_none_is_no_success(tmp_path, text):
    path = tmp_path / "launch.json"
    path.write_text(text)
    assert f"{path}: this file is not the result of a launch phase" in str(launch.launched(POLICY, str(path), "now"))


def test_only_an_image_with_something_to_apply_starts_the_unit():
    assert launch.drop_in(NOTHING) is None
    homes = "ReadOnlyPaths=-/home\nReadOnlyPaths=-/root\n"
    assert launch.drop_in(POLICY) == f"[Service]\n{homes}ReadWritePaths=/srv/data\nReadWritePaths=/var/x\n"
    of_homes = {**POLICY, "writable": ["/home"]}
    assert launch.drop_in(of_homes) == "[Service]\nReadOnlyPaths=-/root\nReadWritePaths=/home\n"


class Systemd:
    """A unit that writes ``after`` when it is started."""

    def __init__(self, path, active: str, after: dict[str, object] | None) -> None:
        self.path, self.active, self.after = path, active, after
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, *words: str) -> str:
        self.calls.append(words)
        if words[0] == "is-active":
            return self.active
        if self.after:
            self.path.write_text(json.dumps(self.after))
        return ""


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    path = tmp_path / "launch.json"
    read = launch._result

    def make(active="inactive", before=None, after=None):
        if before:
            path.write_text(json.dumps(before))
        found = Systemd(path, active, after)
        monkeypatch.setattr(launch, "_systemctl", found)
        monkeypatch.setattr(launch, "_result", lambda: read(str(path), "now"))
        return found

    return make


BEFORE = {"boot_id": "now", "ok": True, "sls": ["secrets"], "failed": {}, "seconds": 1.0, "at": 1.0}


def test_a_rerun_waits_for_the_new_result(systemd):
    unit = systemd(before=BEFORE, after={**BEFORE, "ok": False, "failed": {"db": "gone"}, "at": 2.0})
    assert launch.rerun(POLICY) == {"ok": False, "sls": ["secrets"], "failed": {"db": "gone"}, "seconds": 1.0}
    assert unit.calls[-1] == ("start", "--wait", launch.UNIT)


def test_a_rerun_has_nothing_to_start_where_nothing_is_applied(systemd):
    unit = systemd()
    assert launch.rerun(NOTHING) == {"ok": True, "sls": [], "failed": {}, "seconds": 0.0}
    assert unit.calls == []


@pytest.mark.parametrize("active", ["active", "activating"])
def test_a_second_call_fails_while_one_runs(systemd, active):
    unit = systemd(active=active, before=BEFORE)
    with pytest.raises(CommandExecutionError, match="is running already"):
        launch.rerun(POLICY)
    assert len(unit.calls) == 1


def test_a_run_without_a_result_is_no_success(systemd):
    systemd(before=BEFORE)
    with pytest.raises(
        CommandExecutionError, match="ended without a result: see journalctl -u immutable-launch.service"
    ):
        launch.rerun(POLICY)

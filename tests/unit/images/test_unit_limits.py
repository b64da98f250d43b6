"""Limits of units: read from the pillar, baked as drop-ins, found where a unit went over one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from saltext.immutable.drift.running import limits
from saltext.immutable.images import unit_drop_ins
from saltext.immutable.spec.unit_limits import unit_limits

GIVEN = {"nginx.service": {"memory": "256M", "tasks": 200}, "app.slice": {"tasks": 5}}
LIMITS = {"nginx.service": {"memory": 256 << 20, "tasks": 200}, "app.slice": {"tasks": 5}}


def test_what_a_recipe_may_limit():
    assert unit_limits(GIVEN) == LIMITS
    assert unit_limits({}) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param({"nginx": {"tasks": 1}}, "'nginx' is not a service or a slice; write nginx.service", id="no type"),
        pytest.param({"a.timer": {"tasks": 1}}, "'a.timer' is not a service", id="another type"),
        pytest.param({"../a.service": {"tasks": 1}}, "is not a service", id="a path"),
        pytest.param({"a.service": {}}, "a.service: {} is wrong; write {memory: 256M, tasks: 200}", id="none"),
        pytest.param({"a.service": 7}, "a.service: 7 is wrong", id="no mapping"),
        pytest.param({"a.service": {"cpu": 1}}, "is wrong; write {memory", id="an unknown one"),
        pytest.param({"a.service": {"memory": "much"}}, "a.service: 'much' is not a size; write 512M", id="no size"),
        pytest.param({"a.service": {"memory": True}}, "True is not a size", id="a flag"),
        pytest.param({"a.service": {"tasks": 0}}, "a.service: must be a whole number from 1 to", id="nothing runs"),
        pytest.param({"a.service": {"tasks": 10**400}}, "a.service: must be a whole number from 1 to", id="too many"),
        pytest.param({"a.service": {"memory": 1}}, "a.service: must be 1M to 16384G, not 1", id="no memory"),
        pytest.param({"a.service": {"memory": "99999G"}}, "a.service: must be 1M to 16384G", id="more than there is"),
        pytest.param({"a.service": {"memory": 10**40}}, "a.service: 1000", id="a very large number"),
        pytest.param({"salt-minion.service": {"memory": "1M"}}, "is what machines are managed with", id="the minion"),
        pytest.param({"salt-.service": {"memory": "1M"}}, "is what machines are managed with", id="its prefix"),
        pytest.param({"immutable-mounts.service": {"tasks": 9}}, "is what machines are managed with", id="the pack"),
        pytest.param({"immutable-.service": {"tasks": 9}}, "is what machines are managed with", id="all of the pack"),
        pytest.param({"a.service": {"tasks": "9"}}, "must be a whole number", id="a text"),
        pytest.param(["a.service"], "mapping", id="a list"),
    ],
)
def test_a_wrong_limit_is_named(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        unit_limits(given)


def test_limits_are_drop_ins_of_the_image():
    found = unit_drop_ins.drop_ins({"limits": LIMITS})
    service = found["/etc/systemd/system/nginx.service.d/immutable-limits.conf"].splitlines()
    assert service[:3] == ["[Service]", f"MemoryMax={256 << 20}", "TasksMax=200"]
    assert service[3].startswith("ExecStopPost=+-/bin/sh -c ") and "oom-kill" in service[3]
    assert found["/etc/systemd/system/app.slice.d/immutable-limits.conf"] == "[Slice]\nTasksMax=5\n"
    assert unit_drop_ins.drop_ins({}) == {}, "an image of a former version has none"


FILES = {
    "v2": {"system.slice/nginx.service/memory.events": "low 0\nmax 9\noom 1\noom_kill {}\n",
           "system.slice/nginx.service/pids.events": "max {}\n"},
    "v1": {"memory/system.slice/nginx.service/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
           "pids/system.slice/nginx.service/pids.events": "max {}\n"},
}  # fmt: skip


@pytest.mark.parametrize("version", FILES)
@pytest.mark.parametrize("times", [0, 3])
def test_the_kernel_counts_who_goes_over_a_limit(tmp_path: Path, version: str, times: int):
    for path, text in FILES[version].items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text.format(times))
    groups = {"nginx.service": "/system.slice/nginx.service", "app.slice": ""}
    found = [item[:3] for item in limits.drift(LIMITS, groups, (), str(tmp_path))]
    assert found == ([
        ("service", "nginx.service", f"it went over its limit: memory {256 << 20}"),
        ("service", "nginx.service", "it went over its limit: tasks 200"),
    ] if times else [])  # fmt: skip


def test_a_unit_that_ended_at_its_limit_and_started_again_is_remembered(tmp_path: Path):
    assert limits.ended(str(tmp_path / "none")) == set()
    (tmp_path / "over").write_text("nginx.service\nnginx.service\n")
    ended = limits.ended(str(tmp_path / "over"))
    assert [item.what for item in limits.drift(LIMITS, {}, ended, str(tmp_path))] == ["nginx.service"]

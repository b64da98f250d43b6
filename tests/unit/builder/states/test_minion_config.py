"""Minion config of a state tree that a sealed machine must not have."""

from __future__ import annotations

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.states import minion_config


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param("minion", "master_alive_interval: 30", "it is a scheduled job", id="a job that pings the master"),
        pytest.param(
            "minion.d/a.conf", "schedule: {enabled: true}", "the guard does not see", id="the schedule is enabled"
        ),
        pytest.param(
            "minion.d/a.conf", "executor_dirs: [/srv]", "take the guard's place", id="executors from elsewhere"
        ),
        pytest.param("minion.d/a.conf", "module_executors: [mine]", "direct_call", id="another executor"),
        pytest.param("minion", "grains_cache: true", "an earlier start", id="grains of an earlier start"),
        pytest.param("minion", "disable_grains: [immutable]", "would not load immutable", id="the grain is left out"),
        pytest.param("minion", "disable_modules: [x, immutable]", "would not load immutable", id="the module is"),
        pytest.param("minion", "disable_executors: [direct_call]", "would not load direct_call", id="the executor is"),
        pytest.param("minion", "whitelist_modules: [test]", "not in that list", id="the module is not among those"),
        pytest.param("minion", "disable_grains: true", "disable_grains: it is True and no list", id="what is no list"),
        pytest.param("minion", "disable_modules: 1", "disable_modules: it is 1 and no list", id="but a number"),
        pytest.param("minion", "whitelist_modules: 2.5", "whitelist_modules: it is 2.5", id="of what is loaded, too"),
        pytest.param("minion", "whitelist_modules: [test, immutable]", None, id="but here it is"),
        pytest.param("minion", "disable_modules: [x]", None, id="another module is left out"),
        pytest.param("minion.d/a.conf", "schedule: {backup: {function: cmd.run}}", None, id="a job, which is stopped"),
        pytest.param("minion.d/a.conf", "master_alive_interval: 0", None, id="a zero"),
        pytest.param("minion.d/a.conf", "{", None, id="no YAML"),
        pytest.param("minion.d/a.txt", "master_alive_interval: 30", None, id="a file that Salt does not read"),
    ],
)
def test_settings_that_are_refused(tmp_path, name, text, message):
    (tmp_path / "etc/salt/minion.d").mkdir(parents=True)
    (tmp_path / "etc/salt" / name).write_text(text)
    if message is None:
        minion_config.refuse(tmp_path)
        return
    with pytest.raises(CommandExecutionError, match=message) as caught:
        minion_config.refuse(tmp_path)
    assert f"/etc/salt/{name} sets" in str(caught.value)


def test_a_layer_without_config_is_accepted(tmp_path):
    minion_config.refuse(tmp_path)

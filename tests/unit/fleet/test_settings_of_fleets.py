"""Settings of providers and traffic adapters are checked when the pillar is read."""

from __future__ import annotations

from typing import Any

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable.fleet.preflight import checked
from saltext.immutable.providers.nspawn import Nspawn
from saltext.immutable.spec import definitions

HAPROXY = {"socket": "/run/haproxy/admin.sock", "backend": "web"}


def read(provider: Any = None, traffic: Any = None) -> Any:
    web = {"recipe": "web", "size": 3, "minion_id": "web-{token}", "provider": {"name": "nspawn", **(provider or {})}}
    web |= {"traffic": traffic} if traffic else {}
    return definitions({"immutable": {"recipes": {"web": {"from": {"debian": "bookworm"}}}, "fleets": {"web": web}}})


def test_right_settings():
    found = read({"memory": "512M", "cpus": 0.5, "minion": {"log_level": "info"}}, {"haproxy": HAPROXY})
    assert checked(found) is found


@pytest.mark.parametrize(
    ("provider", "traffic", "says"),
    [
        pytest.param({"memory": "lots"}, None, "provider:memory: 'lots' is not a size", id="memory"),
        pytest.param({"memory": {"x": 1}}, None, "provider:memory: ", id="a mapping"),
        pytest.param({"memory": -1}, None, "provider:memory: ", id="a negative number"),
        pytest.param({"cpus": "two"}, None, "provider:cpus: ", id="cpus"),
        pytest.param({"cpus": float("nan")}, None, "provider:cpus: ", id="no number"),
        pytest.param({"disk": 1}, None, "provider:disk: no such key; known here: ", id="an unknown setting"),
        pytest.param({"name": "ec3"}, None, "provider 'ec3' is not installed", id="an unknown provider"),
        pytest.param({"minion": ["x"]}, None, "provider:minion: ", id="config that is none"),
        pytest.param({"minion": {"module_dirs": ["/tmp/x"]}}, None, "provider:minion: 'module_dirs' is", id="code"),
        pytest.param({"minion": {"extension_modules": "/tmp/x"}}, None, "'extension_modules' is", id="modules"),
        pytest.param({"minion": {"include": "/tmp/x.conf"}}, None, "'include' is", id="other files"),
        pytest.param({"minion": {"executors": ["x"]}}, None, "'executors' is", id="executors"),
        pytest.param({"minion": {"module_executors": ["x"]}}, None, "'module_executors' is", id="other executors"),
        pytest.param({"minion": {"master": "evil"}}, None, "'master' is", id="another master"),
        pytest.param({"minion": {"startup_states": "highstate"}}, None, "'startup_states' is", id="states"),
        pytest.param({"minion": {"schedule": {"enabled": True}}}, None, "'schedule' is", id="a schedule"),
        pytest.param({"minion": {"return": "mysql"}}, None, "'return' is", id="a returner"),
        pytest.param({"minion": {"log_levle": "info"}}, None, "did you mean 'log_level'?", id="a wrong letter"),
        pytest.param({"minion": {"x" * 5000: 1}}, None, "provider:minion: 'xxx", id="a long word"),
        pytest.param({}, {"haproxy": {**HAPROXY, "socket": 7}}, "traffic:haproxy:socket: must be text", id="a socket"),
        pytest.param({}, {"haproxy": {**HAPROXY, "backend": ["x"]}}, "traffic:haproxy:backend: ", id="a backend"),
        pytest.param({}, {"haproxy": {**HAPROXY, "port": "80"}}, "traffic:haproxy:port: ", id="a port"),
        pytest.param({}, {"nginx": {}}, "traffic 'nginx' is not installed", id="an unknown adapter"),
    ],
)
def test_wrong_settings_are_named_by_their_path(provider, traffic, says):
    with pytest.raises(SaltInvocationError) as err:
        checked(read(provider, traffic))
    for line in str(err.value).splitlines():
        assert line.startswith("immutable:fleets:web:") and len(line) < 400
    assert says in str(err.value)


def test_minion_config_of_an_older_version_has_no_effect(monkeypatch, tmp_path):
    """A fleet whose generation has it must still be listed and destroyed."""
    monkeypatch.setattr("saltext.immutable.providers.nspawn.machine_config", lambda opts, master: {"master": master})
    old = {"minion": {"module_dirs": ["/tmp/x"], "master": "evil", "log_level": "info"}}
    found = Nspawn(old, {"immutable": {"root": str(tmp_path), "master": "10.0.0.1"}})
    assert found._minion == {"log_level": "info", "master": "10.0.0.1"}

"""With ``cache: only`` nothing is fetched, and an error says what is missing and what to do."""

from __future__ import annotations

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.builder import mirrors, offline
from saltext.immutable.builder.sandbox import sandbox
from saltext.immutable.builder.sources import downloads, minion

ORDER = {"bridge": "immutable0", "subnet": "10.117.0.0/24"}


@pytest.mark.parametrize(
    ("cache", "default", "refresh", "found"),
    [
        pytest.param(None, "use", False, False, id="neither"),
        pytest.param("only", "use", False, True, id="the bake says so"),
        pytest.param(None, "only", False, True, id="the config says so"),
        pytest.param("use", "only", True, False, id="the bake says otherwise"),
        pytest.param("only", "use", "never", True, id="refresh=never asks no mirror"),
    ],
)
def test_the_argument_of_the_bake_wins_over_the_config(cache, default, refresh, found):
    assert offline.is_offline(cache, default, refresh) is found


@pytest.mark.parametrize("refresh", [True, "updates", "always"])
def test_an_offline_bake_cannot_ask_for_updates(refresh):
    with pytest.raises(SaltInvocationError, match="refresh asks the mirrors"):
        offline.is_offline("only", "use", refresh)


def test_an_unknown_value_is_an_error():
    with pytest.raises(SaltInvocationError, match="cache: 'no' is neither use nor only"):
        offline.is_offline("no", "use", False)


def test_an_offline_error_says_what_to_do():
    message = r"nothing was fetched.*bake once with cache=use:\nsl is missing"
    with pytest.raises(CommandExecutionError, match=message), offline.explain_missing(True):
        raise CommandExecutionError("sl is missing")
    with pytest.raises(CommandExecutionError, match="^sl is missing$"), offline.explain_missing(False):
        raise CommandExecutionError("sl is missing")


@pytest.mark.parametrize(
    ("order", "route"),
    [
        pytest.param({"minion": {"master": "10.0.0.5"}}, "default", id="a bake that may fetch"),
        pytest.param({"offline": True}, "", id="a machine without a master"),
        pytest.param({"offline": True, "minion": {"master": "10.117.0.1"}}, "", id="a master on this host"),
        pytest.param({"offline": True, "minion": {"master": "10.0.0.5"}}, "10.0.0.5/32", id="a master elsewhere"),
    ],
)
def test_offline_machines_reach_only_their_master(order, route):
    assert offline.route({**ORDER, **order}) == route


def test_an_offline_machine_needs_the_masters_address():
    with pytest.raises(SaltInvocationError, match="immutable:master: salt.example.com is a name.* set it to"):
        offline.route({**ORDER, "offline": True, "minion": {"master": "salt.example.com"}})


def test_uv_and_apt_do_not_try_to_fetch(monkeypatch, tmp_path):
    monkeypatch.setattr(mirrors, "_pip_index", lambda: "")
    assert minion._env({"offline": True})["UV_OFFLINE"] == "1"
    assert "UV_OFFLINE" not in minion._env({})
    assert sandbox(tmp_path, {**ORDER, "offline": True}, ()).route == ""
    monkeypatch.setattr(mirrors, "ca_bundle", lambda: None)
    mirrors.apt_config(tmp_path, offline=True)
    assert (tmp_path / "apt.conf").read_text() == 'Acquire::Retries "0";\n'


def test_a_tarball_that_is_not_in_the_cache_is_named(host, tmp_path):
    order = {"sha256": "1" * 64, "offline": True}
    with pytest.raises(CommandExecutionError, match=f"root.tar with the sha256 {'1' * 64} is not in the cache"):
        downloads.fetched(host, tmp_path, "https://example.com/root.tar", order)

"""With ``cache: only`` nothing is fetched, and what is missing is said with what to do about it."""

from __future__ import annotations

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.builder import mirrors, offline
from saltext.immutable.builder.sandbox import workshop
from saltext.immutable.builder.sources import downloads, minion

ORDER = {"bridge": "immutable0", "subnet": "10.117.0.0/24"}


@pytest.mark.parametrize(
    ("cache", "default", "refresh", "found"),
    [
        pytest.param(None, "use", False, False, id="as ever"),
        pytest.param("only", "use", False, True, id="the bake says so"),
        pytest.param(None, "only", False, True, id="the config says so"),
        pytest.param("use", "only", True, False, id="the bake says otherwise"),
        pytest.param("only", "use", "never", True, id="the mirrors are not to be asked"),
    ],
)
def test_who_says_so(cache, default, refresh, found):
    assert offline.wanted(cache, default, refresh) is found


@pytest.mark.parametrize("refresh", [True, "updates", "always"])
def test_the_mirrors_cannot_be_asked_then(refresh):
    with pytest.raises(SaltInvocationError, match="refresh asks the mirrors"):
        offline.wanted("only", "use", refresh)


def test_a_wrong_word_is_said():
    with pytest.raises(SaltInvocationError, match="cache: must be use or only, not 'no'"):
        offline.wanted("no", "use", False)


def test_what_is_missing_is_said_with_what_to_do():
    said = r"sl is missing\nnothing was fetched.*bake once with cache=use"
    with pytest.raises(CommandExecutionError, match=said), offline.told(True):
        raise CommandExecutionError("sl is missing")
    with pytest.raises(CommandExecutionError, match="^sl is missing$"), offline.told(False):
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
def test_machines_reach_their_master_and_nobody_else(order, route):
    assert offline.route({**ORDER, **order}) == route


def test_a_master_by_name_could_not_be_found():
    with pytest.raises(SaltInvocationError, match="set immutable:master to the address of salt.example.com"):
        offline.route({**ORDER, "offline": True, "minion": {"master": "salt.example.com"}})


def test_what_works_in_a_bake_is_told_not_to_try(monkeypatch, tmp_path):
    monkeypatch.setattr(mirrors, "_pip_index", lambda: "")
    assert minion._env({"offline": True})["UV_OFFLINE"] == "1"
    assert "UV_OFFLINE" not in minion._env({})
    assert workshop(tmp_path, {**ORDER, "offline": True}, ()).route == ""
    monkeypatch.setattr(mirrors, "ca_bundle", lambda: None)
    mirrors.lend_apt(tmp_path, offline=True)
    assert (tmp_path / "apt.conf").read_text() == 'Acquire::Retries "0";\n'


def test_an_archive_that_is_not_kept_is_named(host, tmp_path):
    order = {"tarball": "https://example.com/root.tar", "sha256": "1" * 64, "offline": True}
    with pytest.raises(CommandExecutionError, match=f"root.tar with the sha256 {'1' * 64} is not in the cache"):
        downloads.archive(host, tmp_path, order)

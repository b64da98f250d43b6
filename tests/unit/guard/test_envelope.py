"""What of a job, beside its function and arguments, has an effect on a sealed machine."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from salt.utils.jid import gen_jid, is_jid

from saltext.immutable.guard import envelope
from saltext.immutable.guard.envelope import REFUSED, checked

JID = "20261129200000123456"
NEW = "20261129200000999999"
JOB = {"fun": "test.ping", "arg": [], "tgt": "web-*", "tgt_type": "glob", "jid": JID, "ret": "", "user": "root"}


def judged(returners: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return checked({**JOB, **fields}, returners, NEW)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="a plain job"),
        pytest.param({"jid": gen_jid({})}, id="an id that Salt makes"),
        pytest.param({"jid": gen_jid({"unique_jid": True})}, id="with unique_jid"),
        pytest.param({"jid": "req"}, id="a job of the minion itself"),
        pytest.param({"fun": ["test.ping", "grains.get"], "arg": [[], ["os"]]}, id="of several functions"),
        pytest.param({"fun": ("test.ping",), "arg": ((),)}, id="as tuples"),
        pytest.param({"module_executors": ["splay", "direct_call"], "executor_opts": {"splaytime": 5}}, id="splay"),
        pytest.param({"module_executors": "direct_call"}, id="an executor that asks the guard"),
        pytest.param({"metadata": {"ticket": "OPS-7"}}, id="metadata"),
        pytest.param({"start_event": True, "delimiter": "|", "to": 5, "id": "x", "master_id": "m"}, id="all fields"),
    ],
)
def test_a_job_of_salts_own_form_is_left_as_it_is(fields):
    assert judged(**fields) == {**JOB, **fields}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        pytest.param({"jid": "../../../etc/salt/pki/minion/minion.pem"}, "job id", id="an id that is a path"),
        pytest.param({"jid": f"{JID}/../x"}, "job id", id="that begins as one should"),
        pytest.param({"jid": f"{JID}\n"}, "job id", id="with another line"),
        pytest.param({"jid": f"{JID}_../x"}, "job id", id="after an underscore"),
        pytest.param({"jid": "x"}, "job id", id="a word"),
        pytest.param({"jid": 20261129200000123456}, "job id", id="a number"),
        pytest.param({"jid": None}, "job id", id="no id"),
        pytest.param({"jid": "\u0661" * 20}, "job id", id="digits of another script"),
        pytest.param({"jid": f"{JID}_\u0661"}, "job id", id="at its end"),
        pytest.param({"ret": "highstate"}, "'highstate'", id="a returner"),
        pytest.param({"ret": "mysql,highstate"}, "'mysql'", id="several"),
        pytest.param({"ret": ["highstate"]}, "returner", id="a list"),
        pytest.param({"ret": " "}, "returner", id="a blank"),
        pytest.param({"ret": "local,"}, "returner", id="an empty name"),
        pytest.param({"ret": {"highstate": 1}}, "returner", id="a mapping"),
        pytest.param({"ret": "rawfile_json", "ret_kwargs": {"filename": "/etc/x"}}, "rawfile_json", id="with a file"),
        pytest.param({"ret_kwargs": {"filename": "/etc/x"}}, "ret_kwargs", id="options alone: config may name one"),
        pytest.param({"ret_config": "../x"}, "ret_config", id="a config that is none"),
        pytest.param({"module_executors": ["transactional_update"]}, "executors", id="an executor of Salt's"),
        pytest.param({"module_executors": "docker"}, "executors", id="as a word"),
        pytest.param({"module_executors": ["direct_call", "mine"]}, "executors", id="one's own"),
        pytest.param({"module_executors": {"direct_call": 1}}, "executors", id="as a mapping"),
        pytest.param({"module_executors": [["direct_call"]]}, "executors", id="in a list of lists"),
        pytest.param({"executor_opts": {"splaytime": -1}}, "splaytime", id="a time that is none"),
        pytest.param({"executor_opts": {"splaytime": True}}, "splaytime", id="nor this"),
        pytest.param({"executor_opts": {"splaytime": float("inf")}}, "splaytime", id="nor forever"),
        pytest.param({"executor_opts": {"splaytime": float("nan")}}, "splaytime", id="nor no number"),
        pytest.param({"executor_opts": {"name": "x"}}, "splaytime", id="an option of another executor"),
        pytest.param({"executor_opts": ["x"]}, "splaytime", id="options as a list"),
        pytest.param({"metadata": ["x"]}, "metadata", id="metadata as a list"),
        pytest.param({"metadata": {"x": "y" * 20_000}}, "metadata", id="that fills the memory"),
        pytest.param({"fun": {"cmd.run": 1}}, "function", id="a function that is none"),
        pytest.param({"fun": []}, "function", id="no function"),
        pytest.param({"fun": ["test.ping", 7], "arg": [[], []]}, "function", id="a number among them"),
        pytest.param({"fun": "../x"}, "function", id="a path"),
        pytest.param({"fun": ["test.ping", "test.ping"], "arg": [[]]}, "arguments", id="too few arguments"),
        pytest.param({"arg": "x"}, "arguments", id="arguments as text"),
        pytest.param({"arg": None}, "arguments", id="no arguments"),
    ],
)
def test_a_job_is_refused_and_loses_what_was_wrong(fields, says):
    found = judged(**fields)
    assert says in found[REFUSED]
    assert is_jid(found["jid"]) and found["ret"] == ""
    assert not {"ret_kwargs", "ret_config"} & found.keys()
    assert {name: found.get(name) for name in fields} != fields


def test_a_job_with_an_id_that_is_none_gets_a_new_one():
    assert judged(jid="../x")["jid"] == NEW


@pytest.mark.parametrize("options", [{}, {"ret_config": "alternative"}])
def test_a_recipe_allows_a_returner(options):
    assert judged(("mysql", "local"), ret="mysql", **options) == {**JOB, "ret": "mysql", **options}
    assert REFUSED not in judged(("mysql", "local"), ret="mysql,local")
    assert "'redis'" in judged(("mysql",), ret="mysql,redis")[REFUSED]


def test_but_not_what_it_writes_and_where():
    found = judged(("rawfile_json",), ret="rawfile_json", ret_kwargs={"filename": "/etc/x"})
    assert "ret_kwargs" in found[REFUSED] and found["ret"] == ""


def test_fields_that_salt_does_not_know_have_no_effect():
    assert judged(**{"__run__": "x", "schedule": "x", "pillar": {}}) == JOB


def deep(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(levels):
        found = {"a": found}
    return found


def test_metadata_that_nobody_can_write_down_is_refused():
    assert "metadata" in judged(metadata=deep(100_000))[REFUSED]


RESOURCE = {"type": "dummy", "id": "a"}


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("user", ["ada", "sudo_ada"], [{"a": 1}, "\x1b[2J", "a\nb", "x" * 201, None, 7]),
        ("id", ["web-1"], [["web-1"], "x" * 201]),
        ("master_id", ["master"], [b"master", "a\0"]),
        ("delimiter", [":", "|"], [5, ["|"], "x" * 201]),
        ("tgt_type", ["glob", "compound"], [{}, 1]),
        ("tgt", ["web-*", ["web-1", "web-2"], "x" * 1000], [{"a": 1}, 7, None, [1], ["x" * 201]]),
        ("to", [5, 0.5], ["5", -1, True, float("nan"), float("inf")]),
        ("start_event", [True, False], ["yes", 1, None]),
        ("minion_is_target", [False], [0]),
        ("pure_resource_target", [True], ["x"]),
        ("resource_job", [True], [{}]),
        ("__ignore_process_count_max", [True], [1]),
        ("resource_target", [RESOURCE], ["dummy", {"type": "dummy"}, {**RESOURCE, "x": 1}, {"type": 1, "id": "a"}]),
        ("resource_targets", [[], [RESOURCE]], [RESOURCE, [RESOURCE, 1], [{"type": "x", "id": "\n"}], None]),
    ],
)
def test_a_field_of_another_shape_has_no_effect(name, right, wrong):
    for value in right:
        assert judged(**{name: value})[name] == value
    for value in wrong:
        found = judged(**{name: value})
        assert name not in found and REFUSED not in found


def test_each_field_has_a_shape():
    judged_alone = {"arg", "executor_opts", "fun", "jid", "metadata", "module_executors", "ret", "ret_config"}
    assert set(envelope._SHAPES) | judged_alone | {"ret_kwargs"} == envelope.FIELDS


def test_a_refusal_survives_the_queue_on_the_disk():
    waiting = judged(ret="highstate")
    assert checked(waiting, (), NEW) == waiting


def test_the_job_that_came_is_not_changed():
    came = {**JOB, "ret": "highstate", "ret_kwargs": {"a": 1}, "module_executors": ["docker"]}
    before = copy.deepcopy(came)
    checked(came, (), NEW)
    assert came == before


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(envelope.FIELDS)) | st.text(max_size=8), ANYTHING, max_size=8))
def test_whatever_comes_only_what_is_allowed_has_an_effect(load):
    found = checked(load, ("mysql",), NEW)
    assert re.fullmatch(r"[0-9]{20}(_[0-9]+)?|req", found["jid"])
    assert found["ret"] in ("", "mysql") or set(found["ret"].split(",")) == {"mysql"}
    assert "ret_kwargs" not in found
    assert set(found) <= envelope.FIELDS | {REFUSED}
    names = found.get("module_executors") or []
    assert set([names] if isinstance(names, str) else names) <= envelope.EXECUTORS
    assert isinstance(found["arg"], list | tuple)
    assert isinstance(found.get("user", ""), str) and isinstance(found.get("start_event", True), bool)

"""What states predict is drift; an error that keeps them from running is drift too, and never raised."""

from __future__ import annotations

from typing import Any

import pytest
from drift_root import POLICY, sealed
from salt.exceptions import CommandExecutionError, SaltRenderError

from saltext.immutable.drift import preview
from saltext.immutable.drift.preview import predicted
from saltext.immutable.guard import seal


def state(result: bool | None, changes: dict[str, Any] | None = None, **more: str) -> dict[str, Any]:
    return {"result": result, "changes": changes or {}, "comment": "so", "__id__": "page", "__sls__": "web", **more}


@pytest.fixture
def previewed(monkeypatch):
    """Return a function that previews a machine of these states, whose Salt answers like this; it records the calls."""
    called: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def run(states: list[dict[str, Any]], answer: Any) -> dict[str, Any]:
        def call(fun: str, *args: Any, **kwargs: Any) -> Any:
            called.append((fun, args, kwargs))
            if isinstance(answer, Exception):
                raise answer
            return answer

        found = sealed("d" * 64, policy={**POLICY, "states": states})
        monkeypatch.setattr(seal, "read", lambda path: found)
        return preview(call)

    run.called = called
    return run


WEB = {"sls": ["web", "tls"], "saltenv": "prod", "pillarenv": None}
ALL = {"sls": "highstate", "saltenv": "base", "pillarenv": "p"}


def test_the_states_of_the_recipe_run_as_they_were_applied(previewed):
    assert previewed([ALL, WEB], {"a": state(True)}) | {"seconds": 0} == {
        "drift": [], "counts": {}, "states": 2, "seconds": 0, "left_out": 0,
    }  # fmt: skip
    assert previewed.called == [
        ("state.highstate", (), {"test": True, "saltenv": "base", "pillarenv": "p"}),
        ("state.apply", ("web,tls",), {"test": True, "saltenv": "prod"}),
    ]


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        pytest.param({"t": state(None, {"diff": "-a"})}, 'would change: so {"diff": "-a"}', id="would change"),
        pytest.param({"t": state(None)}, "would change: so", id="would change, and does not say what"),
        pytest.param({"t": state(True, {"x": 1})}, 'would change: so {"x": 1}', id="says changes and is content"),
        pytest.param({"t": state(False)}, "fails: so", id="fails"),
    ],
)
def test_a_predicted_change_is_drift_with_its_state(previewed, answer, detail):
    found = previewed([WEB], answer)
    assert found["drift"] == [
        {"kind": "state", "what": "page", "detail": detail, "owner": "", "layer": "", "sls": "web"}
    ]
    assert found["counts"] == {"state": 1}


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (["No matching sls found for 'web'", "second"], "No matching sls found"),
        (SaltRenderError("line 3"), "SaltRenderError: line 3"),
        ("Pillar failed to render", "Pillar failed"),
    ],
)
def test_states_that_cannot_run_are_drift(previewed, answer, detail):
    found = previewed([WEB], answer)
    assert found["drift"][0]["kind"] == "state" and detail in found["drift"][0]["detail"]
    assert found["states"] == 0


def test_long_changes_are_cut(previewed):
    assert len(previewed([WEB], {"t": state(None, {"diff": "x" * 9000})})["drift"][0]["detail"]) <= 1000


def test_a_host_without_an_image_has_no_states_to_preview(monkeypatch):
    monkeypatch.setattr(seal, "read", lambda path: None)
    with pytest.raises(CommandExecutionError, match="not sealed"):
        preview(lambda *_, **__: None)


def test_what_the_bake_knew_is_left_out_but_not_its_failures():
    result = {
        "cron_|-backup_|-/bin/backup_|-present": {"result": None, "changes": {}, "__id__": "backup", "__sls__": "web"},
        "cmd_|-tick_|-date_|-run": {"result": False, "changes": {}, "__id__": "tick", "__sls__": "web"},
        "file_|-motd_|-/etc/motd_|-managed": {"result": None, "changes": {}, "__id__": "motd", "__sls__": "web"},
        "cron_|-backup_|-/bin/other_|-present": {"result": None, "changes": {}, "__id__": "backup", "__sls__": "web"},
    }
    known = {"backup (cron.present) of web, name /bin/backup", "tick (cmd.run) of web, name date"}
    assert [item["what"] for item in predicted(result, known)] == ["tick", "motd", "backup"]
    assert len(list(predicted(result))) == 4

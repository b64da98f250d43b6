"""What is told on the way must not stop what it tells of."""

from __future__ import annotations

import pytest
import salt.utils.event

from saltext.immutable.runner import PlainError, Progress, output, plain_errors


@pytest.mark.parametrize("error", [ConnectionResetError(), BrokenPipeError()])
def test_a_master_that_restarts_stops_nobody_from_telling(monkeypatch, capsys, error):
    class Bus:
        def fire_event(self, *_):
            raise error

    monkeypatch.setattr(salt.utils.event, "get_master_event", lambda *_, **__: Bus())
    Progress({"sock_dir": "/run", "__cli": "salt-run"})("ready web-1", "web/ready")
    assert capsys.readouterr().err == "ready web-1\n"


@pytest.mark.parametrize("told", [KeyboardInterrupt, SystemExit])
def test_who_is_interrupted_says_so_in_a_sentence(told):
    with pytest.raises(PlainError, match="interrupted. .* the same command"), plain_errors():
        raise told


def text(data, width):
    return f"{data['fleet']} in {width} columns"


@pytest.mark.parametrize(
    ("opts", "returned"),
    [
        pytest.param({"__cli": "salt-run", "fun": "fleet.status"}, {"outputter": "txt", "data": "web in 77 columns"}),
        pytest.param({"__cli": "salt-run", "fun": "fleet.status", "output": "json"}, {"fleet": "web"}),
        pytest.param({"__cli": "salt-run", "fun": "state.orchestrate"}, {"fleet": "web"}),
        pytest.param({"__cli": "salt-master", "fun": "fleet.status"}, {"fleet": "web"}),
    ],
    ids=["to a person", "to a program", "to an orchestration", "to the schedule"],
)
def test_only_people_get_text(monkeypatch, opts, returned):
    monkeypatch.setenv("COLUMNS", "77")
    assert output(opts, {"fleet": "web"}, text) == returned

"""What is told on the way must not stop what it tells of."""

from __future__ import annotations

import pytest
import salt.utils.event

from saltext.immutable.runner import PlainError, Progress, plainly


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
    with pytest.raises(PlainError, match="interrupted; .* the same command"), plainly():
        raise told

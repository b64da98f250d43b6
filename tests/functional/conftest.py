"""What the functional tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import salt.runner

from tests.support.surface.library import Progress
from tests.support.surface.seen import Onlooker

OURS = ("fleet.", "image.")


@pytest.fixture(autouse=True)
def surface(monkeypatch: pytest.MonkeyPatch) -> Iterator[Onlooker]:
    """Hold what runners return, and what they fire, to what is written down of it."""
    onlooker, cmd, fire = Onlooker(), salt.runner.RunnerClient.cmd, Progress.__call__

    def watched_cmd(self: Any, fun: str, arg: Any = None, pub_data: Any = None, kwarg: Any = None, **how: Any) -> Any:
        out = cmd(self, fun, arg, pub_data, kwarg, **how)
        answer = out["return"] if how.get("full_return") else out
        if fun.startswith(OURS) and isinstance(answer, dict):
            onlooker.answer(fun, arg or (), kwarg or {}, answer)
        return out

    def watched_fire(self: Any, message: str, tag: str, **data: Any) -> None:
        onlooker.event(f"immutable/{tag}", {"message": message, **data})
        fire(self, message, tag, **data)

    monkeypatch.setattr(salt.runner.RunnerClient, "cmd", watched_cmd)
    monkeypatch.setattr(Progress, "__call__", watched_fire)
    yield onlooker
    onlooker.end()

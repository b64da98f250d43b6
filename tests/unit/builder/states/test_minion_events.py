"""Who tells a minion something in a bake: nobody listens there."""

from __future__ import annotations

import pytest
from salt.utils import event

from saltext.immutable.builder.states import minion_events


def bus(node="minion", **opts):
    class Bus:
        def __init__(self):
            self.node, self.opts = node, opts

        def connect_pull(self, timeout=1):
            return f"waited {timeout}"

    minion_events.wait_for_no_minion(Bus)
    return Bus()


def test_nobody_waits_for_a_minion_that_never_was(tmp_path):
    assert bus(ipc_mode="ipc", sock_dir=str(tmp_path)).connect_pull(timeout=1) is False


@pytest.mark.parametrize("mode", ["ipc", "tcp"])
def test_one_that_a_state_started_is_told(tmp_path, mode):
    if mode == "ipc":
        (tmp_path / "minion_event_eee72838f6_pull.ipc").touch()
    assert bus(ipc_mode=mode, sock_dir=str(tmp_path)).connect_pull(timeout=3) == "waited 3"


def test_the_master_is_told_what_it_always_was(tmp_path):
    assert bus("master", ipc_mode="ipc", sock_dir=str(tmp_path)).connect_pull() == "waited 1"


def test_salt_itself_says_that_nobody_heard_it(tmp_path, monkeypatch):
    def waits(*_, **__):
        raise AssertionError("it waits")

    monkeypatch.setattr(event.SaltEvent, "connect_pull", waits)
    opts = {"sock_dir": str(tmp_path), "ipc_mode": "ipc", "id": "web-bake", "__role": "minion", "hash_type": "sha256"}
    with event.get_event("minion", opts=opts, listen=False) as told:
        with pytest.raises(AssertionError, match="it waits"):
            told.fire_event({}, "module_refresh")
        minion_events.wait_for_no_minion(event.SaltEvent)
        assert told.fire_event({}, "module_refresh") is False

"""Events to the minion during a bake, when no minion runs."""

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

        def fire_event(self, data, tag, timeout=1000):
            return bool(self.connect_pull())

    minion_events.skip_absent_minion(Bus)
    return Bus()


def test_an_absent_minion_is_not_waited_for(tmp_path):
    assert bus(ipc_mode="ipc", sock_dir=str(tmp_path)).connect_pull(timeout=1) is False


@pytest.mark.parametrize("mode", ["ipc", "tcp"])
def test_a_minion_that_a_state_started_gets_events(tmp_path, mode):
    if mode == "ipc":
        (tmp_path / "minion_event_eee72838f6_pull.ipc").touch()
    assert bus(ipc_mode=mode, sock_dir=str(tmp_path)).connect_pull(timeout=3) == "waited 3"


def test_events_to_the_master_are_unchanged(tmp_path):
    assert bus("master", ipc_mode="ipc", sock_dir=str(tmp_path)).connect_pull() == "waited 1"


def test_what_nobody_is_there_to_hear_counts_as_sent(tmp_path, monkeypatch):
    def waits(*_, **__):
        raise AssertionError("it waits")

    monkeypatch.setattr(event.SaltEvent, "connect_pull", waits)
    opts = {"sock_dir": str(tmp_path), "ipc_mode": "ipc", "id": "web-bake", "__role": "minion", "hash_type": "sha256"}
    with event.get_event("minion", opts=opts, listen=False) as bus_:
        with pytest.raises(AssertionError, match="it waits"):
            bus_.fire_event({}, "module_refresh")
        minion_events.skip_absent_minion(event.SaltEvent)
        assert bus_.fire_event({}, "module_refresh") is True

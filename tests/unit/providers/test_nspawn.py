"""The provider nspawn: how it lists machines."""

from __future__ import annotations

from saltext.immutable.providers import Instance
from saltext.immutable.providers.nspawn import Nspawn

RECORD = {
    "minion_id": "web-1",
    "fleet": "web",
    "generation": 2,
    "installation": "0123456789abcdef",
    "image": "a" * 64,
    "running": True,
    "address": "10.117.0.2",
    "born": 100.0,
    "memory": 1 << 30,
}


def test_a_machine_is_listed_with_its_installation():
    provider = object.__new__(Nspawn)
    provider._host = lambda function: [RECORD, {**RECORD, "minion_id": "db-1", "fleet": "db"}]
    assert provider.list("web") == [
        Instance("web-1", "web-1", "web", 2, "a" * 64, True, "10.117.0.2", 100.0, installation="0123456789abcdef")
    ]
    assert len(provider.list()) == 2

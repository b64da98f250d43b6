"""The program that keeps machines from devices, as processors of either byte order take it."""

from __future__ import annotations

import pytest

from saltext.immutable.machines import device_rules


@pytest.mark.parametrize(("order", "registers"), [("little", 0x32), ("big", 0x23)])
def test_target_and_source_have_the_places_of_the_processor(monkeypatch, order, registers):
    monkeypatch.setattr(device_rules.sys, "byteorder", order)
    assert device_rules._step(device_rules._COPY, 2, 3)[1] == registers

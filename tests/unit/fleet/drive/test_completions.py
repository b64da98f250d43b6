"""Each kind of call has a handler of its own; mypy holds the table to the kinds, this holds the kinds to the table."""

from __future__ import annotations

from typing import get_args

from saltext.immutable.fleet.drive.completions import HANDLERS
from saltext.immutable.fleet.drive.threads import Call

OF_A_FLEET = {"list", "traffic"}
"""Answers about all machines."""
OF_ANOTHER_LOOP = {"relaunch"}


def test_each_kind_of_call_about_a_machine_has_its_handler():
    assert set(HANDLERS) == set(get_args(Call)) - OF_A_FLEET - OF_ANOTHER_LOOP
    assert len({*HANDLERS.values()}) == len(HANDLERS)

"""The units that this pack installs on machines."""

from __future__ import annotations

from importlib.resources import files

import pytest

FILES = {path.name: path.read_text() for path in (files("saltext.immutable.guard") / "files").iterdir()}
MAY_GAIN = {"immutable-launch.service", "salt-minion.service"}
"""What they call may need setuid programs."""


@pytest.mark.parametrize("name", sorted(name for name, text in FILES.items() if "[Service]" in text))
def test_a_unit_gains_no_privileges_but_where_states_run(name):
    assert ("\nNoNewPrivileges=yes\n" in FILES[name]) == (name not in MAY_GAIN)


def test_the_units_with_states_are_there():
    assert FILES.keys() >= MAY_GAIN

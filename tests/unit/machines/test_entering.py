"""How commands are run in a container."""

from __future__ import annotations

from saltext.immutable.machines import nspawn
from saltext.immutable.machines.cgroup import Cgroup


def test_a_command_in_a_machine_has_no_rights_over_the_kernel_of_the_host():
    """A state with ``date -s`` would set the builder's clock."""
    words = nspawn.enter_command(7, Cgroup("any"), ["date"], {})
    before = words[: words.index("nsenter")]
    [bounded] = [word for word in before if word.startswith("--bounding-set=")]
    assert before[-2:] == ["setpriv", bounded]
    dropped = bounded.partition("=")[2].split(",")
    assert {"-sys_time", "-sys_module", "-sys_rawio"} < set(dropped)
    assert {f"CAP_{name[1:].upper()}" for name in dropped} < nspawn.CAPABILITIES

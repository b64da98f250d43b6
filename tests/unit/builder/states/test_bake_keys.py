"""The key pair of a bake, as the builder makes it."""

from __future__ import annotations

import stat

from saltext.immutable.builder.states import state_run
from saltext.immutable.host import Host


def test_it_lies_beside_the_masters_key_and_a_second_one_replaces_it(tmp_path):
    host = Host(tmp_path)
    first = state_run.make_key(host, "web-bake", "MASTER")
    second = state_run.make_key(host, "web-bake", "MASTER")
    folder = host.pki / "web-bake"
    assert first != second == (folder / "minion.pub").read_text()
    assert (folder / "minion_master.pub").read_text() == "MASTER", "no process of the machine has to write it"
    assert stat.S_IMODE((folder / "minion.pem").stat().st_mode) == 0o400
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

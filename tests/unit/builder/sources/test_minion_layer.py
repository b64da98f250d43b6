"""What the minion layer leaves out, so that two bakes give the same layer, and what it says of firewalls."""

from __future__ import annotations

import pytest

from saltext.immutable.builder.sources import minion


def test_the_time_of_our_wheel_is_removed_from_disk_and_record(tmp_path):
    info = tmp_path / "opt/salt/lib/python3.11/site-packages/saltext_immutable-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "uv_cache.json").write_text('{"timestamp": 1}')
    kept = "saltext/immutable/__init__.py,sha256=x,1\nsaltext_immutable-0.1.0.dist-info/RECORD,,\n"
    (info / "RECORD").write_text(f"saltext_immutable-0.1.0.dist-info/uv_cache.json,sha256=y,2\n{kept}")
    minion.finish(tmp_path)
    assert (info / "RECORD").read_text() == kept
    assert not (info / "uv_cache.json").exists()


@pytest.mark.parametrize("unit", ["netfilter-persistent.service", "nftables.service", "ufw.service"])
def test_a_firewall_is_left_out_where_a_machine_may_load_no_rules(tmp_path, unit):
    minion.finish(tmp_path)
    added = (tmp_path / f"usr/lib/systemd/system/{unit}.d/immutable.conf").read_text()
    assert added == "[Unit]\nConditionCapability=CAP_NET_ADMIN\n"

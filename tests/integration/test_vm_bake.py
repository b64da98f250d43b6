"""States that need a kernel of their own bake in a virtual machine (``bake_in: vm``); its layer is like any other."""

from __future__ import annotations

import shutil
import stat
import time

import pytest
from support.estate import wait_for
from support.slices import full
from test_bake import forget

from saltext.immutable.machines import machine as machines

pytestmark = [
    full("bakes in a virtual machine, in emulation perhaps", minutes=1.3),
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="needs qemu: apt-get install qemu-system-x86"),
]


BAKE_ID = "web-virtual.tests.example.com"


@pytest.fixture(scope="module")
def report(estate):
    return estate.salt_run("image.bake", "virtual")


def test_the_kernel_of_the_machine_did_what_the_states_say(estate, report):
    what = "load the saved rules of nftables, which /etc/nftables.conf has to include"
    assert [(each["what"], each["applied_by"]) for each in report.data["deferred"]] == [(what, "nftables.service")]
    tree = estate.host.layers / report.data["layers"][-1]["digest"] / "fs"
    assert (tree / "etc/set-while-it-baked").read_text() == "set\n"
    assert (tree / "etc/loaded-while-it-baked").read_text() == "loaded\n"
    assert (tree / "var/lib/only-here").read_text() == "ran\n", "its condition excludes containers"


def test_the_layer_is_what_the_states_changed(estate, report):
    tree = estate.host.layers / report.data["layers"][-1]["digest"] / "fs"
    assert stat.S_IMODE((tree / "srv/tools").stat().st_mode) == 0o2750
    assert stat.S_ISCHR((tree / "etc/motd").stat().st_mode), "a whiteout"
    assert "vm.max_map_count = 262144" in (tree / "etc/sysctl.d/99-salt.conf").read_text()
    assert not any((tree / path).exists() for path in ("run/immutable-pki", "lower", "changes", "etc/resolv.conf"))
    assert not list(tree.glob("var/cache/apt/archives/*.deb"))


def test_its_tests_ran_in_the_bake_and_on_the_disk_of_the_image(estate, report):
    results = estate.salt_run("image.show", "virtual:stable").data["tests"]["results"]
    assert [each["phase"] for each in results] == ["inside", "vm", "vm", "vm", "vm", "vm", "vm"]
    assert all(each["passed"] for each in results), results


def test_nothing_is_left_and_nothing_is_done_twice(estate, report, nothing_is_left):
    nothing_is_left()
    again = estate.salt_run("image.bake", "virtual")
    assert (again.data["cached"], again.data["digest"]) == (True, report.data["digest"])


def test_one_that_was_killed_is_cleaned_up_by_the_next_bake(estate, report):
    forget(estate, "states of virtual")
    process = estate.popen("image.bake", "virtual")
    wait_for(lambda: machines.find(estate.host, BAKE_ID) or process.poll() is not None, 120)
    time.sleep(3.0)
    process.kill()
    process.communicate()
    assert machines.find(estate.host, BAKE_ID).vm is not None
    forget(estate, "states of small")
    estate.salt_run("image.bake", "small")
    left = {kind: count for kind, count in estate.leaks().items() if count}
    assert left.keys() <= {"keys"}, f"{left}; the key goes with the next bake of the recipe"


def test_baked_again_from_the_same_it_is_the_same(estate, report):
    """It is built, because the one before was killed."""
    again = estate.salt_run("image.bake", "virtual").data
    assert (again["cached"], again["digest"]) == (False, report.data["digest"])


def test_its_machines_serve_where_the_host_has_the_kernel(estate, report, fleet_of_one):
    with fleet_of_one("virtual") as run:
        assert run("cat /etc/set-while-it-baked") == "set"

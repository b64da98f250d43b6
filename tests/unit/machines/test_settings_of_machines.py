"""The provider settings of a fleet for its machines, and orders to launch."""

from __future__ import annotations

import math

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.host import Host
from saltext.immutable.machines import commands, images, nspawn
from saltext.immutable.machines.cgroup import Cgroup
from saltext.immutable.providers.nspawn import Nspawn, cpus, memory


@pytest.mark.parametrize(
    ("value", "size"),
    [("512M", 512 << 20), ("1G", 1 << 30), ("1g", 1 << 30), (" 2 K".replace(" 2 ", "2"), 2048), (4096, 4096), ("7", 7)],
)
def test_memory(value, size):
    assert memory(value) == size


@pytest.mark.parametrize("value", ["", "G", "0", "-1G", "1.5G", "1T", "much", None, True, "1 G B"])
def test_invalid_memory(value):
    with pytest.raises(SaltInvocationError, match="provider:memory: .* is not a size; write 512M or 1G"):
        memory(value)


@pytest.mark.parametrize(("value", "number"), [(2, 2.0), (0.5, 0.5), (None, None)])
def test_cpus(value, number):
    assert cpus(value) == number


@pytest.mark.parametrize("value", [0, -1, "2", True, math.inf, math.nan, []])
def test_invalid_cpus(value):
    with pytest.raises(SaltInvocationError, match="provider:cpus: .* is not a number of CPUs; write 2 or 0.5"):
        cpus(value)



@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ram": "1G"}, "unknown setting of nspawn: 'ram'; it has memory, cpus, minion"),
        ({"memory": "lots"}, "provider:memory"),
        ({"cpus": "many"}, "provider:cpus"),
        ({"minion": ["a"]}, "provider:minion"),
        ({"minion": {"schedule": {"enabled": True}}}, "provider:minion: 'schedule' is not a setting"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(SaltInvocationError, match=message):
        Nspawn.check(settings)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        pytest.param({"minion_id": "m"}, "bridge, image, minion, subnet", id="missing"),
        pytest.param(
            {"minion_id": "m", "image": "i", "minion": {}, "bridge": "b", "subnet": "s", "upper": "/"},
            "unknown: upper",
            id="what only a bake decides",
        ),
    ],
)
def test_an_order_is_checked(tmp_path, order, message):
    with pytest.raises(SaltInvocationError, match=message):
        commands.launch(Host(tmp_path), order)


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(CommandExecutionError, match="image 0123456789ab is not on this host; bake its recipe here"):
        images.lower(Host(tmp_path), "0123456789abcdef")


def test_a_missing_layer_is_named(tmp_path):
    about = images.metadata_file(Host(tmp_path), "d1")
    about.parent.mkdir(parents=True)
    about.write_text('{"layers": ["l1"]}')
    with pytest.raises(CommandExecutionError, match="layer l1 is not on this host; bake the image again"):
        images.lower(Host(tmp_path), "d1")


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("web-1.example.com", "web-1.example.com"),
        ("web_1", "web-1"),
        ("a" * 63 + "." + "b" * 10, "a" * 63),
    ],
)
def test_machine_names_are_valid_for_nspawn(name, taken):
    assert nspawn._machine_name(name) == taken


def test_two_machines_have_two_cgroups_in_every_hierarchy():
    one, other = Cgroup("web-1").folders(), Cgroup("web-2").folders()
    assert len(one) == len(other) >= 1
    assert not {*one} & {*other}

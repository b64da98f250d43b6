"""The provider settings of a fleet for its machines, and orders to launch."""

from __future__ import annotations

import math

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.host import Host
from saltext.immutable.machines import commands, images, nspawn
from saltext.immutable.machines.cgroup import Cgroup
from saltext.immutable.providers import Identity
from saltext.immutable.providers import nspawn as providers_nspawn
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
        ({"ram": "1G"}, "unknown setting of nspawn: 'ram'; it has capabilities, cpus, memory, minion, network"),
        ({"memory": "lots"}, "provider:memory"),
        ({"cpus": "many"}, "provider:cpus"),
        ({"minion": ["a"]}, "provider:minion"),
        ({"minion": {"schedule": {"enabled": True}}}, "provider:minion: 'schedule' is not a setting"),
        ({"network": {"open": True}}, "provider:network: "),
        ({"network": ["between"]}, "provider:network: "),
        ({"network": {"between": "yes"}}, "provider:network:between: 'yes' is neither true nor false"),
        ({"network": {"ports": 80}}, "provider:network:ports: 80 is no list of ports"),
        ({"network": {"ports": [0]}}, "provider:network:ports"),
        ({"network": {"ports": [True]}}, "provider:network:ports"),
        ({"network": {"ports": ["80"]}}, "provider:network:ports"),
        ({"capabilities": "CAP_NET_ADMIN"}, "provider:capabilities: 'CAP_NET_ADMIN' is no list of capabilities"),
        ({"capabilities": ["NET_ADMIN"]}, "provider:capabilities"),
        ({"capabilities": ["CAP_ALL", 7]}, "provider:capabilities"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(SaltInvocationError, match=message):
        Nspawn.check(settings)


@pytest.mark.parametrize(
    ("settings", "ordered"),
    [
        pytest.param({}, {}, id="an order to a host of a former version has no word that it does not know"),
        pytest.param({"network": {"between": False}, "capabilities": []}, {}, id="nothing is opened"),
        pytest.param(
            {"network": {"between": True, "ports": [3142]}, "capabilities": ["CAP_NET_ADMIN"]},
            {"between": True, "ports": [3142], "capabilities": ["CAP_NET_ADMIN"]}, id="all is opened",
        ),
    ],
)  # fmt: skip
def test_what_a_fleet_opens_is_part_of_the_order(settings, ordered, monkeypatch, tmp_path):
    sent = {}
    opts = {"id": "m", "immutable": {"root": str(tmp_path)}, "pki_dir": str(tmp_path)}
    monkeypatch.setattr(providers_nspawn, "machine_config", lambda opts, master: {"master": master})
    provider = Nspawn(settings, opts)
    provider._host = lambda function, **how: sent.update(how["order"]) or {"minion_id": "a"}
    provider.launch("d" * 64, Identity("a", "f", 1, "i"))
    assert {name: sent[name] for name in ("between", "ports", "capabilities") if name in sent} == ordered


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

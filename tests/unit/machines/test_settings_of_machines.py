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
from saltext.immutable.providers.nspawn import Nspawn


@pytest.fixture
def provider(monkeypatch, tmp_path):
    """Return a function that makes a provider with these settings, whose host notes the orders to launch."""
    monkeypatch.setattr(providers_nspawn, "machine_config", lambda opts, master: {"master": master})

    def make(settings):
        made = Nspawn(settings, {"id": "m", "immutable": {"root": str(tmp_path)}, "pki_dir": str(tmp_path)})
        made.sent = {}
        made._host = lambda function, **how: made.sent.update(how["order"]) or {"minion_id": "a"}
        made.launch("d" * 64, Identity("a", "f", 1, "i"))
        return made

    return make


@pytest.mark.parametrize(
    ("value", "size"),
    [("512M", 512 << 20), ("1G", 1 << 30), ("1g", 1 << 30), ("65536K", 64 << 20), (1 << 30, 1 << 30)],
)
def test_memory(value, size, provider):
    Nspawn.check({"memory": value})
    assert provider({"memory": value}).sent["memory"] == size


@pytest.mark.parametrize("value", ["", "G", "-1G", "1.5G", "1T", "much", None, True, "1 G B", 10**40, "\u0663G", b"1G"])
def test_invalid_memory(value):
    with pytest.raises(SaltInvocationError, match="provider:memory: .* is not a size; write 512M or 1G"):
        Nspawn.check({"memory": value})


@pytest.mark.parametrize("value", [1, "1", "0", "1K", "63M", "16385G", 1 << 60])
def test_memory_that_no_machine_could_have(value):
    with pytest.raises(SaltInvocationError, match="provider:memory: must be 64M to 16384G, not "):
        Nspawn.check({"memory": value})


@pytest.mark.parametrize(("value", "number"), [(2, 2.0), (0.5, 0.5), (None, None)])
def test_cpus(value, number, provider):
    Nspawn.check({"cpus": value})
    assert provider({"cpus": value}).sent["cpus"] == number


@pytest.mark.parametrize("value", [0, -1, "2", True, math.inf, math.nan, [], 1e-9, 5000, 10**400])
def test_invalid_cpus(value):
    with pytest.raises(SaltInvocationError, match="provider:cpus: must be a number from 0.01 to 4096, not "):
        Nspawn.check({"cpus": value})


def test_settings_of_an_older_version_that_are_refused_now_have_no_effect(provider):
    """A fleet whose generation has them must still be listed and destroyed."""
    sent = provider({"memory": 1, "cpus": 1e-9, "disk": 3, "minion": {"grains": 7, "log_level": "info"}}).sent
    assert (sent["memory"], sent["cpus"]) == (1 << 30, None)
    assert {name for name in sent["minion"]} == {"log_level", "master", "id", "immutable_machine"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ram": "1G"}, "provider:ram: no such key; known here: capabilities, cpus, memory, minion, network"),
        ({"memory": "lots"}, "provider:memory"),
        ({"cpus": "many"}, "provider:cpus"),
        ({"minion": ["a"]}, "provider:minion"),
        ({"minion": {"schedule": {"enabled": True}}}, "provider:minion: 'schedule' is not a setting"),
        ({"network": {"open": True}}, "provider:network:open: no such key"),
        ({"network": ["between"]}, "provider:network: "),
        ({"network": {"between": "yes"}}, "provider:network:between: must be true or false, not str 'yes'"),
        ({"network": {"ports": 80}}, "provider:network:ports: must be a list, not int 80"),
        ({"network": {"ports": [0]}}, "provider:network:ports"),
        ({"network": {"ports": [True]}}, "provider:network:ports"),
        ({"network": {"ports": ["80"]}}, "provider:network:ports"),
        ({"capabilities": "CAP_NET_ADMIN"}, "provider:capabilities: must be a list, not str 'CAP_NET_ADMIN'"),
        ({"capabilities": ["NET_ADMIN"]}, "provider:capabilities: 'NET_ADMIN' is no capability"),
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
def test_what_a_fleet_opens_is_part_of_the_order(settings, ordered, provider):
    sent = provider(settings).sent
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

"""Which states a chroot makes unreliable, and the warnings about them."""

from __future__ import annotations

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable import spec
from saltext.immutable.builder.states import state_run
from saltext.immutable.builder.states.chroot import warnings
from saltext.immutable.machines.description import Machine


def applied(function: str, name: str = "it", id_: str = "id") -> dict[str, dict]:
    module, _, verb = function.partition(".")
    return {f"{module}_|-{id_}_|-{name}_|-{verb}": {"__id__": id_, "__sls__": "web", "name": name, "result": True}}


@pytest.mark.parametrize(
    ("function", "name", "why"),
    [
        ("service.running", "nginx", "no init runs"),
        ("service.enabled", "nginx", "no init runs"),
        ("sysctl.present", "vm.swappiness", "the kernel of the builder"),
        ("mount.mounted", "/srv", "the kernel of the builder"),
        ("network.managed", "eth0", "the kernel of the builder"),
        ("kmod.present", "br_netfilter", "the kernel of the builder"),
        ("docker_container.running", "db", "a daemon that does not run"),
        ("timezone.system", "Europe/Berlin", "a daemon that does not run"),
        ("postgres_user.present", "shop", "its server does not run"),
        ("module.run", "service.restart", "no init runs"),
        ("cmd.run", "systemctl daemon-reload", "no init runs"),
        ("cmd.run", "cd /tmp && /bin/systemctl enable x; true", "no init runs"),
        ("cmd.wait", "service nginx reload", "no init runs"),
        ("cmd.run", "hostnamectl set-hostname x", "a daemon that does not run"),
        ("cmd.run", "test -e /x || modprobe loop", "the kernel of the builder"),
        ("cmd.run", "echo $(ip addr)", "the kernel of the builder"),
    ],
)
def test_states_that_need_an_init_a_kernel_or_a_daemon_are_named(function, name, why):
    (warning,) = warnings(applied(function, name, "my id"))
    assert warning.startswith(f"my id in web: {function} is unreliable in a chroot: ") and why in warning


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("file.managed", "/etc/systemctl"),
        ("pkg.installed", "nginx"),
        ("cron.present", "run-parts /etc/cron.daily"),
        ("user.present", "service"),
        ("cmd.run", "my-service --systemctl-path=x"),
        ("cmd.run", "/opt/app/bin/service-registry migrate"),
        ("cmd.run", "cat /etc/mount.conf"),
        ("module.run", "file.touch"),
    ],
)
def test_other_states_give_no_warning(function, name):
    assert warnings(applied(function, name)) == []


def test_warnings_are_sorted():
    both = {**applied("service.running", id_="b"), **applied("sysctl.present", id_="a"), **applied("pkg.installed")}
    assert [warning.partition(" ")[0] for warning in warnings(both)] == ["a", "b"]


@pytest.fixture
def prepared(host, tmp_path, monkeypatch):
    monkeypatch.setattr(state_run.mirrors, "apt_config", lambda workspace, offline: {})
    order = {"bake_id": "web-bake", "minion": {}, "bridge": "b", "subnet": "10.0.0.0/24"}
    return lambda **more: state_run.prepare(host, tmp_path, {**order, **more}, ())


def test_without_an_init_packages_start_no_daemons(prepared, tmp_path):
    machine: Machine = prepared(chroot=True)
    assert (machine.boot, list(machine.files)) == (False, ["/usr/sbin/policy-rc.d"])
    assert (tmp_path / "override").read_text() == "#!/bin/sh\nexit 101\n"
    assert prepared().boot and "/usr/sbin/policy-rc.d" not in prepared().files


def test_an_empty_file_of_a_mount_is_removed_and_one_that_a_state_wrote_stays(tmp_path):
    (tmp_path / "usr/sbin").mkdir(parents=True)
    policy = tmp_path / "usr/sbin/policy-rc.d"
    policy.touch()
    state_run.finish(tmp_path)
    assert not policy.exists()
    policy.write_text("exit 101\n")
    state_run.finish(tmp_path)
    assert policy.exists()


def read(**recipe):
    pillar = {"immutable": {"recipes": {"web": {"from": {"debian": "bookworm"}, **recipe}}}}
    return spec.definitions(pillar).recipes["web"].bake_in


def test_bake_in_of_a_recipe():
    assert (read(), read(bake_in="chroot"), read(bake_in="vm")) == ("machine", "chroot", "vm")
    with pytest.raises(SaltInvocationError, match="recipes:web:bake_in: must be machine, chroot or vm, not str 'host'"):
        read(bake_in="host")

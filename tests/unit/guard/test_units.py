"""Which units of systemd an operator may start, stop, restart and reload on a sealed machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from saltext.immutable.guard import policy
from saltext.immutable.guard.reach.units import foreign, unfit, unfit_alias

LIB, ETC = "usr/lib/systemd/system", "etc/systemd/system"


@pytest.mark.parametrize(
    "name",
    ["nginx", "nginx.service", "php8.2-fpm", "ssh.socket", "apt-daily.timer", "app.target", "app@1.service", "a@b-c.d"]
    + ["salt-minion", "systemd-resolved", r"dev\x2dx"],
)
def test_services_timers_sockets_and_targets_may_be_operated(name):
    assert unfit(name, stops=False) is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("tmp.mount", "of type mount", id="a mount"),
        pytest.param("-.mount", "plain name", id="the root"),
        pytest.param("etc-hosts.mount", "of type mount", id="the mount of a file"),
        pytest.param("proc-sys-fs-binfmt_misc.automount", "of type automount", id="an automount"),
        pytest.param("dev-sda.swap", "of type swap", id="swap"),
        pytest.param("dev-sda.device", "of type device", id="a device"),
        pytest.param("x.path", "of type path", id="a path"),
        pytest.param("system.slice", "of type slice", id="a slice"),
        pytest.param("init.scope", "of type scope", id="a scope"),
        pytest.param("umount.target", "systemd itself", id="the target that unmounts"),
        pytest.param("emergency.target", "systemd itself", id="the target that ends all others"),
        pytest.param("immutable-launch", "guard itself", id="the launch phase"),
        pytest.param("immutable-mine.timer", "guard itself", id="the timer of the mine"),
        pytest.param("systemd-sysext", "/usr", id="what puts other files over the programs"),
        pytest.param("systemd-confext.service", "/etc", id="and over the config"),
        pytest.param("systemd-poweroff", "ends this machine", id="the end"),
        pytest.param("systemd-reboot", "ends this machine", id="a reboot that stops nothing before"),
        pytest.param("runlevel0.target", "systemd itself", id="the end, by its old name"),
        pytest.param("ctrl-alt-del.target", "systemd itself", id="by three keys"),
        pytest.param("systemd-suspend", "stops this machine", id="sleep"),
        pytest.param("systemd-suspend-then-hibernate", "stops this machine", id="sleep, and deeper"),
        pytest.param("systemd-hibernate", "stops this machine", id="deep sleep"),
        pytest.param("systemd-hybrid-sleep", "stops this machine", id="both"),
        pytest.param("systemd-exit", "ends this machine", id="the end of init"),
        pytest.param("rescue", "ends all others", id="rescue"),
        pytest.param("emergency.service", "ends all others", id="emergency"),
        pytest.param("debug-shell", "shell of root", id="a shell on a terminal"),
        pytest.param("modprobe@dummy", "module of the kernel", id="a module of the kernel"),
        pytest.param("user@0.service", "units of a user", id="units of a user"),
        pytest.param("systemd-nspawn@x", "another system", id="another system"),
        pytest.param("systemd-firstboot", "new system", id="the first boot"),
        pytest.param("systemd-repart", "file systems", id="partitions"),
        pytest.param("systemd-volatile-root", "mounts", id="another root"),
        pytest.param("initrd-cleanup", "start of the system", id="the start of the system"),
        pytest.param("*", "plain name", id="a glob"),
        pytest.param("tm[p].mount", "plain name", id="a glob that is a mount"),
        pytest.param("nginx tmp.mount", "plain name", id="two names"),
        pytest.param("--root=/x", "plain name", id="an option"),
        pytest.param("/run/evil.service", "plain name", id="a path"),
        pytest.param("nginx\n", "plain name", id="another line"),
        pytest.param(["nginx", "tmp.mount"], "plain name", id="a list"),
        pytest.param("", "plain name", id="nothing"),
    ],
)
def test_nothing_else_may_be(name, says):
    assert says in str(unfit(name, stops=False))
    for fun in ("service.start", "service.stop", "service.restart", "service.reload", "service.force_reload"):
        assert policy.classify(fun, [name], {}) == policy.classify(fun, [], {"name": name}) == "change"


def test_salt_may_be_restarted_and_not_stopped():
    assert "nobody could reach this machine" in str(unfit("salt-minion", stops=True))
    assert policy.classify("service.stop", ["salt-minion.service"], {}) == "change"
    assert policy.classify("service.restart", ["salt-minion.service"], {}) == "operate"


@pytest.fixture
def root(tmp_path) -> Path:
    """An image with nginx, an instance, an alias, a script, and a unit that is enabled."""
    files = (f"{LIB}/nginx.service", f"{LIB}/app@.service", f"{LIB}/ssh.service", "etc/init.d/old", "etc/init.d/gone")
    for file in (*files, "run/systemd/generator.late/old.service"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / ETC).mkdir(parents=True)
    (tmp_path / ETC / "sshd.service").symlink_to("/usr/lib/systemd/system/ssh.service")
    (tmp_path / ETC / "console@.service").symlink_to("/usr/lib/systemd/system/getty@.service")
    return tmp_path


@pytest.mark.parametrize("name", ["nginx", "nginx.service", "app@1", "sshd", "ssh.service", "old"])
def test_a_unit_of_the_image(root, name):
    assert foreign(name, str(root)) is None


@pytest.mark.parametrize(
    ("links", "name", "stops", "says"),
    [
        pytest.param({"runlevel9.target": "poweroff.target"}, "runlevel9.target", False, "poweroff", id="an alias"),
        pytest.param({"x.service": "immutable-mine.service"}, "x", False, "guard itself", id="of the guard's unit"),
        pytest.param({"x.service": "y.service", "y.service": "systemd-exit.service"}, "x", False, "ends", id="of one"),
        pytest.param({"load@.service": "modprobe@.service"}, "load@dummy", False, "modprobe@dummy", id="of a template"),
        pytest.param({"x.service": "modprobe@dummy.service"}, "x", False, "modprobe@dummy", id="of an instance"),
        pytest.param({"salt-minion.service": "agent.service"}, "agent", True, "nobody could", id="the real one of it"),
        pytest.param({"salt-minion.service": "agent.service"}, "agent", False, None, id="which may be restarted"),
        pytest.param({"x.service": "nginx.service", "y.service": "/dev/null"}, "x", True, None, id="of a harmless one"),
    ],
)
def test_a_unit_is_judged_by_each_of_its_names(root, links, name, stops, says):
    for alias, target in links.items():
        (root / LIB / alias).symlink_to(target)
    assert unfit(name, stops) is None
    found = unfit_alias(name, stops, str(root))
    assert found is None if says is None else says in str(found)


@pytest.mark.parametrize("name", ["evil", "nginx.timer", "app", "gone", "evil@1"])
def test_a_unit_that_the_image_does_not_have(root, name):
    assert "no unit of this image" in str(foreign(name, str(root)))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("run/systemd/system/evil.service", "evil"),
        ("run/systemd/system/nginx.service", "nginx"),
        ("run/systemd/system/nginx.service.d", "nginx"),
        ("run/systemd/system/app@.service.d", "app@1"),
        ("run/systemd/system/app@1.service", "app@1"),
        ("run/systemd/system/ssh.service.d", "sshd"),
        ("run/systemd/system/service.d", "nginx"),
        ("run/systemd/system/socket.d", "ssh.socket"),
        ("run/systemd/system/php-.service.d", "php-fpm-pool"),
        ("run/systemd/system/php-fpm-.service.d", "php-fpm-pool"),
        ("run/systemd/system/a-.service.d", "a-b@c"),
        ("run/systemd/system/a-@.service.d", "a-b@c"),
        ("run/systemd/system/a-@c.service.d", "a-b@c"),
        ("run/systemd/system/nginx.service.wants", "nginx"),
        ("run/systemd/system/app@.service.requires", "app@1"),
        ("run/systemd/system.control/service.requires", "nginx"),
        ("run/systemd/transient/nginx.service.upholds", "nginx"),
        ("run/systemd/system/getty@tty1.service.d", "console@tty1"),
        ("run/systemd/transient/nginx.service", "nginx"),
        ("run/systemd/system.control/nginx.service.d", "nginx"),
        ("run/systemd/generator/nginx.service", "nginx"),
        ("run/systemd/generator.early/nginx.service", "nginx"),
        ("etc/systemd/system.control/nginx.service", "nginx"),
    ],
)
def test_a_unit_that_came_later_or_was_changed(root, path, name):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).touch()
    assert foreign(name, str(root)) == f"/{path}"


LXC = """[Service]
ProcSubset=all
ProtectProc=default
ProtectControlGroups=no
ProtectKernelTunables=no
NoNewPrivileges=no
LoadCredential=
PrivateNetwork=no
ProtectSystem=no
PrivateDevices=no
PrivateTmp=no
ReadWritePaths=
"""
"""What LXC's generator writes for each service of a container with all privileges."""


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        pytest.param(LXC, True, id="LXC's own"),
        pytest.param("; of\n# LXC\n\n [Service] \n\tProtectHome = read-only", True, id="with comments and blanks"),
        pytest.param("", True, id="nothing"),
        *(
            pytest.param(f"{LXC}{line}\n", False, id=line)
            for line in (
                *("ExecStart=/tmp/x", "ExecStartPre=", "ExecCondition=", "Environment=LD_PRELOAD=/tmp/x.so"),
                *("EnvironmentFile=/tmp/x", "PassEnvironment=X", "RootDirectory=/tmp", "RootImage=/tmp/x"),
                *("BindPaths=/tmp:/usr", "BindReadOnlyPaths=/tmp:/usr", "MountImages=/tmp/x:/usr", "User="),
                *("Group=adm", "SetCredential=a:b"),
                *("ExtensionImages=/tmp/x", "LoadCredential=a:/etc/shadow", "ImportCredential=*"),
                *("ReadWritePaths=/usr", "AmbientCapabilities=CAP_SYS_ADMIN", "WorkingDirectory=/tmp", "Requires=x"),
                *("PrivateMounts=no", "PrivateUsers=no", "ProtectProc=a \\", "ProtectHome=no:x", "OnFailure=x.service"),
                *("#\rExecStart=/tmp/x", "#\0ExecStart=/tmp/x", "[Service", "x"),
            )
        ),
    ],
)
@pytest.mark.parametrize("folder", ["service.d", "nginx.service.d"])
def test_a_drop_in_of_this_boot_is_judged_by_its_lines(root, folder, text, harmless):
    path = root / "run/systemd/system" / folder / "zzz-lxc-service.conf"
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode())
    found = foreign("nginx", str(root))
    assert found == (None if harmless else f"/run/systemd/system/{folder}/zzz-lxc-service.conf")


def test_a_harmless_drop_in_takes_no_place_of_the_images(root):
    for path in (f"{LIB}/nginx.service.d", "run/systemd/system/service.d"):
        (root / path).mkdir(parents=True)
        (root / path / "10-user.conf").write_text("[Service]\nUser=www\n" if path.startswith(LIB) else LXC)
    assert foreign("nginx", str(root)) == "/run/systemd/system/service.d/10-user.conf"


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/dev/null"), os.mkfifo, Path.mkdir])
def test_what_is_no_file_is_no_harmless_drop_in(root, make):
    path = root / "run/systemd/system/service.d/x.conf"
    path.parent.mkdir(parents=True)
    make(path)
    assert foreign("nginx", str(root)) == "/run/systemd/system/service.d/x.conf"


def test_what_the_images_own_generators_add_counts_as_the_images(root):
    (root / "run/systemd/generator/nginx.service.d").mkdir(parents=True)
    assert foreign("nginx", str(root)) is None

"""What an image wants of the kernel that its machines share with their host, and of their capabilities."""

from __future__ import annotations

import os

import pytest

from saltext.immutable.machines import host_needs

ETC, LIB = "etc/systemd/system", "usr/lib/systemd/system"
WANTED, ASKS = f"{ETC}/sysinit.target.wants/nftables.service", "[Unit]\nConditionCapability=CAP_NET_ADMIN\n"
ENABLED = {f"{LIB}/nftables.service": "[Service]\n", f"{LIB}/nftables.service.d/immutable.conf": ASKS, WANTED: "-> /x"}
SAID = (
    "not applicable on these machines: {} (it needs CAP_NET_ADMIN); capabilities in the settings of the fleet's "
    "provider give machines what they need"
)


@pytest.fixture
def host(tmp_path):
    """A host whose kernel has some settings and one module."""
    for path, value in (("vm/max_map_count", "65530\n"), ("kernel/panic", "10\n"), ("net/ipv4/ip_forward", "0\n")):
        file = tmp_path / "proc/sys" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value)
    (tmp_path / "sys/module/br_netfilter").mkdir(parents=True)
    (tmp_path / "secret").write_text("root:x:0\n")
    (tmp_path / "proc/sys/vm/linked").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "proc/sys/vm/pipe")
    release = tmp_path / "lib/modules" / os.uname().release
    release.mkdir(parents=True)
    (release / "modules.builtin").write_text("kernel/fs/built-in.ko\n")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line", "sentence"),
    [
        pytest.param(
            "sysctl.d/9.conf",
            "vm.max_map_count = 262144",
            "the host needs vm.max_map_count=262144: 65530 now",
            id="another value",
        ),
        pytest.param("sysctl.d/9.conf", "kernel.panic=10", None, id="as it is"),
        pytest.param(
            "sysctl.d/9.conf", "vm.x = 1", "the host needs vm.x=1: its kernel has no such setting", id="no such setting"
        ),
        pytest.param("sysctl.d/9.conf", "net.ipv4.ip_forward = 1", None, id="of the machine's own network"),
        pytest.param(
            "sysctl.d/9.conf",
            "net.core.rmem_max = 7",
            "the host needs net.core.rmem_max=7: its kernel has no such setting",
            id="of the host's network, which a machine's only reads",
        ),
        pytest.param("sysctl.d/9.conf", "kernel.hostname = x", None, id="of the machine"),
        pytest.param(
            "sysctl.d/9.conf",
            "kernel.shmmax = 1",
            "kernel.shmmax=1 has no effect: machines keep the kernel's own value",
            id="of its shared memory",
        ),
        pytest.param("sysctl.d/9.conf", "vm/../kernel/panic = 1", None, id="by a detour"),
        pytest.param("sysctl.d/9.conf", "/secret = 1", None, id="a file of the host"),
        pytest.param("sysctl.d/9.conf", ".secret = 1", None, id="the same with a dot"),
        pytest.param("sysctl.d/9.conf", "//secret = 1", None, id="the same with two"),
        pytest.param("sysctl.d/9.conf", "vm/linked = 1", None, id="a link"),
        pytest.param("sysctl.d/9.conf", "vm/pipe = 1", None, id="a pipe, which would be waited for"),
        pytest.param("sysctl.d/9.conf", "vm/*/x = 1", None, id="a star"),
        pytest.param("modules-load.d/a.conf", "built-in", None, id="a module that is part of the kernel"),
        pytest.param("modules-load.d/a.conf", "br-netfilter", None, id="a module that is loaded"),
        pytest.param(
            "modules-load.d/a.conf",
            "ip_vs",
            "the host needs the module ip_vs: it is not loaded now",
            id="one that is not",
        ),
        pytest.param("modules-load.d/a.conf", "# ip_vs", None, id="a comment"),
        pytest.param("modules-load.d/a.conf", "../x", None, id="no module"),
    ],
)
def test_what_the_host_does_not_have_is_named(host, tmp_path, file, line, sentence):
    path = tmp_path / "layers/l0/etc" / file
    path.parent.mkdir(parents=True)
    path.write_text(f"{line}\n")
    assert host_needs.unmet(tmp_path / "layers", ["l0"], (), (), host) == ([sentence] if sentence else [])


def test_an_image_that_wants_nothing_needs_nothing(host, tmp_path):
    (tmp_path / "layers/l0/etc").mkdir(parents=True)
    assert host_needs.unmet(tmp_path / "layers", ["l0"], (), (), host) == []


def layer(folder, files):
    """Write a layer: path -> text; ``-> target`` is a link, ``gone`` a whiteout."""
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if text == "gone":
            os.mknod(file, 0o020000, 0)
        elif text.startswith("-> "):
            file.symlink_to(text[3:])
        else:
            file.write_text(text)


@pytest.mark.parametrize(
    ("lower", "upper", "running", "asked"),
    [
        pytest.param(ENABLED, {}, [], ["nftables.service"], id="a firewall that is enabled"),
        pytest.param(ENABLED | {WANTED: "x"}, {}, [], [], id="one that is not"),
        pytest.param(ENABLED | {WANTED: "x"}, {}, ["nftables.service"], ["nftables.service"], id="but states want it"),
        pytest.param(ENABLED, {f"{ETC}/nftables.service": "-> /dev/null"}, [], [], id="one that is masked"),
        pytest.param({f"{LIB}/a.service": ASKS, f"{ETC}/x.wants/a.service": "-> /x"}, {}, [], [], id="no firewall"),
        pytest.param({f"{LIB}/a.service": ASKS}, {}, ["a.service"], ["a.service"], id="wanted"),
        pytest.param({f"{LIB}/a.service": ASKS}, {f"{ETC}/a.service": "x"}, ["a.service"], [], id="its own unit"),
        pytest.param({f"{LIB}/a.service": "ConditionCapability=!CAP_X\n"}, {}, ["a.service"], [], id="not having it"),
        pytest.param({f"{LIB}/a.service": "# ConditionCapability=CAP_X"}, {}, ["a.service"], [], id="a comment"),
        pytest.param({f"{LIB}/a.service": "-> /etc/shadow"}, {}, ["a.service"], [], id="a link out of the image"),
    ],
)
def test_what_services_ask_for(tmp_path, lower, upper, running, asked):
    layer(tmp_path / "l0", lower)
    layer(tmp_path / "l1", upper)
    assert host_needs.unmet(tmp_path, ["l0", "l1"], running, (), tmp_path) == [SAID.format(unit) for unit in asked]


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a whiteout, which is a device: needs root")
def test_what_a_higher_layer_removed_asks_for_nothing(tmp_path):
    layer(tmp_path / "l0", ENABLED)
    layer(tmp_path / "l1", {WANTED: "gone"})
    assert host_needs.unmet(tmp_path, ["l0", "l1"], (), (), tmp_path) == []


@pytest.mark.parametrize(
    ("capabilities", "count"),
    [([], 1), (["CAP_NET_ADMIN"], 0), (["CAP_SYS_TIME"], 1), (["CAP_BPF", "CAP_NET_ADMIN"], 0)],
)
def test_one_sentence_says_what_machines_leave_out(tmp_path, capabilities, count):
    layer(tmp_path / "l0", ENABLED | {f"{LIB}/a.service": "ConditionCapability=CAP_CHOWN\n"})
    said = host_needs.unmet(tmp_path, ["l0"], ["a.service"], capabilities, tmp_path)
    assert said == [SAID.format("nftables.service")] * count

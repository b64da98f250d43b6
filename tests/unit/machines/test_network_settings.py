"""The settings of a machine's own network that its image has."""

from __future__ import annotations

import os

import pytest

from saltext.immutable.machines import network_settings


@pytest.fixture
def image(tmp_path):
    """Return what makes an image of layers, each a mapping of paths to texts, or to a link with ``->``."""

    def make(*layers: dict[str, str]) -> list[str]:
        for number, files in enumerate(layers):
            (tmp_path / f"l{number}" / "etc").mkdir(parents=True)
            for path, text in files.items():
                file = tmp_path / f"l{number}" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                if text.startswith("->"):
                    file.symlink_to(text[2:])
                else:
                    file.write_text(text)
        return network_settings.of_image(tmp_path, [f"l{number}" for number in range(len(layers))])

    return make


@pytest.mark.parametrize(
    ("line", "setting"),
    [
        pytest.param("net.core.somaxconn = 4321", "net/core/somaxconn 4321", id="with dots"),
        pytest.param("net/ipv4/conf/eth0.1/rp_filter=2", "net/ipv4/conf/eth0.1/rp_filter 2", id="with slashes"),
        pytest.param("net.ipv4.conf.eth0/1.rp_filter=2", "net/ipv4/conf/eth0.1/rp_filter 2", id="an interface"),
        pytest.param("-net.ipv4.tcp_rmem = 4096\t87380 1", "net/ipv4/tcp_rmem 4096\t87380 1", id="several numbers"),
        pytest.param("net.ipv4.conf.*.rp_filter = 2", "net/ipv4/conf/*/rp_filter 2", id="all interfaces"),
        pytest.param("vm.max_map_count = 262144", None, id="of the host"),
        pytest.param("kernel.hostname = x", None, id="of the kernel"),
        pytest.param("net/../kernel/core_pattern = |/tmp/x", None, id="by a detour"),
        pytest.param("net/core/$(id)=1", None, id="a command"),
        pytest.param("net.ipv4.conf.host0.proxy_arp=1", None, id="it would answer for others"),
        pytest.param("net.ipv4.conf.host0.proxy*=1", None, id="the same by a star"),
        pytest.param("net.ipv4.conf.all.arp_accept=1", None, id="it would believe others"),
        pytest.param("net.core.x = 1\0", None, id="a control character"),
        pytest.param("net.core.x = " + "1" * 400, None, id="too long"),
        pytest.param("# net.core.somaxconn = 1", None, id="a comment"),
        pytest.param("net.core.somaxconn =", None, id="no value"),
        pytest.param("net.core", None, id="no setting"),
    ],
)
def test_what_a_line_of_a_file_means(image, line, setting):
    assert image({"etc/sysctl.d/9.conf": f"{line}\n"}) == ([setting] if setting else [])


def test_later_files_and_higher_layers_win(image):
    below = {"etc/sysctl.d/10-a.conf": "net.core.a = 1\n", "etc/sysctl.d/20-b.conf": "net.core.b = 1\nnet.core.c = 1\n"}
    above = {"etc/sysctl.d/10-a.conf": "net.core.a = 2\n", "etc/sysctl.d/30-c.conf": "net.core.b = 3\n"}
    assert image(below, above) == ["net/core/a 2", "net/core/c 1", "net/core/b 3"]


def test_links_lead_to_files_of_the_image(image, tmp_path):
    (tmp_path / "of-this-host").write_text("net.core.host = 1\n")
    files = {
        "etc/sysctl.conf": "net.core.main = 1\n",
        "etc/sysctl.d/99-sysctl.conf": "->../sysctl.conf",
        "etc/sysctl.d/98-masked.conf": "->/dev/null",
        "etc/sysctl.d/97-host.conf": f"->{tmp_path}/of-this-host",
    }
    assert image(files) == ["net/core/main 1"]


def test_no_link_of_a_folder_leads_to_files_of_this_host(image, tmp_path):
    (tmp_path / "host").mkdir()
    (tmp_path / "host/h.conf").write_text("net.core.host = 1\n")
    files = {"x": f"->{tmp_path}/host", "etc/sysctl.d/9.conf": "->/x/h.conf", "etc/sysctl.d/8.conf": "->/proc/kmsg"}
    assert image(files) == []


def test_what_a_higher_layer_deleted_is_gone(image, tmp_path):
    (tmp_path / "l1/etc/sysctl.d").mkdir(parents=True)
    os.mknod(tmp_path / "l1/etc/sysctl.d/9.conf", 0o020000, os.makedev(0, 0))
    (tmp_path / "l1").rename(tmp_path / "kept")
    assert image({"etc/sysctl.d/9.conf": "net.core.a = 1\n"}) == ["net/core/a 1"]
    (tmp_path / "kept").rename(tmp_path / "l1")
    assert network_settings.of_image(tmp_path, ["l0", "l1"]) == []


def test_an_image_without_the_folder_has_none(image):
    assert image({}) == []

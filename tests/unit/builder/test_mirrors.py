"""A bake reaches mirrors and indexes as its builder does, and no image keeps that configuration."""

from __future__ import annotations

from subprocess import CompletedProcess

import pytest

from saltext.immutable.builder import mirrors
from saltext.immutable.builder.sources import debian
from saltext.immutable.machines import network


def printing(text: str):
    return lambda *_, **__: CompletedProcess([], 0, text, "")


@pytest.mark.parametrize(
    ("line", "used"),
    [
        pytest.param('Acquire::http::Proxy "http://proxy:3128";', True, id="proxy"),
        pytest.param('Acquire::https::Proxy "http://proxy:3128";', True, id="proxy for https"),
        pytest.param('Acquire::http::Proxy::deb.debian.org "DIRECT";', True, id="no proxy for one mirror"),
        pytest.param('Acquire::https::CaInfo "/etc/ssl/mirror.pem";', True, id="CA of the mirrors"),
        pytest.param('Acquire::https::mirror.example.com::CaInfo "/etc/ssl/mirror.pem";', True, id="CA of one mirror"),
        pytest.param('acquire::HTTPS::CAInfo "/etc/ssl/mirror.pem";', True, id="in any spelling"),
        pytest.param('Acquire::Check-Valid-Until "false";', True, id="old snapshots"),
        pytest.param('Acquire::Retries "3";', True, id="retries"),
        pytest.param('APT::Install-Recommends "false";', False, id="which packages are installed is up to the image"),
        pytest.param('DPkg::Post-Invoke:: "touch /host";', False, id="hooks of the builder stay there"),
        pytest.param('Acquire::http::Proxy "";', False, id="an empty value"),
        pytest.param('Acquire::http::User-Agent "x";', False, id="how apt calls itself"),
    ],
)
def test_apt_options(monkeypatch, line, used):
    monkeypatch.setattr(mirrors, "run", printing(f"{line}\nAPT \"\";\n"))
    assert mirrors.apt_options() == ([line] if used else [])


DEBIAN = "Debian|http://mirror/debian/\nDebian|http://second/debian\nDebian-Security|http://mirror/security/\n"


@pytest.mark.parametrize(
    ("known", "suite", "lines"),
    [
        pytest.param(
            DEBIAN,
            "bookworm",
            [
                "deb http://mirror/debian bookworm main",
                "deb http://mirror/debian bookworm-updates main",
                "deb http://mirror/security bookworm-security main",
            ],
            id="debian: its pockets from the mirrors of each",
        ),
        pytest.param(DEBIAN, "sid", ["deb http://mirror/debian sid main"], id="sid has no pockets"),
        pytest.param(
            "Debian|http://mirror/debian\n",
            "trixie",
            ["deb http://mirror/debian trixie main", "deb http://mirror/debian trixie-updates main"],
            id="no mirror of security: none is invented",
        ),
        pytest.param(
            DEBIAN,
            "noble",
            [
                "deb http://archive.ubuntu.com/ubuntu noble main",
                "deb http://archive.ubuntu.com/ubuntu noble-updates main",
                "deb http://security.ubuntu.com/ubuntu noble-security main",
            ],
            id="ubuntu on a debian builder: its own archive",
        ),
        pytest.param("Ubuntu|http://mirror/ubuntu\n", "bookworm", [], id="debian on an ubuntu builder likewise"),
        pytest.param(
            "Ubuntu|http://mirror/ubuntu/\n",
            "noble",
            [f"deb http://mirror/ubuntu noble{pocket} main" for pocket in ("", "-updates", "-security")],
            id="ubuntu on ubuntu",
        ),
        pytest.param("", "bookworm", [], id="a builder without package lists"),
        pytest.param("Docker|http://docker\n|http://x\n", "bookworm", [], id="archives of others are no mirrors"),
    ],
)
def test_sources(monkeypatch, known, suite, lines):
    monkeypatch.setattr(mirrors, "run", printing(known))
    monkeypatch.setattr(mirrors.platform, "machine", lambda: "x86_64")
    assert debian.sources(suite, ["main"], None) == lines


def test_a_mirror_in_the_recipe_is_the_only_one(monkeypatch):
    monkeypatch.setattr(mirrors, "run", printing(DEBIAN))
    found = debian.sources("bookworm", ["main", "contrib"], "http://mine")
    assert found == ["deb http://mine bookworm main contrib"]


@pytest.fixture
def resolvers(tmp_path, monkeypatch):
    files = (tmp_path / "resolv.conf", tmp_path / "uplink.conf")
    monkeypatch.setattr(network, "RESOLVERS", files)
    return files


@pytest.mark.parametrize(
    ("first", "second", "given"),
    [
        pytest.param("nameserver 9.9.9.9\n", None, "nameserver 9.9.9.9\n", id="a name server that machines reach too"),
        pytest.param("nameserver 127.0.0.53\nsearch x\n", None, "", id="one on the builder's loopback is left out"),
        pytest.param("nameserver 127.0.0.53\n", "nameserver 9.9.9.9\n", "nameserver 9.9.9.9\n", id="resolved's uplink"),
        pytest.param("nameserver ::1\nnameserver 9.9.9.9\n", None, "nameserver 9.9.9.9\n", id="one of two"),
        pytest.param(None, None, "", id="none at all"),
    ],
)
def test_name_servers(resolvers, first, second, given):
    for file, text in zip(resolvers, (first, second), strict=True):
        if text is not None:
            file.write_text(text)
    assert network.resolv_conf() == given


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        pytest.param(None, False, id="the builder's own is removed"),
        pytest.param("nameserver 10.0.0.2\n", True, id="one that a state wrote stays"),
    ],
)
def test_the_builders_resolv_conf_is_removed_again(resolvers, tmp_path, state, kept):
    resolvers[0].write_text("nameserver 9.9.9.9\n")
    mirrors.write_resolv_conf(tmp_path)
    file = tmp_path / "etc/resolv.conf"
    assert file.read_text() == "nameserver 9.9.9.9\n"
    if state:
        file.write_text(state)
    mirrors.remove_resolv_conf(tmp_path)
    assert file.exists() is kept


def test_a_link_that_a_state_made_of_resolv_conf_stays(resolvers, tmp_path):
    resolvers[0].write_text("nameserver 9.9.9.9\n")
    mirrors.write_resolv_conf(tmp_path)
    (tmp_path / "etc/resolv.conf").unlink()
    (tmp_path / "etc/resolv.conf").symlink_to(resolvers[0])
    mirrors.remove_resolv_conf(tmp_path)
    assert (tmp_path / "etc/resolv.conf").is_symlink()


def test_commands_in_a_bake_see_proxies_and_the_ca_bundle(monkeypatch, tmp_path):
    bundle = tmp_path / "ca.crt"
    bundle.write_text("x")
    for name in ("https_proxy", "SSL_CERT_FILE", "PIP_INDEX_URL", "SECRET"):
        monkeypatch.setenv(name, {"SSL_CERT_FILE": str(bundle)}.get(name, name))
    monkeypatch.delenv("UV_INDEX_URL", raising=False)
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    env = mirrors.environment()
    assert env["https_proxy"] == "https_proxy"
    assert env["SSL_CERT_FILE"] == env["REQUESTS_CA_BUNDLE"] == mirrors.CA_BUNDLE
    assert "SECRET" not in env


def test_uv_and_pip_take_the_index_that_pip_is_configured_for(monkeypatch, tmp_path):
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    pip = tmp_path / "pip3"
    pip.write_text('#!/bin/sh\ncat "$0.said"\n')
    pip.chmod(0o755)
    monkeypatch.setattr(mirrors.shutil, "which", lambda name: str(pip))
    indexes = {
        "global.cert='/x'\n": None,
        "install.index-url='https://two/simple'\n": "https://two/simple",
        "global.index-url='https://one/simple'\ninstall.index-url='https://two/simple'\n": "https://one/simple",
        "global.extra-index-url='https://three/simple'\n": None,
    }
    for text, index in indexes.items():
        (tmp_path / "pip3.said").write_text(text)
        mirrors._read_pip_config.cache_clear()
        env = mirrors.environment()
        assert (env.get("UV_DEFAULT_INDEX"), env.get("PIP_INDEX_URL")) == (index, index)
    monkeypatch.setenv("UV_INDEX_URL", "https://uv/simple")
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip/simple")
    env = mirrors.environment()
    assert (env["UV_INDEX_URL"], env["PIP_INDEX_URL"], "UV_DEFAULT_INDEX" in env) == (
        *("https://uv/simple", "https://pip/simple"),
        False,
    )
    mirrors._read_pip_config.cache_clear()


STATUS = """\
Package: nginx-light
Status: install ok installed
Architecture: amd64
Version: 1.22.1-9
Description: web server
 Version: not a field

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: libc6
Status: hold ok installed
Multi-Arch: same
Architecture: amd64
Version: 2.36-9+deb12u10
"""


def test_installed_packages(tmp_path):
    (tmp_path / "status").write_text(STATUS)
    found = debian.installed(tmp_path / "status")
    assert found == {"nginx-light:amd64": "1.22.1-9", "libc6:amd64": "2.36-9+deb12u10"}

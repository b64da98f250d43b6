"""Images from a root that another tool made, and from what the builder has fetched before, without any network."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile

import pytest
from support.slices import full

pytestmark = pytest.mark.usefixtures("as_delivered")

WHOLE = full("bakes everything", minutes=1.5)
CUT_OFF = "test -z \"$(ip route show default)\" && ! getent hosts deb.debian.org"
"""Holds in a machine that has no way out."""


@pytest.fixture(scope="module")
def root(estate, tmp_path_factory):
    """The archive of a Debian root: what recipe ``base`` begins with."""
    base = estate.salt_run("image.bake", "base").data
    archive = tmp_path_factory.mktemp("root") / "root.tar.zst"
    tree = estate.host.layers / base["layers"][0]["digest"] / "fs"
    pack = ["tar", "--zstd", "--xattrs", "--xattrs-include=*", "--exclude=./dev/*", "-C", tree, "-cf", archive, "."]
    subprocess.run(pack, check=True)
    return archive, base


def with_recipe(estate, text: str) -> None:
    file = estate.pillar / "immutable.sls"
    file.write_text(file.read_text().replace("    web:\n", f"{text}    web:\n", 1))


def with_states(estate, command: str) -> None:
    state = {"cut off": {"cmd.run": [{"name": command}]}, "/etc/packed": {"file.managed": [{"contents": "yes"}]}}
    (estate.states / "small/init.sls").write_text(json.dumps(state))


def test_a_root_in_an_archive_becomes_an_image_without_the_network(estate, root, nothing_is_left):
    archive, base = root
    source = f"    packed:\n      from: {{tarball: {archive}}}\n      states: [small]\n"
    with_recipe(estate, f"{source}      bake_id: packed.tests.example.com\n")
    with_states(estate, CUT_OFF)
    baked = estate.salt_run("image.bake", "packed", "cache=only").data
    assert [layer["what"] for layer in baked["layers"]][0] == f"tarball {archive}"
    assert (baked["packages"], baked["warnings"]) == (base["packages"], [])
    assert (estate.host.layers / baked["layers"][-1]["digest"] / "fs/etc/packed").read_text() == "yes\n"
    nothing_is_left()


def test_an_archive_that_leads_out_of_its_root_is_refused_and_nothing_is_left(estate, tmp_path, nothing_is_left):
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo("usr/../../evil"), io.BytesIO())
    with_recipe(estate, f"    evil:\n      from: {{tarball: {archive}}}\n")
    answer = estate.salt_run("image.bake", "evil", check=False)
    assert answer.returncode == 1
    assert f"{archive}: its member usr/../../evil: its path has .. in it" in answer.stderr + answer.stdout
    nothing_is_left()


def test_states_are_applied_in_a_chroot_and_the_doubtful_ones_are_named(estate, nothing_is_left):
    file = estate.pillar / "immutable.sls"
    small = "bake_id: web-small.tests.example.com\n"
    file.write_text(file.read_text().replace(small, f"{small}      bake_in: chroot\n"))
    with_states(estate, "test ! -d /run/systemd/system || systemctl start nowhere")
    baked = estate.salt_run("image.bake", "small").data
    assert [warning for warning in baked["warnings"] if "chroot" in warning] == [
        "cut off in small: cmd.run is unreliable in a chroot: no init runs, so no service starts, and a service that "
        "could not start is not noticed; set bake_in: machine"
    ]
    tree = estate.host.layers / baked["layers"][-1]["digest"] / "fs"
    assert (tree / "etc/packed").read_text() == "yes\n"
    assert not (tree / "usr/sbin/policy-rc.d").exists()
    nothing_is_left()


@WHOLE
def test_a_package_that_was_never_fetched_is_named(estate, root, nothing_is_left):
    with_recipe(estate, "    steam:\n      from: {debian: bookworm, packages: [systemd-sysv, python3, dbus, sl]}\n")
    answer = estate.salt_run("image.bake", "steam", "cache=only", check=False)
    assert answer.returncode == 1
    said = answer.stderr + answer.stdout
    assert "not in the cache: " in said and "sl_" in said, said
    assert "bake once with cache=use" in said
    nothing_is_left()


@WHOLE
def test_all_of_an_image_is_made_again_without_the_network(estate, nothing_is_left):
    with_states(estate, "true")
    first = estate.salt_run("image.bake", "small").data
    for key in estate.host.keys.iterdir():
        key.unlink()
    second = estate.salt_run("image.bake", "small", "cache=only").data
    assert not any(layer["cached"] for layer in second["layers"])
    assert second["digest"] == first["digest"]
    nothing_is_left()

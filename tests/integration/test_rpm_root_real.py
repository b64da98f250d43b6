"""A root of the RPM family: one of Debian that has rpm's database in place of dpkg's, as no other is at hand."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support import rpms

pytestmark = [pytest.mark.usefixtures("as_delivered"), rpms.needs_rpm]


@pytest.fixture(scope="module")
def archive(estate, tmp_path_factory) -> Path:
    base = estate.salt_run("image.bake", "base").data
    place = tmp_path_factory.mktemp("rpm")
    tree = place / "root"
    subprocess.run(["cp", "--archive", estate.host.layers / base["layers"][0]["digest"] / "fs", tree], check=True)
    shutil.rmtree(tree / "var/lib/dpkg")
    for program in (tree / "usr/bin").glob("apt-*"):
        program.unlink()
    (tree / "usr/lib/os-release").write_text(rpms.RELEASE)
    rpms.install(rpms.build(place), tree)
    subprocess.run(["tar", "--xattrs", "--exclude=./dev/*", "-C", tree, "-cf", place / "root.tar", "."], check=True)
    return place / "root.tar"


def test_what_rpm_lists_is_known_of_an_image(estate, archive, nothing_is_left):
    file = estate.pillar / "immutable.sls"
    text = f"    hat:\n      from: {{tarball: {archive}}}\n      states: [small]\n"
    text += "      bake_id: hat.tests.example.com\n"
    file.write_text(file.read_text().replace("    web:\n", f"{text}    web:\n", 1))
    state = {"/etc/packed": {"file.managed": [{"contents": "yes"}]}}
    (estate.states / "small/init.sls").write_text(json.dumps(state))
    baked = estate.salt_run("image.bake", "hat").data
    assert (baked["packages"], baked["warnings"]) == (1, [])
    root = estate.host.layers / baked["layers"][0]["digest"] / "fs"
    assert (root / "usr/share/doc/tiny/LICENSE").is_file() and not (root / "usr/share/doc/tiny/README").exists()
    assert estate.salt_run("image.bake", "hat").data["cached"], "to read the database has not changed the layer"

    components = estate.salt_run("image.sbom", "hat:stable").data["components"]
    [tiny] = [one["purl"] for one in components if one["purl"].startswith("pkg:rpm/")]
    assert tiny == "pkg:rpm/fedora/tiny@2.5-3?arch=noarch&distro=fedora-41&epoch=1"
    assert any(one["purl"].startswith("pkg:pypi/salt@") for one in components)

    refused = estate.salt_run("image.outdated", "hat", check=False)
    said = refused.stdout + refused.stderr
    assert refused.returncode == 1 and "updates are known of apt, dnf and yum only" in said, said
    nothing_is_left()

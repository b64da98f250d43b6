"""Images of a real registry, and of an archive, as the root of a recipe."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from support.registry import Registry, archived, write_image

pytestmark = pytest.mark.usefixtures("as_delivered")


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with Registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def layers(estate, tmp_path_factory) -> tuple[Path, Path]:
    """A Debian root, and a layer that removes and changes some of it."""
    folder = tmp_path_factory.mktemp("layers")
    base = estate.salt_run("image.bake", "base").data
    tree = estate.host.layers / base["layers"][0]["digest"] / "fs"
    subprocess.run(
        ["tar", "--xattrs", "--xattrs-include=*", "-C", tree, "-cf", folder / "root.tar", "."], check=True
    )
    with tarfile.open(folder / "site.tar", "w") as tar:
        for name, content in (("etc/site", b"ours"), ("etc/.wh.issue", b""), ("etc/skel/.wh..wh..opq", b"")):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_600_000_000
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("etc/hard")
        link.type, link.linkname = tarfile.LNKTYPE, "etc/debian_version"
        tar.addfile(link)
    return folder / "root.tar", folder / "site.tar"


def with_recipe(estate, reference: str, more: str = "") -> None:
    text = f"    theirs:\n      from: {{oci: '{reference}', insecure: true{more}}}\n      states: [small]\n"
    file = estate.pillar / "immutable.sls"
    recipe = f"{text}      bake_id: theirs.tests.example.com\n"
    file.write_text(file.read_text().replace("    web:\n", f"{recipe}    web:\n", 1))
    state = {"/etc/packed": {"file.managed": [{"contents": "yes"}]}, "hard": {"cmd.run": [{"name": "cat /etc/hard"}]}}
    (estate.states / "small/init.sls").write_text(json.dumps(state))


def test_an_image_of_a_registry_is_baked_on_layer_by_layer(estate, registry, layers, tmp_path, nothing_is_left):
    write_image(tmp_path / "first", layers)
    reference = registry.push(tmp_path / "first", "debian/site:1")
    with_recipe(estate, reference)
    baked = estate.salt_run("image.bake", "theirs").data
    theirs = [layer for layer in baked["layers"] if layer["what"].startswith("oci ")]
    assert [layer["what"] for layer in theirs] == [f"oci {reference}, layer {number} of 2" for number in (1, 2)]
    root, site = (estate.host.layers / layer["digest"] / "fs" for layer in theirs)
    assert (root / "etc/issue").is_file() and (site / "etc/issue").is_char_device(), "a whiteout"
    assert (site / "etc/site").read_text() == "ours"
    assert (site / "etc/hard").stat().st_ino == (site / "etc/debian_version").stat().st_ino
    hidden = list((site / "etc/skel").iterdir())
    assert hidden and all(file.is_char_device() for file in hidden), "an opaque folder"
    assert baked["packages"] > 50
    again = estate.salt_run("image.bake", "theirs").data
    assert again["digest"] == baked["digest"]
    for key in estate.host.keys.iterdir():
        key.unlink()
    offline = estate.salt_run("image.bake", "theirs", "cache=only").data
    assert offline["digest"] == baked["digest"], "from the cache, without the registry, and the same"

    moved = tmp_path / "more.tar"
    with tarfile.open(moved, "w") as tar:
        member = tarfile.TarInfo("etc/site")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"new"))
    write_image(tmp_path / "second", [*layers, moved])
    registry.push(tmp_path / "second", "debian/site:1")
    why = estate.salt_run("image.why", "theirs").data
    assert any(reference in sentence for sentence in why["changed"]), why
    later = estate.salt_run("image.bake", "theirs").data
    assert later["layers"][0]["cached"] and later["layers"][0]["digest"] == theirs[0]["digest"]
    assert later["digest"] != baked["digest"]
    nothing_is_left()


def test_an_archive_is_the_same_as_a_registry(estate, layers, tmp_path, nothing_is_left):
    write_image(tmp_path / "image", layers)
    archive = archived(tmp_path / "image", tmp_path / "image.oci.tar")
    with_recipe(estate, str(archive))
    baked = estate.salt_run("image.bake", "theirs").data
    assert [layer["what"] for layer in baked["layers"]][1] == f"oci {archive}, layer 2 of 2"
    nothing_is_left()


def test_what_cannot_be_fetched_is_named_and_nothing_is_left(estate, registry, nothing_is_left):
    with_recipe(estate, f"{registry.place}/debian/nowhere:1")
    answer = estate.salt_run("image.bake", "theirs", check=False)
    assert answer.returncode == 1
    said = answer.stdout + answer.stderr
    assert f"from:oci: {registry.place}/debian/nowhere:1 could not be read" in said and "skopeo login" in said, said
    nothing_is_left()

"""Layers of OCI images: where they are, and what their whiteouts remove."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.builder.sources import oci
from saltext.immutable.builder.sources.unpack import unpack
from saltext.immutable.builder.sources.whiteouts import Whiteouts

BELOW = ("a/one", "a/two", "a/deep/three", "b/four", "link")


@pytest.fixture
def tree(tmp_path) -> Path:
    """A root with the layers below."""
    root = tmp_path / "root"
    for path in BELOW:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("below")
    return root


def layer(folder: Path, *members: Any) -> Path:
    """Write an archive. Each member is the path of a file (of a folder, with a slash at its end), or a TarInfo."""
    archive = folder / "layer.tar"
    with tarfile.open(archive, "w") as tar:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member.rstrip("/"))
            if isinstance(member, str) and member.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            content = b"new" if info.isfile() and not info.name.rpartition("/")[2].startswith(".wh.") else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive


def files(root: Path) -> dict[str, str]:
    return {str(file.relative_to(root)): file.read_text() for file in root.rglob("*") if file.is_file()}


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    return info


@pytest.mark.parametrize(
    ("members", "gone", "new"),
    [
        pytest.param(["a/.wh.one"], ["a/one"], [], id="a file"),
        pytest.param([".wh.a"], ["a/one", "a/two", "a/deep/three"], [], id="a folder"),
        pytest.param(["a/.wh.nothing", ".wh.c", "d/.wh.x"], [], [], id="what was never there"),
        pytest.param(["a/.wh..wh..opq"], ["a/one", "a/two", "a/deep/three"], [], id="all of a folder"),
        pytest.param(
            ["a/", "a/one", "a/deep/", "a/deep/new", "a/.wh..wh..opq"],
            ["a/two", "a/deep/three"],
            ["a/one", "a/deep/new"],
            id="all of a folder but what the layer wrote before",
        ),
        pytest.param(
            ["a/.wh..wh..opq", "a/deep/", "a/deep/new"],
            ["a/one", "a/two", "a/deep/three"],
            ["a/deep/new"],
            id="all of a folder, and what the layer writes later",
        ),
        pytest.param(["a/.wh.one", "a/one"], [], ["a/one"], id="a file that the layer writes later"),
        pytest.param(["a/one", "a/.wh.one"], [], ["a/one"], id="a file that the layer wrote before"),
        pytest.param(["a"], ["a/one", "a/two", "a/deep/three"], ["a"], id="a file in place of a folder"),
        pytest.param(["link/", "link/x"], ["link"], ["link/x"], id="a folder in place of a file"),
        pytest.param([".wh..wh.plnk", ".wh..wh.aufs"], [], [], id="files that aufs left"),
        pytest.param(
            [".wh..wh.plnk/", ".wh..wh.plnk/1.2", "a/.wh..wh.orph/x", ".wh..wh.plnk/.wh..wh..opq", ".wh..wh..opq/x"],
            [],
            [],
            id="folders that aufs left",
        ),
        pytest.param([special("dev/console", tarfile.CHRTYPE), "dev/x"], [], ["dev/x"], id="devices in its dev"),
    ],
)
def test_what_a_layer_hides_is_gone(tmp_path, tree, members, gone, new):
    unpack(layer(tmp_path, *members), tree, Whiteouts())
    wanted = {path: "below" for path in BELOW if path not in gone} | {path: "new" for path in new}
    assert files(tree) == wanted and not list(tree.rglob(".wh.*"))


@pytest.mark.parametrize(
    ("members", "says"),
    [
        pytest.param(["a/.wh."], "a whiteout of no file", id="no name"),
        pytest.param(["a/.wh..."], "a whiteout of no file", id="the folder above"),
        pytest.param(["a/../.wh.b"], "has .. in it", id="a way out"),
        pytest.param([special("srv/disk", tarfile.BLKTYPE)], "it is a device", id="a device elsewhere"),
    ],
)
def test_what_no_layer_may_have(tmp_path, tree, members, says):
    with pytest.raises(CommandExecutionError, match=says):
        unpack(layer(tmp_path, *members), tree, Whiteouts())
    assert set(files(tree)) == set(BELOW)


def test_what_nobody_can_take_out_of_the_layer_of_a_registry_is_mended_by_another_source(tmp_path, tree):
    (tree / "lib").symlink_to("a")
    with pytest.raises(CommandExecutionError, match="lib/x: it is written through lib, .*; flatten the image"):
        unpack(layer(tmp_path, "lib/x"), tree, Whiteouts())
    with pytest.raises(CommandExecutionError, match="it is written through lib, .*; make the archive without it"):
        unpack(layer(tmp_path, "lib/x"), tree)


def test_a_root_has_no_whiteouts(tmp_path, tree):
    unpack(layer(tmp_path, "a/.wh.one"), tree)
    assert set(files(tree)) == {*BELOW, "a/.wh.one"}


def test_a_layer_with_other_content_is_refused(tmp_path, tree):
    archive = layer(tmp_path, "x")
    unpack(archive, tree, Whiteouts(), hashlib.sha256(archive.read_bytes()).hexdigest())
    with pytest.raises(CommandExecutionError, match="its content has the sha256 [0-9a-f]{64}, not 0000"):
        unpack(archive, tree, Whiteouts(), "0" * 64)


def test_a_path_leads_to_an_archive_or_a_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/oci-layout").touch()
    for name, member in (("oci", "oci-layout"), ("docker", "./manifest.json"), ("root", "usr")):
        layer(tmp_path, member).rename(tmp_path / name)
    places = {name: oci._place(f"{tmp_path}/{name}").partition(":")[0] for name in ("folder", "oci", "docker")}
    assert places == {"folder": "oci", "oci": "oci-archive", "docker": "docker-archive"}
    for name in ("root", "nowhere", "."):
        with pytest.raises(SaltInvocationError, match="is no OCI archive or folder, and no archive of docker save"):
            oci._place(f"{tmp_path}/{name}")


@pytest.mark.parametrize("member", ["oci-layout", "./manifest.json"])
def test_of_an_archive_no_more_is_read_than_tells_its_kind(tmp_path, member):
    archive = layer(tmp_path, member, *(f"{os.urandom(40).hex()}" for _ in range(5000)))
    packed = gzip.compress(archive.read_bytes())
    archive.write_bytes(packed[: len(packed) // 2])
    assert oci._kind_of_archive(archive) in ("oci-archive", "docker-archive")
    layer(tmp_path, *(f"{os.urandom(40).hex()}" for _ in range(5000)), member)
    archive.write_bytes(gzip.compress(archive.read_bytes())[: len(packed) // 2])
    assert oci._kind_of_archive(archive) is None


DIGEST = f"sha256:{'1' * 64}"
OTHER = f"sha256:{'2' * 64}"
CONFIG = json.dumps({"rootfs": {"diff_ids": ["sha256:aa"]}})


@pytest.fixture
def asked(tmp_path, monkeypatch) -> list[str]:
    """Return what skopeo is asked; the manifest of every image is ``raw``."""
    places: list[str] = []

    def skopeo(reference, words):
        places.append(words[-1])
        return "raw" if "--raw" in words else CONFIG

    monkeypatch.setattr(oci, "_skopeo", skopeo)
    return places


def cached(cache: Path, reference: str, image: str | None) -> Any:
    """Return a host whose cache has an image for a reference."""
    folder = cache / oci.CACHE / oci.cache_name(reference)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"config": {"digest": "sha256:config"}}))
    (folder / "config").write_text(CONFIG)
    if image:
        (folder / "image").write_text(image)
    return SimpleNamespace(cache=cache)


@pytest.mark.parametrize(
    ("reference", "image", "times"),
    [
        pytest.param(f"r.io/a@{DIGEST}", DIGEST, 0, id="the cache has that image"),
        pytest.param(f"r.io/a@{DIGEST}", OTHER, 1, id="the cache has another"),
        pytest.param(f"r.io/a@{DIGEST}", None, 1, id="the cache does not know which it has"),
        pytest.param("r.io/a:1", DIGEST, 2, id="a tag may lead to another image now"),
    ],
)
def test_a_registry_is_not_asked_for_an_image_that_the_cache_has(tmp_path, asked, reference, image, times):
    found = oci.content(cached(tmp_path, reference, image), {"oci": reference})
    assert found["layers"] == ["aa"] and len(asked) == times
    assert "@" not in reference or found["image"] == DIGEST


def test_without_the_registry_only_the_cache_answers(tmp_path, asked):
    host = cached(tmp_path, "r.io/a:1", OTHER)
    assert oci.content(host, {"oci": "r.io/a:1", "offline": True}) == {"image": OTHER, "layers": ["aa"]}
    for reference in ("r.io/b:1", f"r.io/b@{DIGEST}"):
        with pytest.raises(CommandExecutionError, match="is not in the cache; bake once with cache=use"):
            oci.content(host, {"oci": reference, "offline": True})
    assert not asked


def test_the_path_of_an_archive_may_have_an_at_sign(tmp_path, asked):
    path = layer(tmp_path, "oci-layout").rename(tmp_path / "a@b.tar")
    found = oci.content(SimpleNamespace(cache=tmp_path), {"oci": str(path)})
    assert found["image"] == f"sha256:{hashlib.sha256(b'raw').hexdigest()}"
    assert asked == [f"oci-archive:{path}"] * 2


@pytest.mark.parametrize("name", ["r.io/a/b", "r.io/a/b:1.2", "r.io/a/b@sha256:1", "r.io/a/b:1@sha256:1"])
def test_what_is_fetched_is_what_was_looked_at(name):
    assert oci._pinned(f"docker://{name}", "sha256:2") == "docker://r.io/a/b@sha256:2"
    assert oci._pinned("docker://localhost:5000/b:1", "sha256:2") == "docker://localhost:5000/b@sha256:2"
    assert oci._pinned("oci-archive:/srv/a:b", "sha256:2") == "oci-archive:/srv/a:b"

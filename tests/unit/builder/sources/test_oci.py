"""Layers of OCI images: where they are, and what their whiteouts remove."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
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
        pytest.param([special("dev/console", tarfile.CHRTYPE), "dev/x"], [], ["dev/x"], id="devices in its dev"),
    ],
)
def test_what_a_layer_hides_is_gone(tmp_path, tree, members, gone, new):
    unpack(layer(tmp_path, *members), tree, Whiteouts())
    wanted = {path: "below" for path in BELOW if path not in gone} | {path: "new" for path in new}
    assert files(tree) == wanted


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


@pytest.mark.parametrize("name", ["r.io/a/b", "r.io/a/b:1.2", "r.io/a/b@sha256:1", "r.io/a/b:1@sha256:1"])
def test_what_is_fetched_is_what_was_looked_at(name):
    assert oci._pinned(f"docker://{name}", "sha256:2") == "docker://r.io/a/b@sha256:2"
    assert oci._pinned("docker://localhost:5000/b:1", "sha256:2") == "docker://localhost:5000/b@sha256:2"
    assert oci._pinned("oci-archive:/srv/a:b", "sha256:2") == "oci-archive:/srv/a:b"

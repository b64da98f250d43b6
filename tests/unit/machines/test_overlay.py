"""Layers as one file system: mount options, the limit of layers, and the real path of a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.machines import overlay

DIGESTS = [f"{number:064x}" for number in range(65)]


def test_the_top_layer_comes_first_and_all_options_are_explicit():
    options = overlay.options(["root", "middle", "top"])
    assert options == "redirect_dir=off,metacopy=off,index=off,lowerdir=top:middle:root"


def test_a_writable_stack():
    options = overlay.options(["root"], Path("/w/fs"), Path("/w/work"))
    assert options.endswith("lowerdir=root,upperdir=/w/fs,workdir=/w/work")


@pytest.mark.parametrize(
    ("release", "volatile"),
    [
        pytest.param("5.4.0-200-generic", False, id="no overlay of this kernel knows it"),
        pytest.param("5.10.0-30-amd64", True, id="the first that does"),
        pytest.param("6.1.0-37-amd64", True, id="a greater first number, a smaller second"),
    ],
)
def test_a_bake_does_not_sync_to_the_disk(monkeypatch, release, volatile):
    monkeypatch.setattr(overlay.platform, "release", lambda: release)
    bake = overlay.options(["root"], Path("/w/fs"), Path("/w/work"), volatile=True)
    assert (",volatile," in bake) is volatile
    assert "volatile" not in overlay.options(["root"], Path("/w/fs"), Path("/w/work")), "a machine keeps what it has"
    assert "volatile" not in overlay.options(["root"], volatile=True), "nothing is written"


def test_the_options_of_the_highest_stack_fit_into_one_page():
    stack = [overlay.short(digest) for digest in DIGESTS[: overlay.MAX_LAYERS]]
    assert len(overlay.options(stack, Path("/" + "x" * 500), Path("/" + "y" * 500))) < os.sysconf("SC_PAGESIZE")


def test_too_many_layers_are_refused():
    with pytest.raises(CommandExecutionError, match="65 layers are more than the 64"):
        overlay.options(DIGESTS)


@pytest.mark.parametrize(
    ("mounts", "kind"),
    [
        pytest.param("/ ext4,/srv overlay", None, id="its own file system counts, not a neighbour's"),
        pytest.param("/ overlay", "overlay", id="a host that is itself a container"),
        pytest.param("/ ext4,/var nfs4,/var/lib ext4", None, id="the innermost mount counts"),
        pytest.param("/ ext4,/var/lib/immutable 9p", "9p", id="the directory itself may be a mount"),
        pytest.param("/ ext4,/var/lib/imm overlay", None, id="a name that begins alike is another directory"),
    ],
)
def test_file_systems_on_which_layers_cannot_be_stacked(monkeypatch, mounts, kind):
    lines = "".join("dev {} {} rw 0 0\n".format(*mount.split()) for mount in mounts.split(","))
    real = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, *a, **k: lines if str(self) == "/proc/self/mounts" else real(self, *a, **k)
    )
    if kind:
        with pytest.raises(CommandExecutionError, match=f"of type {kind}.*set immutable:root"):
            overlay.refuse_unstackable(Path("/var/lib/immutable"))
    else:
        overlay.refuse_unstackable(Path("/var/lib/immutable"))


def put(layers: Path, path: str, text: str = "x") -> None:
    (layers / path).parent.mkdir(parents=True, exist_ok=True)
    (layers / path).write_text(text)


def test_the_file_of_the_highest_layer_is_visible(tmp_path):
    put(tmp_path, "root/etc/hosts", "low")
    put(tmp_path, "top/etc/hosts", "high")
    found = overlay.top_file(tmp_path, ["root", "middle", "top"], "/etc/hosts")
    assert found == tmp_path / "top/etc/hosts"


@pytest.mark.parametrize("above", ["link", "whiteout", "nothing below"])
def test_something_else_than_a_regular_file_on_top_gives_none(tmp_path, above):
    if above != "nothing below":
        put(tmp_path, "root/etc/hosts")
    (tmp_path / "top/etc").mkdir(parents=True)
    if above == "link":
        (tmp_path / "top/etc/hosts").symlink_to("/etc/hosts")
    elif above == "whiteout":
        if os.geteuid() != 0:
            pytest.skip("device nodes need root")
        os.mknod(tmp_path / "top/etc/hosts", 0o020000, 0)
    assert overlay.top_file(tmp_path, ["root", "top"], "/etc/hosts") is None


@pytest.mark.parametrize(
    ("bottom", "top", "there"),
    [
        pytest.param("srv/data/", "", True, id="in a layer below"),
        pytest.param("srv/", "srv/data/", True, id="in the layer above"),
        pytest.param("srv/data/", "srv/", True, id="a directory above joins it"),
        pytest.param("srv/", "", False, id="nowhere"),
        pytest.param("srv/data/", "srv/data", False, id="a file hides it"),
        pytest.param("srv/data/", "srv", False, id="a file hides its parent"),
        pytest.param("srv/data/", "srv/data@", False, id="a link hides it"),
        pytest.param("data/", "srv@", False, id="a link on the way"),
        pytest.param("srv/data/", "srv!", False, id="a directory made again hides what was below"),
        pytest.param("srv/data/", "srv!/data/", True, id="a directory made again with it"),
    ],
)
def test_whether_a_directory_is_in_a_stack(tmp_path, monkeypatch, bottom, top, there):
    opaque = set()
    monkeypatch.setattr(os, "listxattr", lambda path: ["trusted.overlay.opaque"] if path in opaque else [])
    for layer, entry in (("bottom", bottom), ("top", top)):
        path_ = tmp_path / layer / entry.replace("!", "").rstrip("/@")
        path_.parent.mkdir(parents=True, exist_ok=True)
        if entry.endswith("@"):
            path_.symlink_to("/")
        elif entry.endswith(("/", "!")) or not entry:
            path_.mkdir(parents=True, exist_ok=True)
        else:
            path_.touch()
        if "!" in entry:
            opaque.add(tmp_path / layer / entry.partition("!")[0])
    found = overlay.top_directory(tmp_path, ["bottom", "top"], "/srv/data")
    assert found in ((tmp_path / "top/srv/data", tmp_path / "bottom/srv/data") if there else (None,))
    assert found is None or found.is_dir()

"""The same content gives the same digest, other content another one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.immutable.images import manifest

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)
TREES = st.dictionaries(NAMES, st.binary(max_size=40), max_size=6)

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="device nodes and trusted attributes need root")


def tree(place: Path, files: dict[str, bytes]) -> Path:
    place.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
        os.utime(place / name, (1, 1))
    os.utime(place, (1, 1))
    return place


def lines_of(files: dict[str, bytes]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        return manifest.lines(tree(Path(folder, "fs"), files))


@given(TREES)
def test_the_order_of_creation_does_not_matter(files):
    assert lines_of(files) == lines_of(dict(reversed(files.items())))


@given(TREES)
def test_every_file_is_on_a_line_of_its_own_whatever_its_name(files):
    entries = [json.loads(line) for line in lines_of(files)]
    assert {entry["path"] for entry in entries} == {".", *files}
    assert all(line.isascii() and line.count("\n") == 1 for line in lines_of(files))


@given(TREES, TREES)
def test_only_equal_trees_have_equal_manifests(one, other):
    assert (lines_of(one) == lines_of(other)) == (one == other)


@given(TREES.filter(bool), st.data())
def test_any_changed_byte_changes_the_digest(files, data):
    name = data.draw(st.sampled_from(sorted(files)))
    assert lines_of(files) != lines_of({**files, name: files[name] + b"."})


def test_a_name_that_is_no_unicode_is_listed_too(tmp_path):
    place = tree(tmp_path / "fs", {"caf\udce9": b"latin-1"})
    assert [json.loads(line)["path"] for line in manifest.lines(place)] == [".", "caf\udce9"]


def chmod(place: Path) -> None:
    (place / "a").chmod(0o4755)


def relink(place: Path) -> None:
    (place / "link").unlink()
    (place / "link").symlink_to("b")


def harden(place: Path) -> None:
    (place / "b").unlink()
    (place / "b").hardlink_to(place / "a")


def attribute(place: Path) -> None:
    os.setxattr(place / "a", "user.colour", b"teal")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(chmod, id="mode"),
        pytest.param(lambda place: os.utime(place / "a", (1, 2)), id="mtime"),
        pytest.param(relink, id="target of a link"),
        pytest.param(harden, id="equal files that become one"),
        pytest.param(attribute, id="extended attribute"),
        pytest.param(lambda place: (place / "d").mkdir(), id="empty directory"),
        pytest.param(lambda place: os.mkfifo(place / "p"), id="fifo"),
        pytest.param(lambda place: place.chmod(0o700), id="mode of the root itself"),
        pytest.param(lambda place: os.chown(place / "a", 4000, 0), id="owner", marks=root_only),
        pytest.param(lambda place: os.lchown(place / "link", 0, 4000), id="group of a link", marks=root_only),
        pytest.param(lambda place: os.mknod(place / "gone", 0o020000, 0), id="whiteout", marks=root_only),
        pytest.param(
            lambda place: os.setxattr(place / "dir", "trusted.overlay.opaque", b"y"), id="opaque", marks=root_only
        ),
        pytest.param(
            lambda place: os.setxattr(place / "a", "security.capability", bytes.fromhex("01000002" + "00" * 16)),
            id="capability of a program",
            marks=root_only,
        ),
    ],
)
def test_changes_of_content(tmp_path, change: Callable[[Path], None]):
    place = tree(tmp_path / "fs", {"a": b"same", "b": b"same"})
    (place / "link").symlink_to("a")
    (place / "dir").mkdir()
    for each in (place, place / "dir", place / "link"):
        os.utime(each, (1, 1), follow_symlinks=False)
    before = manifest.lines(place)
    change(place)
    os.utime(place, (1, 1))
    assert manifest.lines(place) != before


@root_only
def test_overlays_own_attributes_are_no_content(tmp_path):
    place = tree(tmp_path / "fs", {"a": b"same"})
    before = manifest.lines(place)
    os.setxattr(place / "a", "trusted.overlay.origin", b"\0\xfb")
    assert manifest.lines(place) == before


def test_a_copy_of_a_tree_has_its_digest(tmp_path):
    place = tree(tmp_path / "fs", {"a": b"1", "b": b"2"})
    (place / "c").hardlink_to(place / "a")
    shutil.copytree(place, tmp_path / "copy", copy_function=shutil.copy2)
    (tmp_path / "copy/c").unlink()
    (tmp_path / "copy/c").hardlink_to(tmp_path / "copy/a")
    os.utime(tmp_path / "copy", ns=(0, place.stat().st_mtime_ns))
    assert manifest.lines(tmp_path / "copy") == manifest.lines(place)


SCALARS = st.none() | st.booleans() | st.integers() | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(st.dictionaries(st.text(), VALUES))
def test_equal_data_have_one_text(data):
    assert manifest.canonical(data) == manifest.canonical(dict(reversed(data.items())))
    assert json.loads(manifest.canonical(data)) == data

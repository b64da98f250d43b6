"""Clamped times: the same content gives the same time, other content another one, and bytecode stays valid."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from saltext.immutable.images import manifest, times

SINCE = 2_000_000_000


def baked(tree: Path, at: float, bytecode: bool = False, **files: str) -> Path:
    """Return a tree as a bake at that time leaves it, with a file that was unpacked with an old time of its own."""
    tree.mkdir(parents=True)
    for name, text in {**files, "old": "unpacked"}.items():
        (tree / name).write_text(text)
        os.utime(tree / name, (at, at))
    (tree / "link").symlink_to("old")
    os.utime(tree / "link", (at, at), follow_symlinks=False)
    if bytecode:
        py_compile.compile(str(tree / "tool.py"), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
        os.utime(cached(tree / "tool.py"), (at, at))
        os.utime(cached(tree / "tool.py").parent, (at, at))
    os.utime(tree / "old", (1, 1))
    os.utime(tree, (at, at))
    return tree


def cached(source: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(source)))


def settled(tree: Path) -> list[dict[str, object]]:
    return times.clamp(tree, manifest.entries(tree), SINCE)


def test_the_time_of_a_bake_is_not_in_its_files(tmp_path):
    one = settled(baked(tmp_path / "1/fs", SINCE + 5, motd="hello"))
    other = settled(baked(tmp_path / "2/fs", SINCE + 86_400.7, motd="hello"))
    assert one == other


def test_the_returned_entries_are_those_on_the_disk(tmp_path):
    tree = baked(tmp_path / "fs", SINCE, bytecode=True, **{"tool.py": "print(6 * 7)"})
    assert settled(tree) == list(manifest.entries(tree))


def test_older_times_stay(tmp_path):
    tree = baked(tmp_path / "fs", SINCE, motd="hello")
    settled(tree)
    assert (tree / "old").stat().st_mtime == 1
    assert (tree / "motd").stat().st_mtime < SINCE


def test_other_content_of_the_same_size_has_another_time(tmp_path):
    trees = [baked(tmp_path / text / "fs", SINCE, page=text) for text in ("red", "tan", "sky")]
    for tree in trees:
        settled(tree)
    assert len({(tree / "page").stat().st_mtime for tree in trees}) == 3


def test_a_tree_without_new_files_is_unchanged(tmp_path):
    tree = baked(tmp_path / "fs", SINCE - 10, motd="hello")
    before = list(manifest.entries(tree))
    assert settled(tree) == before == list(manifest.entries(tree))


@pytest.mark.parametrize("changed", [False, True], ids=["as baked", "source edited"])
def test_bytecode_is_valid_as_long_as_its_source_is_the_same(tmp_path, changed):
    tree = baked(tmp_path / "fs", SINCE, bytecode=True, **{"tool.py": "print(6 * 7)"})
    settled(tree)
    if changed:
        (tree / "tool.py").write_text("print(41)")
    command = [sys.executable, "-v", "-c", "import tool"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(tree)})
    assert done.stdout == ("41\n" if changed else "42\n")
    assert (f"matches {tree / 'tool.py'}" in done.stderr) is not changed


def test_bytecode_whose_source_has_an_older_time_is_unchanged(tmp_path):
    tree = baked(tmp_path / "fs", SINCE, bytecode=True, **{"tool.py": "print(6 * 7)"})
    code = cached(tree / "tool.py")
    code.write_bytes(code.read_bytes()[:8] + (1).to_bytes(4, "little") + code.read_bytes()[12:])
    before = code.read_bytes()
    settled(tree)
    assert code.read_bytes() == before

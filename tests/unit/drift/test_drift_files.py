"""Every difference between a tree and its manifest is found and named, and no other."""

from __future__ import annotations

import json
import os
import py_compile
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.immutable.drift import bytecode, config, files, tree
from saltext.immutable.drift.image import Image
from saltext.immutable.drift.paths import Mutable
from saltext.immutable.host import remove
from saltext.immutable.images import manifest
from saltext.immutable.images.stack import Entry, merged, parents

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="device nodes, owners and trusted attributes need root")

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=9).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)
TREES = st.recursive(
    st.binary(max_size=20) | st.text("ab/.", min_size=1, max_size=5),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
).filter(lambda found: isinstance(found, dict))


def plant(place: Path, found: object) -> None:
    """Make a folder of a dict, a file of bytes, a link of text."""
    if isinstance(found, dict):
        place.mkdir()
        for name, inner in found.items():
            plant(place / name, inner)
    elif isinstance(found, bytes):
        place.write_bytes(found)
    else:
        place.symlink_to(str(found))


def entries_of(root: Path) -> dict[str, Entry]:
    return merged([list(manifest.entries(root))])


@given(TREES)
def test_a_tree_has_no_drift_from_its_own_manifest(found):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        plant(root, found)
        expected = entries_of(root)
        seen = dict(tree.walk(str(root), lambda path: "all", ()))
        assert seen.keys() == expected.keys()
        for path, entry in seen.items():
            assert tree.changes(expected[path], entry, lambda path=path: tree.sha256(f"{root}/{path}"), full=True) == []


def test_a_root_is_as_its_image_says(compared):
    assert compared().found == compared(full=True).found == {}
    assert compared().count > 10


def rewrite(root: Path) -> None:
    (root / "var/lib/app/data").write_bytes(b"54321")
    os.utime(root / "var/lib/app/data", (7, 7))


def turn_into_folder(root: Path) -> None:
    (root / "var/lib/app/data").unlink()
    (root / "var/lib/app/data").mkdir()


def relink(root: Path) -> None:
    (root / "usr/bin/link").unlink()
    (root / "usr/bin/link").symlink_to("/tmp/tool")


def attribute(root: Path) -> None:
    os.setxattr(root / "usr/bin/tool", "user.colour", b"teal")


def make_device(root: Path) -> None:
    (root / "var/lib/app/pipe").unlink()
    os.mknod(root / "var/lib/app/pipe", 0o020644, os.makedev(1, 3))


CHANGES = [
    pytest.param(lambda root: (root / "usr/bin/new").touch(), "usr/bin/new", "added: file", id="a file is added"),
    pytest.param(lambda root: (root / "srv").mkdir(), "srv", "added: dir", id="a folder is added"),
    pytest.param(lambda root: os.mkfifo(root / "etc/p"), "etc/p", "added: fifo", id="a fifo is added"),
    pytest.param(
        lambda root: (root / "usr/bin/tool").unlink(), "usr/bin/tool", "removed", id="a file is removed"
    ),
    pytest.param(
        lambda root: (root / "usr/bin/tool").write_text("longer than before"),
        "usr/bin/tool",
        "changed: content (18 bytes, were 10)",
        id="its size",
    ),
    pytest.param(rewrite, "var/lib/app/data", "changed: content (of the same size)", id="its content"),
    pytest.param(
        lambda root: (root / "usr/bin/tool").chmod(0o4755),
        "usr/bin/tool",
        "changed: mode 4755, was 0755",
        id="its mode",
    ),
    pytest.param(
        lambda root: (root / "var/lib/app").chmod(0o777), "var/lib/app", "changed: mode 0777", id="a folder's mode"
    ),
    pytest.param(lambda root: root.chmod(0o700), ".", "changed: mode 0700", id="the mode of the root itself"),
    pytest.param(turn_into_folder, "var/lib/app/data", "it is a dir and was a file", id="what it is"),
    pytest.param(relink, "usr/bin/link", "leads to /tmp/tool, was tool", id="where a link leads"),
    pytest.param(attribute, "usr/bin/tool", "extended attributes: user.colour", id="an attribute"),
    pytest.param(
        lambda root: os.setxattr(root / "usr/bin/tool", "security.capability", bytes.fromhex("01000002" + "00" * 16)),
        "usr/bin/tool",
        "extended attributes: security.capability",
        id="a capability",
        marks=root_only,
    ),
    pytest.param(
        lambda root: os.chown(root / "usr/bin/tool", 4000, 0), "usr/bin/tool", "owner 4000:0", id="an owner",
        marks=root_only,
    ),
    pytest.param(
        lambda root: os.lchown(root / "usr/bin/link", 0, 4000), "usr/bin/link", "owner 0:4000",
        id="the group of a link", marks=root_only,
    ),
    pytest.param(make_device, "var/lib/app/pipe", "it is a char and was a fifo", id="a device", marks=root_only),
]  # fmt: skip


@pytest.mark.parametrize(("change", "path", "detail"), CHANGES)
def test_each_change_is_found_and_named_alone(root, compared, change: Callable[[Path], None], path, detail):
    change(root)
    found = compared().found
    assert list(found) == [path]
    assert detail in found[path]


def test_what_has_the_size_and_time_of_before_is_read_only_when_asked_to(root, compared):
    data = root / "var/lib/app/data"
    before = data.stat()
    data.write_bytes(b"54321")
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert compared().found == {}
    assert compared(full=True).found == {"var/lib/app/data": "changed: content (of the same size)"}


def test_a_time_that_moved_alone_is_no_drift(root, compared):
    os.utime(root / "var/lib/app/data", (7, 7))
    assert compared().found == {}


def test_of_a_removed_folder_only_the_folder_is_listed(root, compared):
    for name in ("data", "pipe"):
        (root / "var/lib/app" / name).unlink()
    (root / "var/lib/app").rmdir()
    assert compared().found == {"var/lib/app": "removed"}


def test_a_name_that_is_no_unicode_is_found(root, compared):
    Path(os.fsdecode(os.fsencode(root) + b"/etc/caf\xe9")).touch()
    [path] = compared().found
    assert path == "etc/caf\udce9"


def test_links_are_not_followed(root, compared, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    (root / "etc/way").symlink_to(tmp_path / "outside")
    assert list(compared().found) == ["etc/way"]


def test_mutable_paths_may_differ(root, compared):
    (root / "var/log/app.log").write_text("line\n")
    (root / "var/log/new").mkdir()
    (root / "var/log/new/file").touch()
    assert compared().found == {}
    (root / "var/lib/app/data").unlink()
    (root / "var/lib/app/other").touch()
    assert compared(mutable=("/var/lib/app",)).found == {}


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        pytest.param(lambda log: (log / "sh").chmod(0o4755), "mode 4755", id="setuid"),
        pytest.param(lambda log: (log / "sh").chmod(0o2755), "mode 2755", id="setgid"),
    ],
)
def test_a_program_that_gives_rights_may_not_hide_in_a_mutable_path(root, compared, change, detail):
    (root / "var/log/sh").touch()
    change(root / "var/log")
    assert detail in compared().found["var/log/sh"]


def test_a_mutable_folder_may_not_become_a_link(root, compared):
    (root / "var/log/app.log").unlink()
    (root / "var/log").rmdir()
    (root / "var/log").symlink_to("/tmp")
    assert compared().found == {"var/log": "changed: it is a link and was a dir"}


def test_what_a_mount_hides_is_not_compared(root, compared):
    (root / "var/lib/app/data").unlink()
    (root / "var/lib/app/other").touch()
    assert compared(mounts=("var/lib/app",)).found == {}


def test_a_file_that_is_removed_during_the_comparison_raises_nothing(root, compared, monkeypatch):
    lstat = tree._lstat

    def late(place: str, info: os.stat_result) -> Entry:
        if place.endswith("/link"):
            os.unlink(place)
        return lstat(place, info)

    monkeypatch.setattr(tree, "_lstat", late)
    assert compared().found == {"usr/bin/link": "removed"}


def test_a_file_that_cannot_be_read_is_not_taken_for_the_same(root, compared, monkeypatch):
    monkeypatch.setattr(tree, "sha256", lambda place: None)
    os.utime(root / "var/lib/app/data", (7, 7))
    assert compared().found == {"var/lib/app/data": "changed: it cannot be read"}


def test_units_are_listed_as_services(imaged):
    item = files.item("etc/systemd/system/multi-user.target.wants/x.service", "added: link", imaged)
    assert (item.kind, item.what) == ("service", "x.service")
    assert files.item("etc/motd", "added: file", imaged)[:2] == ("file", "/etc/motd")
    assert files.item("usr/bin/tool", "removed", imaged, "tools")[3:] == ("tools", "layer 0")


# Layers


def line(path: str, kind: str = "file", **more: object) -> dict[str, object]:
    return {"path": path, "type": kind, "mode": 0o644, "uid": 0, "gid": 0, "mtime": 1, **more}


OPAQUE = {"trusted.overlay.opaque": "79"}
LOWER = [line("a", "dir"), line("a/b", "dir"), line("a/b/c"), line("a/d"), line("a-b"), line("e", sha256="1")]


@pytest.mark.parametrize(
    ("upper", "shown"),
    [
        pytest.param([], "a a-b a/b a/b/c a/d e", id="nothing above"),
        pytest.param([line("e", "whiteout")], "a a-b a/b a/b/c a/d", id="a file is gone"),
        pytest.param([line("a", "whiteout")], "a-b e", id="a folder is gone with what is in it"),
        pytest.param([line("a", "dir"), line("a/b", "whiteout")], "a a-b a/d e", id="an inner folder is gone"),
        pytest.param(
            [line("a", "dir", xattrs=OPAQUE), line("a/new")], "a a-b a/new e", id="a folder begins again"
        ),
        pytest.param([line("a", "dir"), line("a/b", "link", target="x")], "a a-b a/b a/d e", id="a folder is a link"),
        pytest.param([line("e", "dir"), line("e/f")], "a a-b a/b a/b/c a/d e e/f", id="a file is a folder"),
        pytest.param([line("z", "whiteout")], "a a-b a/b a/b/c a/d e", id="what was never there is gone"),
    ],
)  # fmt: skip
def test_layers_show_what_an_overlay_shows(upper, shown):
    assert sorted(merged([LOWER, upper])) == shown.split()


def test_the_uppermost_layer_has_the_last_word():
    found = merged([LOWER, [line("e", sha256="2")], [line("a", "dir", xattrs=OPAQUE)]])
    assert (found["e"].content, found["e"].layer, found["a"].layer) == ("2", 1, 2)
    assert found["a"].xattrs is None


@root_only
def test_layers_show_what_a_mounted_overlay_shows(tmp_path):
    """The kernel's own answer, for changes made through it."""
    import subprocess

    lower, upper, work, root = (tmp_path / name for name in ("lower", "upper", "work", "root"))
    for place in (upper, work, root):
        place.mkdir()
    inner = {"dir": {"x": b"1", "y": {"z": b"1"}}, "again": {"old": b"1"}, "l": {"m": b""}}
    plant(lower, {"keep": b"1", "gone": b"1", **inner})
    script = (
        f"mount -t overlay overlay -o redirect_dir=off,metacopy=off,index=off,lowerdir={lower},upperdir={upper},"
        f"workdir={work} {root} && cd {root} && rm gone && rm -r dir/y l && ln -s keep l && rm -r again"
        " && mkdir again && echo new > again/new && cd / && umount {root}"
    ).replace("{root}", str(root))
    done = subprocess.run(["unshare", "--mount", "sh", "-ec", script], capture_output=True, text=True)
    if "permission denied" in done.stderr or "wrong fs type" in done.stderr:
        pytest.skip("no overlay can be mounted on this file system")
    assert done.returncode == 0, done.stderr
    stack = [[json.loads(text) for text in manifest.lines(place)] for place in (lower, upper)]
    assert sorted(merged(stack)) == [".", "again", "again/new", "dir", "dir/x", "keep", "l"]


# Paths


@pytest.mark.parametrize(
    "path",
    ["var/spool/cron/crontabs/root", "etc/systemd/system/x.service", "etc/immutable/seal.json", "etc/ld.so.preload"],
)
def test_what_makes_programs_run_is_hidden_by_no_folder_above_it(path):
    above = Mutable(["/var", "/etc", "/var/spool"])
    assert not above.may_differ(path)
    assert {above.to_read(folder) for folder in parents(path)} == {"all"}
    assert Mutable([f"/{path}"]).may_differ(path)


def test_of_a_guarded_folder_that_logind_makes_only_the_content_is_drift():
    mutable = Mutable(())
    assert mutable.may_differ("var/lib/systemd/linger") and not mutable.may_differ("var/lib/systemd/linger/eve")
    assert mutable.to_read("var/lib/systemd/linger") == "all"


def test_custom_modules_of_an_adopted_machine_do_not_change_by_design():
    mutable = Mutable(["/var/cache"])
    assert not mutable.may_differ("var/cache/salt/minion/extmods/executors/direct_call.py")
    assert not mutable.may_differ("var/cache/salt/minion/extmods/executors/direct_call.pyc")
    assert mutable.may_differ("var/cache/salt/minion/extmods")
    assert mutable.to_read("var/cache/salt/minion") == "all"


def code(text: str, source: Path) -> bytes:
    """What Python writes for a module at ``source``."""
    cache = source.with_suffix(".c")
    source.write_text(text)
    py_compile.compile(str(source), str(cache), doraise=True)
    return cache.read_bytes()


MODULE = "from __future__ import annotations\n\ndef f(x: int = 1) -> str:\n    return [y for y in 'ab'][x]\n"


@pytest.mark.parametrize(
    ("path", "text", "fine"),
    [
        pytest.param("modules/__pycache__/shop.cpython-311.pyc", MODULE, True, id="what Python made"),
        pytest.param("modules/__pycache__/shop.cpython-311.pyc", MODULE.replace("ab", "ac"), False, id="other code"),
        pytest.param("modules/__pycache__/shop.cpython-311.pyc", b"", False, id="empty"),
        pytest.param("modules/__pycache__/shop.cpython-311.pyc", b"\0" * 30, False, id="junk"),
        pytest.param("modules/__pycache__/other.cpython-311.pyc", MODULE, False, id="of no source"),
        pytest.param("modules/shop.pyc", MODULE, False, id="beside its source"),
        pytest.param("executors/direct_call/__init__.pyc", MODULE, False, id="a package"),
        pytest.param("executors/direct_call.so", MODULE, False, id="a library"),
    ],
)
def test_code_that_salt_loads_is_what_its_source_is_compiled_to(tmp_path, path, text, fine):
    source, file = tmp_path / bytecode.MODULES / "modules/shop.py", tmp_path / bytecode.MODULES / path
    for folder in (source.parent, file.parent):
        folder.mkdir(parents=True, exist_ok=True)
    made = code(text, source) if isinstance(text, str) else text
    moment = source.stat() if source.exists() else None
    source.write_text(MODULE)
    if moment:
        os.utime(source, ns=(moment.st_atime_ns, moment.st_mtime_ns))
    file.write_bytes(made)
    assert bytecode.is_made_of_source(str(tmp_path), f"{bytecode.MODULES}{path}", "file") is fine
    assert bytecode.is_made_of_source(str(tmp_path), f"{bytecode.MODULES}modules/__pycache__", "dir")
    assert not bytecode.is_made_of_source(str(tmp_path), "usr/lib/__pycache__", "dir")


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("schedule: {enabled: false}", ""),
        ("", ""),
        ("schedule: {}\nexecutor_dirs: [/tmp/a]", "executor_dirs"),
        ("[a]", "not a mapping"),
        ("{", "cannot be read"),
    ],
)
def test_the_minions_file_of_the_schedule_sets_nothing_else(tmp_path, text, detail):
    file = tmp_path / "_schedule.conf"
    file.write_text(text)
    items = list(config.drift(False, str(file), str(tmp_path / "zzz-machine.conf")))
    assert [item.what for item in items] == ([str(file)] if detail else [])
    assert not detail or detail in items[0].detail


def test_an_adopted_machine_has_no_file_of_a_launch(tmp_path, monkeypatch):
    launched = tmp_path / "zzz-machine.conf"
    launched.write_text("{}")
    assert not list(config.drift(False, str(tmp_path / "none"), str(launched)))
    assert [item.what for item in config.drift(True, str(tmp_path / "none"), str(launched))] == [str(launched)]
    monkeypatch.setattr("os.path.ismount", lambda path: path == str(launched))
    assert not list(config.drift(True, str(tmp_path / "none"), str(launched)))


def test_of_declared_folders_only_rights_are_read_and_default_ones_are_read_whole():
    mutable = Mutable(["/srv/data", "/var/lib/docker"])
    assert [mutable.to_read(folder) for folder in ("var/log", "usr")] == ["all", "all"]
    assert [mutable.to_read(folder) for folder in ("srv/data", "srv/data/x")] == ["rights", "rights"]
    assert [mutable.to_read(folder) for folder in ("proc", "var/lib/docker")] == ["nothing", "nothing"]
    assert Mutable(()).to_read("var/lib/docker") == "all"


@root_only
def test_rights_are_found_in_each_writable_place(tmp_path):
    entries = merged([list(manifest.entries(_planted(tmp_path / "before")))])
    root = _planted(tmp_path / "now")
    for path in ("srv/data/deep/suid", "run/suid", "var/log/suid"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
        (root / path).chmod(0o4755)
    (root / "srv/data/plain").write_text("x")
    os.mknod(root / "srv/data/disk", 0o660 | stat.S_IFBLK, os.makedev(7, 0))
    (root / "srv/data/able").write_text("x")
    (root / "srv/data/able").chmod(0o755)
    os.setxattr(root / "srv/data/able", "security.capability", b"\1\0\0\2\0 " + bytes(14))
    image = Image("d", entries, frozenset(), (), str(tmp_path))
    mutable = Mutable(["/srv/data"])
    found = files.differences(str(root), image, mutable, {"run"}, searched={"run"}).found
    assert sorted(found) == ["run/suid", "srv/data/able", "srv/data/deep/suid", "srv/data/disk", "var/log/suid"]


def _planted(root: Path) -> Path:
    for path in ("srv/data/deep", "run", "var/log"):
        (root / path).mkdir(parents=True)
    return root


@root_only
@pytest.mark.parametrize("flag", ["i", "a"])
def test_a_file_that_nobody_can_change_any_more_is_found_and_removed_all_the_same(tmp_path, flag):
    place = tmp_path / "var/log"
    place.mkdir(parents=True)
    (place / "syslog").write_text("x")
    entries = merged([list(manifest.entries(tmp_path))])
    for path in (place / "syslog", place):
        subprocess.run(["chattr", f"+{flag}", str(path)], check=True)
    try:
        image = Image("d", entries, frozenset(), (), str(tmp_path))
        found = files.differences(str(tmp_path), image, Mutable(()), ()).found
        assert sorted(found) == ["var/log", "var/log/syslog"] and "flag." in found["var/log"]
    finally:
        remove(place)
    assert not place.exists()


def test_patterns_cover_each_path_with_what_is_below():
    mutable = Mutable(["/srv/*/cache", "/data/**/tmp", "/opt/a?c"])
    assert all(mutable.may_differ(path) for path in ("srv/x/cache", "srv/x/cache/y", "data/a/b/tmp/c", "opt/abc"))
    assert not any(mutable.may_differ(path) for path in ("srv/x/y/cache", "srv/x/cached", "data/tmpfile", "opt/ab/c"))

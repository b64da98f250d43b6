"""An archive is unpacked completely, or refused with the name of the first harmful member."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.sources.unpack import unpack

OWNER, GROUP = os.geteuid(), os.getegid()


def member(name: str, kind: bytes = tarfile.REGTYPE, **about) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.uid, found.gid, found.mtime = kind, OWNER, GROUP, 1_600_000_000
    found.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in about.items():
        setattr(found, key, value)
    return found


def file(name: str, text: bytes = b"hello", **about) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, size=len(text), **about), text


def folder(name: str, **about) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.DIRTYPE, **about), b""


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind, linkname=target), b""


def device(name: str, kind: bytes = tarfile.CHRTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind, devmajor=1, devminor=3), b""


@pytest.fixture
def tree(tmp_path):
    place = tmp_path / "outside" / "fs"
    place.mkdir(parents=True)
    return place


@pytest.fixture
def packed(tmp_path):
    def pack(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
        with tarfile.open(tmp_path / "root.tar", "w", format=form) as tar:
            for one, text in members:
                tar.addfile(one, io.BytesIO(text))
        return tmp_path / "root.tar"

    return pack


def refusal(archive: Path, tree: Path) -> str:
    with pytest.raises(CommandExecutionError) as err:
        unpack(archive, tree)
    return str(err.value)


def test_files_are_unpacked_as_they_were_packed(packed, tree):
    script = file("./usr/bin/run", b"#!/bin/sh\n", mode=0o4755)
    script[0].pax_headers = {"SCHILY.xattr.user.note": "caf\u00e9"}
    unpack(
        packed(
            folder("./", mode=0o755),
            folder("./usr", mode=0o750, mtime=1_500_000_000),
            folder("./usr/bin"),
            script,
            link("./bin", "usr/bin"),
            link("./etc", "/nowhere/etc"),
            link("./usr/bin/again", "./usr/bin/run", tarfile.LNKTYPE),
            (member("./usr/pipe", tarfile.FIFOTYPE), b""),
        ),
        tree,
    )
    run = tree / "usr/bin/run"
    assert run.read_text() == "#!/bin/sh\n"
    assert (stat.S_IMODE(run.stat().st_mode), run.stat().st_mtime) == (0o4755, 1_600_000_000)
    assert (run.stat().st_uid, run.stat().st_gid) == (OWNER, GROUP)
    assert os.getxattr(run, "user.note") == "caf\u00e9".encode()
    assert run.samefile(tree / "usr/bin/again")
    assert (os.readlink(tree / "bin"), os.readlink(tree / "etc")) == ("usr/bin", "/nowhere/etc")
    assert (stat.S_IMODE((tree / "usr").stat().st_mode), (tree / "usr").stat().st_mtime) == (0o750, 1_500_000_000)
    assert stat.S_ISFIFO((tree / "usr/pipe").stat().st_mode)


HARM = [
    pytest.param([file("../evil")], "../evil: its path has .. in it", id="out of the root"),
    pytest.param(
        [folder("usr"), file("usr/../../evil")],
        "usr/../../evil: its path has .. in it",
        id="out of the root, from a folder",
    ),
    pytest.param([file("/etc/evil")], "/etc/evil: it has an absolute path", id="absolute"),
    pytest.param(
        [link("etc", "/{outside}"), file("etc/evil")], "etc/evil: it is written through etc", id="through a link"
    ),
    pytest.param(
        [folder("a"), link("a/b", ".."), file("a/b/../evil")], "its path has .. in it", id="through a link and .."
    ),
    pytest.param([link("a", ".."), file("a/evil")], "a/evil: it is written through a", id="through a link upwards"),
    pytest.param([link("a", "."), link("b", "a/..")], None, id="links alone lead nowhere: they are kept"),
    pytest.param([link("evil", "../secret", tarfile.LNKTYPE)], "evil: its path has .. in it", id="hard link outside"),
    pytest.param(
        [link("evil", "/etc/passwd", tarfile.LNKTYPE)], "evil: it has an absolute path", id="absolute hard link"
    ),
    pytest.param(
        [link("a", "/{outside}"), link("evil", "a/secret", tarfile.LNKTYPE)],
        "evil: it is written through a",
        id="hard link through a link",
    ),
    pytest.param(
        [link("x", "y", tarfile.LNKTYPE)],
        "x: it is a hard link to y, which is no earlier file",
        id="hard link to nothing",
    ),
    pytest.param([device("dev/null")], "dev/null: it is a device, which no image may have", id="device"),
    pytest.param([device("dev/sda", tarfile.BLKTYPE)], "dev/sda: it is a device", id="disk"),
    pytest.param([device("a", b"V")], "a: it has an unknown type", id="unknown type"),
    pytest.param([folder("a"), file("a")], "a: an earlier member of that name is a directory", id="folder, then file"),
    pytest.param([file("a"), folder("a")], "a: an earlier member of that name is no directory", id="file, then folder"),
    pytest.param([file("a"), file("a/b")], "a/b: it is written through a", id="below a file"),
    pytest.param([file(".")], ".: the root of the archive is no directory", id="the root as a file"),
    pytest.param([file("a\x1b[2Jb/../x")], "'a\\x1b[2Jb/../x': its path", id="a name that would clear the terminal"),
]


@pytest.mark.parametrize(
    "form", [pytest.param(tarfile.PAX_FORMAT, id="pax"), pytest.param(tarfile.GNU_FORMAT, id="gnu")]
)
@pytest.mark.parametrize(("members", "message"), HARM)
def test_a_harmful_member_is_refused_by_name_and_nothing_is_written_outside(packed, tree, members, message, form):
    (tree.parent / "secret").write_text("kept")
    for one, _ in members:
        one.linkname = one.linkname.replace("/{outside}", str(tree.parent))
    archive = packed(*members, form=form)
    if message is None:
        unpack(archive, tree)
    else:
        assert message in refusal(archive, tree)
    assert sorted(os.listdir(tree.parent)) == ["fs", "secret"]
    assert (tree.parent / "secret").stat().st_nlink == 1


@pytest.mark.parametrize("name", ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.metacopy"])
def test_attributes_that_hide_files_are_refused(packed, tree, name):
    one = folder("usr")
    one[0].pax_headers = {f"SCHILY.xattr.{name}": "y"}
    assert f"it has the extended attribute {name}" in refusal(packed(one), tree)


def test_the_last_of_two_files_of_a_name_counts(packed, tree):
    unpack(packed(link("a", "/etc/passwd"), file("a", b"mine"), file("b", b"1"), file("b", b"2")), tree)
    assert ((tree / "a").read_text(), (tree / "b").read_text()) == ("mine", "2")


PROGRAMS = ["gzip", "bzip2", "xz", "zstd"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_compression_is_recognized_by_the_first_bytes(packed, tree, program):
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    archive = packed(file("a", b"x" * 5000))
    packed_by = archive.with_name("root")
    packed_by.write_bytes(subprocess.run([program, "-c", archive], check=True, capture_output=True).stdout)
    unpack(packed_by, tree)
    assert (tree / "a").read_bytes() == b"x" * 5000


@pytest.mark.parametrize("program", ["", *PROGRAMS])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_archive_is_refused(packed, tree, program, kept):
    if program and shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    archive = packed(file("a", os.urandom(3000)), file("b", os.urandom(70000)), file("c", os.urandom(300)))
    text = subprocess.run([program, "-c", archive], check=True, capture_output=True).stdout if program else None
    text = text or archive.read_bytes()[:-8704]  # without the zeros that fill the last block of twenty
    archive.write_bytes(text[: int(len(text) * kept)])
    assert str(archive) in refusal(archive, tree)


def test_an_archive_without_its_end_is_refused(packed, tree):
    archive = packed(file("a", b"x" * 512))
    archive.write_bytes(archive.read_bytes()[:1024])
    assert "cannot be unpacked, after a: it is truncated: its end is missing" in refusal(archive, tree)


@pytest.mark.parametrize("place", [0, 1024, 2048], ids=["the first header", "the second", "the third"])
def test_a_damaged_header_is_an_error(packed, tree, place):
    archive = packed(*(file(name, b"x" * 512) for name in "abc"))
    text = bytearray(archive.read_bytes())
    text[place] ^= 0x40
    archive.write_bytes(text)
    assert "cannot be unpacked" in refusal(archive, tree)


def test_holes_stay_holes(tmp_path, tree):
    source = tmp_path / "source"
    source.mkdir()
    with (source / "disk").open("wb") as disk:
        disk.write(b"begin")
        disk.seek(8 << 20)
        disk.write(b"end")
        disk.truncate(16 << 20)
    subprocess.run(["tar", "--sparse", "-cf", tmp_path / "sparse.tar", "-C", source, "."], check=True)
    unpack(tmp_path / "sparse.tar", tree)
    assert (tree / "disk").read_bytes() == (source / "disk").read_bytes()
    assert (tree / "disk").stat().st_blocks * 512 < 4 << 20

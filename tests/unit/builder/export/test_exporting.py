"""An export holds what a machine sees, two exports are equal, and an export is complete or not there."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.builder.export import formats, oci, programs, tarball, target, tree
from saltext.immutable.host import Host
from saltext.immutable.images import layers, verify
from saltext.immutable.machines import images, overlay

DIGEST = "3f2a9c1d04be" + "0" * 52

zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="needs zstd")
squashfs = pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="needs mksquashfs (squashfs-tools)")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes whiteouts: needs root")


def put(root: Path, path: str, text: str = "x") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, (1_600_000_000, 1_600_000_000))
    return file


def whiteout(root: Path, path: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    os.mknod(root / path, 0o20000, os.makedev(0, 0))


def opaque(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.setxattr(folder, "trusted.overlay.opaque", b"y")


def paths(*stack: Path) -> list[str]:
    return [entry.path for entry in tree.merged(stack)]


# What a machine sees


@pytest.fixture
def below(tmp_path) -> Path:
    root = tmp_path / "below"
    for path in ("etc/hosts", "etc/old", "srv/a/deep/file", "srv/b", "usr/bin/tool"):
        put(root, path, f"below {path}")
    return root


@pytest.fixture
def above(tmp_path) -> Path:
    root = tmp_path / "above"
    root.mkdir()
    return root


def test_the_upper_file_wins_and_directories_are_merged(below, above):
    put(above, "etc/hosts", "above")
    put(above, "etc/new")
    found = {entry.path: entry.source for entry in tree.merged([below, above])}
    assert Path(found["etc/hosts"]).read_text() == "above"
    assert {"etc/new", "etc/old", "srv/a/deep/file"} <= set(found)
    assert list(found)[:5] == [".", "etc", "etc/hosts", "etc/new", "etc/old"], "a directory, then what is in it, sorted"


@needs_root
def test_a_whiteout_hides_a_file(below, above):
    whiteout(above, "etc/old")
    whiteout(above, "srv/a")
    left = [path for path in paths(below, above) if not path.startswith("usr")]
    assert left == [".", "etc", "etc/hosts", "srv", "srv/b"]


@needs_root
def test_an_opaque_directory_hides_its_content_below(below, above):
    opaque(above / "srv")
    put(above, "srv/c")
    assert [path for path in paths(below, above) if path.startswith("srv")] == ["srv", "srv/c"]


def test_a_file_hides_a_directory_below(below, above):
    put(above, "srv")
    assert [path for path in paths(below, above) if path.startswith("srv")] == ["srv"]


def test_a_directory_above_a_file_is_not_merged_with_one_below_it(below, above, tmp_path):
    put(above, "srv")
    top = tmp_path / "top"
    put(top, "srv/c")
    assert [path for path in paths(below, above, top) if path.startswith("srv")] == ["srv", "srv/c"]


@needs_root
def test_merged_files_are_those_of_the_kernels_overlay(below, above, tmp_path):
    whiteout(above, "etc/old")
    opaque(above / "srv/a")
    put(above, "srv/a/other")
    put(above, "usr/bin/tool", "another")
    (tmp_path / "m").mkdir()
    line = f"mount -t overlay overlay -o lowerdir={above}:{below} {tmp_path}/m && find {tmp_path}/m"
    seen = subprocess.run(["unshare", "-m", "sh", "-c", line], check=False, capture_output=True, text=True)
    if seen.returncode:
        pytest.skip(f"no overlay on {tmp_path}: {seen.stderr}")
    expected = {os.path.relpath(line, tmp_path / "m") for line in seen.stdout.splitlines()}
    assert set(paths(below, above)) == expected


# tar


def packed(*stack: Path) -> bytes:
    out = io.BytesIO()
    tarball.write(out, tree.merged(stack))
    return out.getvalue()


def opened(data: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape")


@pytest.fixture
def odd(tmp_path) -> Path:
    """A tree with all types of files."""
    root = tmp_path / "odd"
    put(root, "a", "same")
    os.link(root / "a", root / "z")
    (root / "link").symlink_to("/ßomewhere/" + "far" * 50)
    put(root, "d" * 90 + "/" + "f" * 120)
    put(root, "Főtanúsítvány\udcff")
    os.mkfifo(root / "pipe", 0o600)
    os.setxattr(put(root, "attributes", ""), "user.any", b"\x00\xff=\n")
    (root / "a").chmod(0o4755)
    return root


def test_a_tar_holds_every_kind_of_file(odd):
    with opened(packed(odd)) as tar:
        found = {member.name: member for member in tar}
        assert tar.extractfile("a").read() == b"same"
    assert (found["a"].mode, found["a"].mtime, found["a"].uname) == (0o4755, 1_600_000_000, "")
    assert (found["z"].islnk(), found["z"].linkname) == (True, "a")
    assert found["link"].linkname == "/ßomewhere/" + "far" * 50
    assert found["d" * 90 + "/" + "f" * 120].size == 1
    assert found["Főtanúsítvány\udcff"].isreg()
    assert found["pipe"].isfifo()
    value = found["attributes"].pax_headers["SCHILY.xattr.user.any"]
    assert value.encode("utf-8", "surrogateescape") == b"\x00\xff=\n"


def test_gnu_tar_reads_it_without_a_warning(odd, tmp_path):
    (tmp_path / "out").mkdir()
    words = ["tar", "--extract", "--xattrs", "--xattrs-include=*", "--directory", tmp_path / "out"]
    done = subprocess.run(words, input=packed(odd), capture_output=True, check=True)
    assert done.stderr == b""
    assert os.getxattr(tmp_path / "out/attributes", "user.any") == b"\x00\xff=\n"
    assert os.readlink(tmp_path / "out/link") == os.readlink(odd / "link")
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(odd))


@pytest.mark.parametrize("size", range(85, 125))
def test_the_length_of_an_attribute_counts_its_own_digits(tmp_path, size):
    os.setxattr(put(tmp_path, "tree/file"), "user.any", b"v" * size)
    with opened(packed(tmp_path / "tree")) as tar:
        assert len(tar.getmember("file").pax_headers["SCHILY.xattr.user.any"]) == size


def test_a_file_that_shrinks_is_an_error(odd):
    entries = list(tree.merged([odd]))
    (odd / "a").write_text("")
    with pytest.raises(CommandExecutionError, match="became shorter"):
        tarball.write(io.BytesIO(), entries)


# OCI


@pytest.fixture
def archive(below, above, tmp_path) -> dict[str, bytes]:
    """The files of an OCI archive of two layers."""
    if os.geteuid() == 0:
        whiteout(above, "etc/old")
        opaque(above / "srv")
    put(above, "srv/c", "above" * 5000)
    return {member.name: tar.extractfile(member).read() for tar in [opened(written(below, above))] for member in tar}


def written(*stack: Path) -> bytes:
    out = io.BytesIO()
    about = oci.Image("web", DIGEST, 1_700_000_000.9, "amd64", {"some": "label"})
    oci.write(out, about, [oci.Layer(place, place.name, 1_600_000_000.0) for place in stack])
    return out.getvalue()


def blob(archive, described) -> bytes:
    found = archive[f"blobs/sha256/{described['digest'].removeprefix('sha256:')}"]
    assert len(found) == described["size"]
    assert hashlib.sha256(found).hexdigest() == described["digest"].removeprefix("sha256:")
    return found


def test_an_archive_leads_from_its_index_to_its_layers(archive):
    (described,) = json.loads(archive["index.json"])["manifests"]
    assert described["annotations"]["org.opencontainers.image.ref.name"] == "localhost/web:3f2a9c1d04be"
    manifest = json.loads(blob(archive, described))
    config = json.loads(blob(archive, manifest["config"]))
    assert [each["created_by"] for each in config["history"]] == ["below", "above"]
    assert (config["architecture"], config["created"]) == ("amd64", "2023-11-14T22:13:20Z")
    unpacked = [zlib.decompress(blob(archive, layer), 31) for layer in manifest["layers"]]
    assert [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in unpacked] == config["rootfs"]["diff_ids"]
    with opened(unpacked[1]) as tar:
        assert tar.extractfile("srv/c").read() == b"above" * 5000


def test_the_manifest_for_docker_names_the_same_blobs(archive):
    (told,) = json.loads(archive["manifest.json"])
    manifest = json.loads(blob(archive, json.loads(archive["index.json"])["manifests"][0]))
    named = [manifest["config"], *manifest["layers"]]
    assert [told["Config"], *told["Layers"]] == [f"blobs/sha256/{each['digest'][7:]}" for each in named]
    assert set(told["Layers"]) < set(archive)


@needs_root
def test_whiteouts_are_those_of_oci(above):
    whiteout(above, "etc/old")
    opaque(above / "srv")
    put(above, "srv/c")
    out = io.BytesIO()
    tarball.write_layer(out, tree.of_layer(above))
    with opened(out.getvalue()) as tar:
        assert [member.name for member in tar] == ["etc", "etc/.wh.old", "srv", "srv/.wh..wh..opq", "srv/c"]
        assert not any("overlay" in name for member in tar for name in member.pax_headers)


def test_a_file_named_like_a_whiteout_is_refused(above):
    put(above, "srv/.wh.hosts")
    with pytest.raises(CommandExecutionError, match=r"/srv/\.wh\.hosts cannot be in a layer of OCI"):
        tarball.write_layer(io.BytesIO(), tree.of_layer(above))


# The file


def test_a_target_is_complete(tmp_path):
    place = tmp_path / "web.tar"
    with target.create(place, force=False) as file:
        file.write(b"all")
        assert not place.exists()
    assert (place.read_bytes(), place.stat().st_mode & 0o777) == (b"all", 0o600)
    assert os.listdir(tmp_path) == ["web.tar"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_after_an_error_there_is_no_target(tmp_path, error):
    with pytest.raises(error), target.create(tmp_path / "web.tar", force=False) as file:
        file.write(b"half")
        raise error
    assert os.listdir(tmp_path) == []


def test_the_next_export_removes_files_of_a_killed_one_but_not_those_in_use(tmp_path):
    (tmp_path / ".immutable-export-0123").write_text("half")
    with target.create(tmp_path / "one", force=False), target.create(tmp_path / "two", force=False):
        assert len(os.listdir(tmp_path)) == 2
        assert not (tmp_path / ".immutable-export-0123").exists()
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "force", "said"),
    [
        pytest.param("there", False, "exists already.*force=True", id="nothing is overwritten without force"),
        pytest.param("folder", True, "no regular file", id="a directory"),
        pytest.param("link", True, "no regular file", id="a link"),
        pytest.param("pipe", True, "no regular file", id="what is no file"),
        pytest.param("nowhere/web.tar", False, "is no directory on the builder", id="no such directory"),
    ],
)
def test_targets_that_are_refused(tmp_path, name, force, said):
    put(tmp_path, "there")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("there")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SaltInvocationError, match=said):
        target.require(str(tmp_path / name), force)


def test_a_relative_target_is_refused():
    with pytest.raises(SaltInvocationError, match="no absolute path"):
        target.require("web.tar", False)


def test_a_target_that_another_process_made_meanwhile_stays(tmp_path):
    place = tmp_path / "web.tar"
    with pytest.raises(SaltInvocationError, match="already"), target.create(place, force=False) as file:
        file.write(b"ours")
        place.write_bytes(b"theirs")
    assert place.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["web.tar"]


def test_a_disk_that_is_too_small_is_an_error_before_the_export(tmp_path):
    with pytest.raises(CommandExecutionError, match="MB free and this export needs about"):
        target.require_space(tmp_path / "web.tar", 1 << 60)


# Programs


def test_the_output_of_a_program_that_fails_is_in_the_error():
    with (
        pytest.raises(CommandExecutionError, match="sh exited with 3; fix what it says, and export again:\nno room"),
        programs.piped(["sh", "-c", "echo no room >&2; exit 3"]) as pipe,
    ):
        for _ in range(100):
            pipe.write(bytes(1 << 16))


def test_a_program_is_ended_when_its_input_fails():
    with pytest.raises(KeyError), programs.piped(["sleep", "1000"]) as pipe:
        pipe.write(bytes(10))
        raise KeyError("x")


def test_a_program_that_is_missing_is_named():
    with pytest.raises(CommandExecutionError, match="no-such is not installed"), programs.piped(["no-such"]):
        pass


# All of it


@pytest.fixture
def host(tmp_path, monkeypatch) -> Host:
    """A host with one signed image, of two layers and a seal."""
    monkeypatch.setattr("saltext.immutable.host.require_root", lambda: None)
    monkeypatch.setattr("saltext.immutable.builder.export.formats.require_root", lambda: None)
    for name in ("require", "image"):
        monkeypatch.setattr(verify, name, lambda host, digest, trusted: None)
    found = Host(tmp_path / "immutable")
    found.prepare()
    stack = [layer(found, "debian", "below " * 9000), layer(found, "states of web", "above " * 9000)]
    about = images.metadata_file(found, DIGEST)
    put(about.parent / "seal", "etc/immutable/seal.json", "{}")
    said = {"recipe": "web", "layers": stack, "image": DIGEST, "created": 1_700_000_000.5, "salt": "3008", "pack": "1"}
    about.write_text(json.dumps(said))
    layers.make_link(found, overlay.seal_name(DIGEST), f"../images/{DIGEST}/seal")
    return found


def layer(host: Host, what: str, text: str) -> str:
    with host.workspace() as place:
        put(place / "fs", "etc/said", text)
        put(place / "fs", f"etc/{what}", what)
        (place / "fs/etc/absolute").symlink_to("/etc/Főtanúsítvány")
        return layers.commit(host, place, what=what).digest


def order(place: Path, format: str, **more: object) -> dict[str, object]:
    told = {"digest": DIGEST, "trusted": [], "format": format, "target": str(place)}
    return {**told, "force": False, "test": False, **more}


@pytest.mark.parametrize("format", [pytest.param("tar", marks=zstd), pytest.param("squashfs", marks=squashfs), "oci"])
def test_two_exports_are_the_same_bytes(host, tmp_path, format):
    said: list[str] = []
    first = formats.export_image(host, order(tmp_path / "1", format), lambda message, tag, **data: said.append(message))
    second = formats.export_image(host, order(tmp_path / "2", format))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert first["sha256"] == second["sha256"] == hashlib.sha256((tmp_path / "1").read_bytes()).hexdigest()
    assert first["bytes"] == (tmp_path / "1").stat().st_size > 200
    assert said[-1] == "exporting web@3f2a9c1d04be: 100 % of 0 MB"


@squashfs
def test_a_squashfs_holds_the_files_and_the_mode_of_the_root(host, tmp_path):
    for folder, _, _ in os.walk(host.root):
        os.utime(folder, (1_600_000_000, 1_600_000_000))
    formats.export_image(host, order(tmp_path / "web.squashfs", "squashfs"))
    words = ["unsquashfs", "-UTC", "-lln", tmp_path / "web.squashfs"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    root = (images.metadata_file(host, DIGEST).parent / "seal").stat()
    assert "-> /etc/Főtanúsítvány" in listed
    assert "squashfs-root/etc/immutable/seal.json" in listed
    (about_root,) = [line for line in listed.splitlines() if line.endswith(" squashfs-root")]
    assert about_root.startswith(stat.filemode(root.st_mode))
    assert "2023-11-14 22:13" in about_root, "it is as old as the image: two exports are the same on another day too"
    assert "above" in subprocess.run([*words[:1], "-cat", words[-1], "etc/said"], capture_output=True, text=True).stdout


def test_a_preview_writes_nothing(host, tmp_path):
    told = formats.export_image(host, order(tmp_path / "web.tar", "tar", test=True))
    assert (told["image"], told["content"]) == ("web@3f2a9c1d04be", 54_000 + len("debian" + "states of web") + 2)
    assert not (tmp_path / "web.tar").exists()


def test_an_image_that_is_not_as_it_was_signed_is_not_exported(host, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr("saltext.immutable.builder.export.formats.require_root", lambda: None)
    with pytest.raises(CommandExecutionError, match=r"image 3f2a9c1d04be .*damaged"):
        formats.export_image(host, order(tmp_path / "web.tar", "tar"))
    assert not list(tmp_path.glob("*web*"))

"""Where the file system has fs-verity, the kernel checks each read of a layer; where it has none, nothing fails."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from saltext.immutable import kernel
from saltext.immutable.builder import image_commands
from saltext.immutable.images import layers, manifest, verify, verity
from saltext.immutable.machines import images

ENABLE, MEASURE = 0x40806685, 0xC0046686
POLICY = {"writable": [], "exec": [], "at_launch": [], "limits": {}}
enable = verity.enable
"""Ours itself: the fixture `host` has none."""


class FakeKernel:
    """A kernel whose file system has fs-verity; ``refuses``: names of files -> the error that it gives for them."""

    def __init__(self, **refuses: int) -> None:
        self.refuses, self.asked = refuses, list[str]()
        self.checked: set[int] = set()

    def fake_ioctl(self, file: int, code: int, argument: bytes) -> bytes:
        path, inode = os.readlink(f"/proc/self/fd/{file}"), os.fstat(file).st_ino
        if code == MEASURE:
            if inode not in self.checked:
                raise OSError(errno.ENODATA, "no data")
            return argument
        assert code == ENABLE and len(argument) == 128
        assert struct.unpack("=4I", argument[:16]) == (1, 1, 4096, 0) and not any(argument[16:])
        self.asked.append(os.path.basename(path))
        if error := self.refuses.get(os.path.basename(path)):
            raise OSError(error, os.strerror(error))
        if inode in self.checked:
            raise OSError(errno.EEXIST, "File exists")
        self.checked.add(inode)
        os.utime(file)  # as ext4 does
        return argument

    def fake_attributes(self, path: str) -> int:
        return 0x100000 if os.lstat(path).st_ino in self.checked else 0


@pytest.fixture
def with_kernel(host, monkeypatch):
    """Return what puts a kernel in place of this machine's."""

    def put(fake: FakeKernel) -> FakeKernel:
        monkeypatch.setattr(verity, "enable", enable)
        monkeypatch.setattr(kernel.fcntl, "ioctl", fake.fake_ioctl)
        monkeypatch.setattr(kernel, "_attributes", fake.fake_attributes)
        return fake

    return put


def tree(folder: Path) -> Path:
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/motd").write_text("hello")
    (folder / "etc/issue").write_text("there")
    os.link(folder / "etc/motd", folder / "linked")
    (folder / "empty").touch()
    (folder / "link").symlink_to("etc/motd")
    (folder / "folder").symlink_to("etc")
    os.mkfifo(folder / "pipe")
    return folder


def commit(host) -> layers.Layer:
    with host.workspace() as place:
        tree(place / "fs")
        return layers.commit(host, place, what="states of web")


def of(host, *stack: layers.Layer) -> dict[str, object]:
    return verity.checked(host.layers, [host.layers / layer.digest / "fs" for layer in stack])


def test_each_file_with_content_is_asked_for_once_and_keeps_its_time(host, with_kernel):
    without = commit(host)
    layers.drop(host, [without.digest])
    fake = with_kernel(FakeKernel())
    layer = commit(host)
    assert layer.digest == without.digest
    [linked] = {"motd", "linked"} & set(fake.asked)
    assert sorted(fake.asked) == sorted(["issue", "layer.json", linked, "manifest.gz"])
    assert of(host, layer) == {"files": 2, "why": ""}
    verify.mark_verified(host, layer.digest, "another", 0.0)
    assert layers.damage(host, layer.digest) is None, "it was read again"


def test_a_layer_from_before_stays_as_it_is(host, with_kernel):
    old = commit(host)
    fake = with_kernel(FakeKernel())
    assert commit(host) == old
    assert fake.asked == [], "it may be in use"
    told = of(host, old)
    assert told["files"] == 0 and "2 files have no fs-verity: a layer gets it at its commit" in told["why"]


@pytest.mark.parametrize("error", [errno.ETXTBSY, errno.EPERM, errno.ENOSPC])
def test_a_file_that_cannot_have_it_keeps_the_others_from_nothing(host, with_kernel, error):
    fake = with_kernel(FakeKernel(issue=error))
    layer = commit(host)
    assert len(fake.asked) == 4
    assert of(host, layer)["files"] == 1 and "1 files have no fs-verity" in of(host, layer)["why"]


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.ENOPKG])
def test_a_file_system_without_it_is_asked_once(tmp_path, with_kernel, error):
    fake = with_kernel(FakeKernel(issue=error, motd=error, linked=error))
    assert os.strerror(error) in enable(tree(tmp_path / "fs"))
    assert len(fake.asked) == 1


def test_the_seal_has_it_too(host, with_kernel, monkeypatch):
    monkeypatch.setattr(image_commands, "_require_directories", lambda host, order: None)
    fake = with_kernel(FakeKernel())
    order = {"recipe": "web", "layers": [commit(host).digest], "read_only": True, "grains": {}, "salt": "3008"}
    made = image_commands.make_image(host, {**order, "pack": "1", "policy": POLICY})
    seal = images.metadata_file(host, made["image"]).parent / "seal/etc/immutable"
    assert {"seal.json", "image.json", "layers.json"} <= set(fake.asked)
    assert kernel.has_verity(str(seal / "seal.json"))
    assert kernel.has_verity(str(seal / f"manifest/{order['layers'][0]}.gz")), "since the commit of its layer"
    assert fake.asked.count("manifest.gz") == 1


def test_what_the_kernel_here_says_is_believed_and_the_commit_goes_on(host, monkeypatch):
    monkeypatch.setattr(verity, "enable", enable)
    layer = commit(host)
    told = of(host, layer)
    assert told["files"] == 2 or str(host.layers) in told["why"] and "has no fs-verity" in told["why"]
    assert layers.damage(host, layer.digest) is None


def test_a_file_system_that_never_has_it_says_so():
    with pytest.raises(OSError) as refused:
        kernel.enable_verity("/proc/version")
    assert refused.value.errno in verity._NOWHERE
    assert not kernel.has_verity("/proc/version") and not kernel.may_have_verity("/proc/version")


def test_a_read_that_the_kernel_refuses_is_damage_by_name(host, monkeypatch):
    layer = commit(host)

    class Damaged:
        def __init__(self, path: str, *_: object, **__: object) -> None:
            self.bad = path.endswith("issue")

        def __enter__(self) -> Damaged:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self, size: int) -> bytes:
            if self.bad:
                raise OSError(errno.EIO, "Input/output error")
            return b""

    monkeypatch.setattr(manifest, "open", Damaged, raising=False)
    monkeypatch.setattr(verify, "this_boot", lambda: "another")
    with pytest.raises(verify.Damaged, match=r"fs/etc/issue cannot be read: Input/output error .*image.bake"):
        verify.require_layers(host, [layer.digest])


def test_metadata_that_cannot_be_read_is_damage(host, monkeypatch):
    layer = commit(host)
    real = Path.read_text

    def fake_read_text(path: Path, *args: object, **more: object) -> str:
        if path.name == "layer.json":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *args, **more)

    monkeypatch.setattr(Path, "read_text", fake_read_text)
    with pytest.raises(verify.Damaged, match="layer.json cannot be read: .*Input/output error"):
        layers.load(host, layer.digest)

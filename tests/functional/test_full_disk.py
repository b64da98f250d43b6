"""A disk of a builder that is full as each phase begins: a sentence, nothing half-made, all right with room again."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import garbage, image_commands, phases
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.host import Host
from saltext.immutable.spec.model import Settings
from saltext.immutable.worker import Worker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk: needs root")
ORDER = {"recipe": "web", "read_only": True, "grains": {"a": "b"}, "policy": {"writable": [], "at_launch": []}}
PROOF = {"signature": {"payload": "x" * 20_000}, "provenance": {}}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Host]:
    """A builder with 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], check=True)
    try:
        host = Host(place / "immutable")
        host.prepare()
        yield host
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    for folder in ("etc", "usr/bin", "usr/sbin", "var"):
        (place / folder).mkdir(parents=True)
    for name in ("usr/bin/python3", "usr/sbin/init"):
        (place / name).write_bytes(os.urandom(200_000))
    for path in (*place.rglob("*"), place):
        path.chmod(0o755)
        os.utime(path, (1e9, 1e9))
    return place


@pytest.fixture(params=["directory", "tarball"])
def source(request, root: Path) -> dict[str, str]:
    """A root, as it lies there, or in an archive."""
    if request.param == "directory":
        return {"directory": str(root)}
    with tarfile.open(root.with_name("root.tar"), "w") as archive:
        archive.add(root, ".")
    return {"tarball": str(root.with_name("root.tar"))}


def bake(host: Host, source: dict[str, str], begins: Callable[[str], None]) -> str:
    """Do what a bake of one layer does on a builder, and return the digest of its image."""
    worker = Worker.__new__(Worker)
    worker._settings, worker._local = Settings(root=host.root), LOCAL
    content = worker("root_content", order=source)
    with phases.report_to(begins):
        layer: Any = worker("root_layer", order={"what": "root", "sha256": content, **source})
    begins("keep")
    worker("keep_layer", key="k" * 64, digest=layer["digest"])
    begins("seal")
    made = worker("make_image", order={**ORDER, "layers": [layer["digest"]], "salt": "1", "pack": "1"})
    begins("sign")
    worker("keep_proof", digest=made["image"], proof=PROOF)
    return str(made["image"])


def fill(host: Host) -> None:
    """Fill the disk to the last byte."""
    with (host.root.parent / "ballast").open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def filling(host: Host, phase: str) -> Callable[[str], None]:
    """Return what fills the disk as a phase begins."""
    return lambda begun: fill(host) if begun == phase else None


def files(host: Host) -> set[str]:
    found = (str(path.relative_to(host.root)) for path in host.root.rglob("*"))
    return {path for path in found if not path.endswith((".lock", "/seen.json"))}


def test_full_as_each_phase_begins(disk, source):
    names: list[str] = []
    digest = bake(disk, source, names.append)
    expected = files(disk)
    (disk.keys / ("k" * 64)).unlink()
    garbage.collect(disk, [], [], [])
    empty = files(disk)
    assert names == ["root", "slim", "scrub", "search", "commit", "keep", "seal", "sign"]
    for name in names:
        with pytest.raises(CommandExecutionError) as error:
            bake(disk, source, filling(disk, name))
        assert "No space left on device" in str(error.value), (name, str(error.value))
        garbage.collect(disk, [], [], [])  # also where there is no room yet
        assert files(disk) == empty, name
        (disk.root.parent / "ballast").unlink()
        assert bake(disk, source, lambda begun: None) == digest
        assert files(disk) == expected
        assert image_commands.has_image(disk, digest)
        garbage.collect(disk, [], [], [])

"""Each way in which what an image is made of can be damaged on its host. Files keep their times, as on a bad disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from saltext.immutable.host import Host


@dataclass(frozen=True)
class Place:
    """A layer of an image on a host. ``file``: one of its files; ``other``: another layer."""

    host: Host
    image: str
    layer: str
    file: str
    other: str

    @property
    def path(self) -> Path:
        return self.host.layers / self.layer / "fs" / self.file


@dataclass(frozen=True)
class Way:
    """How a layer, or its image, is damaged; ``says``: a part of how commands call it, with the place's ``file``."""

    damage: Callable[[Place], object]
    says: str
    of_image: bool = False
    of_both: bool = False
    """The other layer is damaged as well."""

    def sentences(self, place: Place) -> list[str]:
        """Return what a command has to say of the damage: what it is, where, and how it is mended."""
        if self.of_image:
            return [f"image {place.image[:12]} ", self.says, "bake the recipe again"]
        return [f"layer {place.layer[:12]} is damaged: ", self.says.format(file=place.file), "builds it again"]


@contextmanager
def times_kept(*files: Path) -> Iterator[None]:
    """Put the times of files back."""
    before = [(file, file.stat()) for file in files]
    yield
    for file, info in before:
        os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))


def overwrite(file: Path, content: bytes) -> None:
    """Put another file in its place, at the same times: one with fs-verity cannot be written."""
    with times_kept(file.parent):
        new = file.with_name(".new")
        new.write_bytes(content)
        shutil.copystat(file, new)
        new.replace(file)


def flip(file: Path, byte: int) -> None:
    """Change one bit."""
    data = bytearray(file.read_bytes())
    data[byte] ^= 1
    overwrite(file, bytes(data))


def _add(place: Place) -> None:
    with times_kept(place.path.parent):
        place.path.with_name("extra").touch()


def _remove(place: Place) -> None:
    with times_kept(place.path.parent):
        place.path.unlink()


def _forge(place: Place) -> None:
    """Change the first letter of the signature."""
    file = place.host.images / place.image / "proof.json"
    text = file.read_text()
    start = text.index('"sig": "') + len('"sig": "')
    overwrite(file, f"{text[:start]}{'B' if text[start] == 'A' else 'A'}{text[start + 1 :]}".encode())


def _swap(place: Place) -> None:
    """Exchange the folders of two layers."""
    one, other, aside = place.host.layers / place.layer, place.host.layers / place.other, place.host.layers / ".aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


WAYS = {
    "byte": Way(lambda place: flip(place.path, 0), "/{file} has changed (content"),
    "mode": Way(lambda place: place.path.chmod(0o4755), "/{file} has changed (mode"),
    "owner": Way(lambda place: os.chown(place.path, 1, 1), "/{file} has changed (gid, uid"),
    "extra": Way(_add, "extra was added"),
    "missing": Way(_remove, "/{file} is missing"),
    "xattr": Way(lambda place: os.setxattr(place.path, "user.mark", b"1"), "/{file} has changed (xattrs"),
    "manifest": Way(lambda place: flip(place.host.layers / place.layer / "manifest.gz", 20), "its manifest"),
    "signature": Way(_forge, "the signature is invalid", of_image=True),
    "swapped": Way(_swap, "its manifest does not match the digest", of_both=True),
}

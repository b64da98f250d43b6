"""What a recipe begins with, as frozen data: a root of one kind or another, or what was baked before."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Debian:
    """A root made by mmdebstrap: ``from: {debian: bookworm, packages: [...]}``."""

    suite: str
    packages: tuple[str, ...] = ()
    components: tuple[str, ...] = ("main",)
    mirror: str | None = None
    """None: the mirrors that the builder's own apt uses."""


@dataclass(frozen=True)
class Tarball:
    """A root in a tar archive: ``from: {tarball: /srv/root.tar.zst}``, or a URL."""

    location: str
    sha256: str | None = None
    """Of the archive; a URL needs it. None: of the file as it is when it is baked."""


@dataclass(frozen=True)
class Directory:
    """A root in a directory of the builder: ``from: {directory: /srv/root}``."""

    path: str


@dataclass(frozen=True)
class Disk:
    """The root on the disk of a system: ``from: {disk: /srv/debian-12.qcow2}``, or a URL."""

    location: str
    """A file of the builder, or a URL: qcow2, raw or vmdk."""
    sha256: str | None = None
    """As of a `Tarball`."""
    partition: int | None = None
    """The number of the partition that has the root; None: the one with an os-release."""


@dataclass(frozen=True)
class Oci:
    """An image of a registry or an archive: ``from: {oci: docker.io/library/debian:bookworm}``."""

    reference: str
    """A name with its registry, a tag or a digest; or the path of an archive or a folder on the builder."""
    insecure: bool = False
    """The registry may speak HTTP, or have a certificate that nobody signed."""


@dataclass(frozen=True)
class Parent:
    """Another recipe's image: ``from: {recipe: base}``."""

    recipe: str


@dataclass(frozen=True)
class ParentImage:
    """A baked image: ``from: {image: 'base:stable'}``."""

    reference: str
    """``recipe:channel``, ``recipe@digits``, a digest or its first digits."""

    @property
    def follows(self) -> str | None:
        """The recipe whose channel it names; None: it names one image, which never changes."""
        recipe, colon, _ = self.reference.partition(":")
        return recipe if colon else None


Source = Debian | Tarball | Directory | Disk | Oci | Parent | ParentImage

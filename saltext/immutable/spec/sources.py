"""Read ``from`` of a recipe: the root or the parent image that it begins with."""

from __future__ import annotations

import re

from saltext.immutable.spec import reading
from saltext.immutable.spec.origins import Debian, Directory, Disk, Oci, Parent, ParentImage, Source, Tarball
from saltext.immutable.spec.section import Section
from saltext.immutable.text import quoted

_SUITE = r"[a-z0-9][a-z0-9.-]*"
_PACKAGE = r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?"
_MIRROR = r"(https?|file|copy)://?[^\s\[\]]+"
PATH = r"/(?!\.\.?(/|$))[^/\0\n]+(/(?!\.\.?(/|$))[^/\0\n]+)*"
_URL = r"https?://[^\s/@]+/\S+"
_SHA256 = r"[0-9a-f]{64}"
_IMAGE = (
    r"(?=[^/]*[.:]|localhost/)[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
"""A name of an image as Docker writes it, with the host of its registry and with a tag or a digest."""
_NAME = r"[a-z0-9][a-z0-9-]*"
_BAKED = rf"{_NAME}(:{_NAME}|@[0-9a-f]{{6,64}})|[0-9a-f]{{6,64}}"
_KINDS = ("debian", "tarball", "directory", "disk", "oci", "image", "recipe")
_WRITE = (
    "write {debian: bookworm}, {tarball: PATH or URL}, {directory: PATH}, {disk: PATH or URL}, "
    "{oci: IMAGE or PATH}, {image: 'RECIPE:CHANNEL'} or {recipe: NAME}"
)


def source(read: Section) -> Source:
    """Read the source of a recipe."""
    if not read.has("from"):
        read.problem("", f"from is missing; {_WRITE}")
    section = read.inside("from")
    kinds = [kind for kind in _KINDS if section.has(kind)]
    if len(kinds) != 1 and section.valid and read.has("from"):
        section.problem("", f"{'more than one source' if kinds else 'no source'}; {_WRITE}")
    found = _source(section, kinds[-1] if kinds else "debian")
    section.close()
    return found


def _source(section: Section, kind: str) -> Source:
    if kind == "recipe":
        return Parent(section.need("recipe", reading.name, "base"))
    if kind == "image":
        return ParentImage(section.take("image", _baked, ""))
    if kind == "directory":
        return Directory(section.take("directory", _directory, ""))
    if kind == "oci":
        return Oci(section.take("oci", _oci, ""), section.take("insecure", reading.flag, False))
    if kind == "disk":
        return _disk(section)
    return _tarball(section) if kind == "tarball" else _debian(section)


def _debian(section: Section) -> Debian:
    return Debian(
        suite=section.take("debian", _suite, ""),
        packages=section.take("packages", _packages, ()),
        components=section.take("components", _components, ("main",)),
        mirror=section.take("mirror", _mirror, None),
    )


def _tarball(section: Section) -> Tarball:
    found = Tarball(section.take("tarball", _archive, ""), section.take("sha256", _sha256, None))
    _require_sum(section, found)
    return found


def _disk(section: Section) -> Disk:
    partition = section.take("partition", reading.whole(1, 128), None)
    found = Disk(section.take("disk", _image_file, ""), section.take("sha256", _sha256, None), partition)
    _require_sum(section, found)
    return found


def _require_sum(section: Section, found: Tarball | Disk) -> None:
    if "://" in found.location and found.sha256 is None and section.valid:
        section.problem("", "sha256 is missing: a URL may return another file later; write the output of sha256sum")


def _suite(value: object) -> str:
    return matching(_SUITE, reading.text(value), "a suite; write bookworm")


def _packages(value: object) -> tuple[str, ...]:
    return tuple(matching(_PACKAGE, word, "a package; write python3") for word in reading.words(value))


def _components(value: object) -> tuple[str, ...]:
    return tuple(matching(_SUITE, word, "a component; write main") for word in reading.words(value))


def _mirror(value: object) -> str:
    return matching(_MIRROR, reading.text(value), "a mirror; write http://deb.debian.org/debian")


def _archive(value: object) -> str:
    what = "a tar archive; write /srv/root.tar.zst or https://example.com/root.tar.zst"
    return matching(f"{PATH}|{_URL}", reading.text(value), what)


def _image_file(value: object) -> str:
    what = "the disk of a system; write /srv/debian-12.qcow2 or https://example.com/debian-12.qcow2"
    return matching(f"{PATH}|{_URL}", reading.text(value), what)


def _sha256(value: object) -> str:
    return matching(_SHA256, reading.text(value), "a sha256; write the output of sha256sum: 64 digits, 0-9 and a-f")


def _oci(value: object) -> str:
    found = reading.text(value)
    if found.startswith("/"):
        return matching(PATH.replace("/\\0", "/:\\0"), found, "a path without a colon; write /srv/debian.oci.tar")
    example = "an image with its registry and a tag or a digest; write docker.io/library/debian:bookworm"
    found = matching(_IMAGE, found, example)
    if not re.search(r"[^/]*[:@][^/]*$", found.partition("/")[2]):
        raise ValueError(f"{quoted(found)} is not {example}")
    return found


def _baked(value: object) -> str:
    return matching(_BAKED, reading.text(value), "a baked image; write 'base:stable', or base@ and six digits or more")


def _directory(value: object) -> str:
    return matching(PATH, reading.text(value), "an absolute path; write /srv/root")


def matching(pattern: str, found: str, what: str) -> str:
    """Return ``found`` if it matches ``pattern``; raise ``ValueError`` otherwise. ``what``: as ``a suite; write x``.

    These values become part of command lines, sources.list and file names on the builder.
    """
    if not re.fullmatch(pattern, found):
        raise ValueError(f"{quoted(found)} is not {what}")
    return found

"""What a recipe begins with: ``from``."""

from __future__ import annotations

import re

from saltext.immutable.spec import reading
from saltext.immutable.spec.model import Debian, Directory, Parent, Source, Tarball
from saltext.immutable.spec.reading import Section

_SUITE = r"[a-z0-9][a-z0-9.-]*"
_PACKAGE = r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?"
_MIRROR = r"(https?|file|copy)://?[^\s\[\]]+"
PATH = r"/(?!\.\.?(/|$))[^/\0\n]+(/(?!\.\.?(/|$))[^/\0\n]+)*"
_URL = r"https?://[^\s/@]+/\S+"
_SHA256 = r"[0-9a-f]{64}"
_KINDS = ("debian", "tarball", "directory", "recipe")
_WRITE = "write {debian: bookworm}, {tarball: PATH or URL}, {directory: PATH} or {recipe: NAME}"


def source(read: Section) -> Source:
    """Read what the image is made from."""
    if not read.has("from"):
        read.problem("", f"from is missing; {_WRITE}")
    section = read.inside("from")
    kinds = [kind for kind in _KINDS if section.has(kind)]
    if len(kinds) != 1 and section.sound and read.has("from"):
        section.problem("", f"{'two sources' if kinds else 'no source'}; {_WRITE}")
    found = _source(section, kinds[-1] if kinds else "debian")
    section.close()
    return found


def _source(section: Section, kind: str) -> Source:
    if kind == "recipe":
        return Parent(section.need("recipe", reading.name, "base"))
    if kind == "directory":
        return Directory(section.take("directory", _directory, ""))
    return _tarball(section) if kind == "tarball" else _debian(section)


def _debian(section: Section) -> Debian:
    return Debian(
        suite=section.take("debian", _suite, ""),
        packages=section.take("packages", _packages, ()),
        components=section.take("components", _components, ("main",)),
        mirror=section.take("mirror", _mirror, None),
    )


def _tarball(section: Section) -> Tarball:
    found = Tarball(section.take("tarball", _location, ""), section.take("sha256", _sha256, None))
    if "://" in found.location and found.sha256 is None and section.sound:
        section.problem("", "sha256 is missing: a URL may give something else tomorrow; write what sha256sum says")
    return found


def _suite(value: object) -> str:
    return only(_SUITE, reading.text(value), "suite; write bookworm")


def _packages(value: object) -> tuple[str, ...]:
    return tuple(only(_PACKAGE, word, "package; write python3") for word in reading.words(value))


def _components(value: object) -> tuple[str, ...]:
    return tuple(only(_SUITE, word, "component; write main") for word in reading.words(value))


def _mirror(value: object) -> str:
    return only(_MIRROR, reading.text(value), "mirror; write http://deb.debian.org/debian")


def _location(value: object) -> str:
    pattern, text = f"{PATH}|{_URL}", reading.text(value)
    return only(pattern, text, "tar archive; write /srv/root.tar.zst or https://example.com/root.tar.zst")


def _sha256(value: object) -> str:
    return only(_SHA256, reading.text(value), "sha256; write what sha256sum says: 64 digits, 0 to 9 and a to f")


def _directory(value: object) -> str:
    return only(PATH, reading.text(value), "absolute path; write /srv/root")


def only(pattern: str, found: str, what: str) -> str:
    """They become command lines, sources.list and file names on the builder: nothing else may come that way."""
    if not re.fullmatch(pattern, found):
        raise ValueError(f"{found!r} is no {what}")
    return found

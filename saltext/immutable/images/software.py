"""The software in an image: packages of dpkg and rpm, and Python distributions, with their licenses."""

from __future__ import annotations

import email
import re
from collections.abc import Callable, Iterator
from email.message import Message
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from saltext.immutable import rpm
from saltext.immutable.host import Host
from saltext.immutable.images import compare, verify
from saltext.immutable.machines import overlay

_STATUS = "var/lib/dpkg/status"
_RELEASE = ("etc/os-release", "usr/lib/os-release")
_NAMED = re.compile(r'^(ID|VERSION_ID)="?([^"\n]*)', re.MULTILINE)
_PYTHON = re.compile(r"(?:^|/)(?:site|dist)-packages/[^/]+\.(?:dist|egg)-info/(?:METADATA|PKG-INFO)$")
_COPYRIGHT = "usr/share/doc/{}/copyright"
_LICENSE = re.compile(r"^License:[ \t]*(\S.*?)\s*$", re.MULTILINE)
_FIELDS = re.compile(r"^(Package|Status|Architecture|Version|Source|Maintainer): (.*)$", re.MULTILINE)


def software(host: Host, digest: str) -> list[dict[str, Any]]:
    """Return the software of an image, sorted: type (deb, rpm, pypi), name, version, licenses.

    Packages also have arch, source, by, vendor and distro; distributions have path. Raises `verify.Damaged` where the
    metadata of the image was changed, and CommandExecutionError where its database of rpm cannot be read.
    """
    stack = tuple(map(overlay.short, verify.definition(host, digest)["layers"]))

    find = partial(overlay.top_file, host.l, stack)

    def read(path: str) -> str:
        file = find(path)
        return file.read_text(errors="replace") if file else ""

    metadata = filter(_PYTHON.search, compare.visible_files(host, digest))
    packaged = list(_packages(read) if find(_STATUS) else _of_rpm(read, find))
    found = [*packaged, *(each for path in metadata for each in distribution(read(path), path))]
    return sorted(found, key=lambda each: (each["type"], each["name"], each["version"], each.get("path", "")))


# Debian


def _packages(read: Callable[[str], str]) -> Iterator[dict[str, Any]]:
    known = _distribution(read, "debian")
    for package in packages(read(_STATUS)):
        yield {**package, **known, "licenses": licenses(read(_COPYRIGHT.format(package["name"])))}


def _distribution(read: Callable[[str], str], otherwise: str) -> dict[str, str]:
    """Return vendor and distro, as package URLs name them."""
    release = dict(_NAMED.findall(next(filter(None, map(read, _RELEASE)), "")))
    vendor = release.get("ID", otherwise)
    return {"vendor": vendor, "distro": f"{vendor}-{release['VERSION_ID']}" if "VERSION_ID" in release else vendor}


def packages(status: str) -> Iterator[dict[str, Any]]:
    """Yield the packages that dpkg's status file lists as installed."""
    for stanza in status.split("\n\n"):
        fields = dict(_FIELDS.findall(stanza))
        if fields.get("Status", "").endswith(" installed"):
            named = {"type": "deb", "name": fields["Package"], "version": fields["Version"]}
            source = fields.get("Source", fields["Package"])
            yield {**named, "arch": fields["Architecture"], "source": source, "by": fields.get("Maintainer", "")}


def licenses(copyright_: str) -> list[str]:
    """Return the short names of licenses in a machine-readable copyright file (DEP-5), [] for a file in prose."""
    if not copyright_.lstrip().startswith("Format:"):
        return []
    return sorted(set(_LICENSE.findall(copyright_)))


# RPM


def _of_rpm(read: Callable[[str], str], find: rpm.Find) -> Iterator[dict[str, Any]]:
    known = _distribution(read, "rpm")
    for package in rpm.packages(find):
        named = {"type": "rpm", **{what: package[what] for what in ("name", "version", "arch", "source")}}
        licenses_ = [package["license"]] if package["license"] else []
        yield {**named, "by": package["vendor"], **known, "licenses": licenses_}


# Python


def distribution(metadata: str, path: str) -> Iterator[dict[str, Any]]:
    """Yield the distribution that a METADATA file describes, if it has name and version. ``path``: of that file."""
    fields = email.message_from_string(metadata)
    if fields["Name"] and fields["Version"]:
        name = re.sub(r"[-_.]+", "-", fields["Name"]).lower()
        found = {"type": "pypi", "name": name, "version": fields["Version"]}
        yield {**found, "path": f"/{PurePosixPath(path).parent.parent}", "licenses": _licenses(fields)}


def _licenses(fields: Message) -> list[str]:
    """Return the licenses of a distribution: its expression or name, or else its classifiers."""
    license_ = str(fields["License-Expression"] or fields["License"] or "").strip()
    if license_ and license_ != "UNKNOWN" and "\n" not in license_:  # some have the whole text of the license there
        return [license_]
    classified = [each for each in fields.get_all("Classifier", []) if each.startswith("License ::")]
    return sorted({each.rpartition(" :: ")[2] for each in classified})

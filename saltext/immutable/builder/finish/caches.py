"""What package managers, debconf and man keep for their next call, as globs below a layer's tree."""

from __future__ import annotations

_OF_RPM = ("var/cache/dnf/*", "var/cache/libdnf5/*", "var/cache/yum/*", "var/cache/zypp/*")
CACHES = (
    "var/backups/*",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb",
    "var/cache/debconf/*-old",
    "var/cache/man/*",
    "var/lib/dpkg/*-old",
    *_OF_RPM,
)
"""Removed by `slim`, which counts them for its report."""
PACKAGE_LISTS = ("var/lib/apt/lists/*",)
"""Removed and counted by `slim`: what ``apt update`` downloads."""
OF_ONE_BAKE = ("var/cache/apt/*.bin", "var/cache/apt/archives/*", "var/cache/debconf/*-old", *_OF_RPM, *PACKAGE_LISTS)
"""Removed by `scrub` also where a recipe is not slimmed: they differ from bake to bake."""

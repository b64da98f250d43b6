"""Tar archives and disks from a URL, kept in the builder's cache under their sha256."""

from __future__ import annotations

import hashlib
import os
import ssl
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors
from saltext.immutable.host import Host, sync_directory
from saltext.immutable.images import manifest

CACHE = "tarballs"
"""Folder of the cache, and name of its lock."""
_CHUNK = 1 << 20
_TIMEOUT = 60.0
"""Seconds to wait for the next bytes of a server."""


def is_url(location: str) -> bool:
    """Return whether a location is a URL and not a path."""
    return "://" in location


def fetched(host: Host, workspace: Path, location: str, order: Mapping[str, Any]) -> Path:
    """Return the file at a location: a path as it is, a URL from the cache or fetched into it.

    ``order``: sha256, offline. Raises CommandExecutionError where the file cannot be fetched, has another sha256, or
    may not be fetched.
    """
    if not is_url(location):
        return Path(location)
    cached: Path = host.cache / CACHE / order["sha256"]
    cached.parent.mkdir(exist_ok=True)
    with host.lock(f"cache-{CACHE}", wait=1800):
        if cached.is_file() and manifest.sha256(str(cached)) != order["sha256"]:
            cached.unlink()  # damaged: fetch it again
        if not cached.is_file() and order.get("offline"):
            raise CommandExecutionError(
                f"{location} with the sha256 {order['sha256']} is not in the cache; bake once with cache=use"
            )
        if not cached.is_file():
            _fetch(location, workspace / "archive", order["sha256"]).rename(cached)
            sync_directory(cached.parent)
    return cached


def require_content(file: Path, found: str, expected: str) -> None:
    """Raise CommandExecutionError where a file has another sha256 than expected."""
    if found != expected:
        raise CommandExecutionError(
            f"{file} has the sha256 {found}, and {expected} is expected; check the file, then set from:sha256 in the "
            "recipe or leave it out"
        )


def version(file: Path) -> tuple[int, ...]:
    """Return what changes when a file is written."""
    info = file.stat()
    return (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _fetch(url: str, file: Path, sha256: str) -> Path:
    """Write the content of a URL to ``file``; raise unless it has that sha256."""
    digest = hashlib.sha256()
    try:
        with _open(url) as response, file.open("wb") as stream:
            while chunk := response.read(_CHUNK):
                digest.update(chunk)
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
    except (OSError, URLError, ValueError) as err:
        raise CommandExecutionError(
            f"{url} could not be fetched: {err}; let the builder reach it, or correct the URL"
        ) from err
    if digest.hexdigest() != sha256:
        raise CommandExecutionError(
            f"{url} has the sha256 {digest.hexdigest()}, and the recipe says {sha256}; check the file, then set "
            "from:sha256 in the recipe"
        )
    return file


def _open(url: str) -> Any:
    """Open a URL with this host's CA bundle and its proxies, which urllib takes from the environment."""
    bundle = mirrors.ca_bundle()
    context = ssl.create_default_context(cafile=str(bundle) if bundle else None)
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context)).open(url, timeout=_TIMEOUT)

"""Tar archives from a URL, kept in the builder's cache under their sha256."""

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


def archive(host: Host, workspace: Path, order: Mapping[str, Any]) -> Path:
    """Return the file of ``order['tarball']``: a path as it is, a URL from the cache or fetched into it.

    ``order``: tarball, sha256, offline. Raises CommandExecutionError where the archive cannot be fetched, has another
    sha256, or may not be fetched.
    """
    if not is_url(order["tarball"]):
        return Path(order["tarball"])
    cached: Path = host.cache / CACHE / order["sha256"]
    cached.parent.mkdir(exist_ok=True)
    with host.lock(f"cache-{CACHE}", wait=1800):
        if cached.is_file() and manifest.sha256(str(cached)) != order["sha256"]:
            cached.unlink()  # damaged: fetch it again
        if not cached.is_file() and order.get("offline"):
            raise CommandExecutionError(
                f"{order['tarball']} with the sha256 {order['sha256']} is not in the cache; bake once with cache=use"
            )
        if not cached.is_file():
            _fetch(order["tarball"], workspace / "archive", order["sha256"]).rename(cached)
            sync_directory(cached.parent)
    return cached


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
            f"{url} could not be fetched: {err}; let the builder reach it, or correct from:tarball"
        ) from err
    if digest.hexdigest() != sha256:
        raise CommandExecutionError(
            f"{url} has the sha256 {digest.hexdigest()}, and the recipe says {sha256}; check the archive, then set "
            "from:sha256 in the recipe"
        )
    return file


def _open(url: str) -> Any:
    """Open a URL with this host's CA bundle and its proxies, which urllib takes from the environment."""
    bundle = mirrors.ca_bundle()
    context = ssl.create_default_context(cafile=str(bundle) if bundle else None)
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context)).open(url, timeout=_TIMEOUT)

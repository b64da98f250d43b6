"""Archives that are fetched from elsewhere: kept on the builder under their hash, which is looked at first."""

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
_CHUNK = 1 << 20
_SILENCE = 60.0
"""Seconds that a server may say nothing."""


def remote(location: str) -> bool:
    """Tell whether it is a URL, not a path."""
    return "://" in location


def archive(host: Host, workspace: Path, order: Mapping[str, Any]) -> Path:
    """Return the file of ``order['tarball']``; what a URL gives is kept under the hash ``order['sha256']``."""
    if not remote(order["tarball"]):
        return Path(order["tarball"])
    kept: Path = host.cache / CACHE / order["sha256"]
    kept.parent.mkdir(exist_ok=True)
    with host.lock(f"cache-{CACHE}", wait=1800):
        if kept.is_file() and manifest.sha256(str(kept)) != order["sha256"]:
            kept.unlink()  # it was damaged here: what the recipe names may be there still
        if not kept.is_file() and order.get("offline"):
            raise CommandExecutionError(f"{order['tarball']} with the sha256 {order['sha256']} is not in the cache")
        if not kept.is_file():
            _keep(_fetched(order["tarball"], workspace / "archive", order["sha256"]), kept)
    return kept


def _keep(file: Path, kept: Path) -> None:
    file.rename(kept)
    sync_directory(kept.parent)


def _fetched(url: str, file: Path, sha256: str) -> Path:
    digest = hashlib.sha256()
    try:
        with _opened(url) as answer, file.open("wb") as stream:
            while chunk := answer.read(_CHUNK):
                digest.update(chunk)
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
    except (OSError, URLError, ValueError) as err:
        raise CommandExecutionError(f"{url} could not be fetched: {err}") from err
    if digest.hexdigest() != sha256:
        raise CommandExecutionError(
            f"{url} has the sha256 {digest.hexdigest()}, not {sha256} as the recipe says; nothing is made of it"
        )
    return file


def _opened(url: str) -> Any:
    """Ask as this host does: by its proxies, which urllib takes from the environment, and its CA bundle."""
    bundle = mirrors.ca_bundle()
    trust = ssl.create_default_context(cafile=str(bundle) if bundle else None)
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust)).open(url, timeout=_SILENCE)

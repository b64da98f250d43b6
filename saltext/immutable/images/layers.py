"""The layers of this host: found by key, committed by digest, never overwritten."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import Host, run, sync_directory, write
from saltext.immutable.images import manifest, times, verify
from saltext.immutable.machines import images, machine, overlay


@dataclass(frozen=True)
class Layer:
    """One committed layer."""

    digest: str
    what: str
    """``debian bookworm``, ``minion``, ``states of web``."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Debian packages of the whole stack up to here, name:arch -> version."""
    grains: Mapping[str, Any] = field(default_factory=dict)
    """Grains that pillar may depend on, as a minion of this stack has them; empty below the minion layer."""
    unproven: Sequence[str] = ()
    """Sentences about what it was made from that no key can see."""
    sls: Sequence[str] | None = None
    """Names of the SLS that made it; None: other layers, and those of the time before this was written down."""
    tests: Sequence[Mapping[str, Any]] = ()
    """What came of the tests inside."""
    files: int = 0
    size: int = 0
    """Bytes."""
    created: float = 0.0
    seconds: float = 0.0
    """How long it took to build."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each phase of that."""
    slim: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Files and bytes that were taken out of it, by category."""
    private_keys: Sequence[str] = ()
    """Its files that hold one."""
    warnings: Sequence[str] = field(default_factory=list)
    """What whoever used this key should know. It depends on more than the content: the same layer may have others."""


def find(host: Host, key: str) -> Layer | None:
    """Return the layer that ``key`` led to last, if it is still there; what cannot be read leads nowhere."""
    try:
        digest, *known = (host.keys / key).read_text().splitlines()
        told = list(map(json.loads, known))
        about = next((each for each in told if isinstance(each, dict)), {})
        said: Any = {**about, "warnings": [each for each in told if isinstance(each, str)]}
        return replace(load(host, digest), **said)
    except (FileNotFoundError, TypeError, ValueError):
        return None


def load(host: Host, digest: str) -> Layer:
    """Return a layer of this host; what is said of it has a sum of its own, as its digest covers only its files."""
    try:
        about = json.loads((host.layers / digest / "layer.json").read_text())
        if about.pop("sum", None) not in (None, manifest.digest(about)):
            raise ValueError("its sum is another one")
        return Layer(**about)
    except (AttributeError, TypeError, ValueError) as err:
        raise verify.damaged_layer(host, digest, f"layer.json cannot be read: {err}") from err


def commit(host: Host, workspace: Path, **about: Any) -> Layer:
    """Make ``workspace``/fs a layer under its digest.

    The order is the promise: content on disk, then the name; what a crash leaves is either no layer, or a whole one.
    """
    tree = workspace / "fs"
    since = (workspace / "lock").stat().st_mtime  # when the work began
    lines = manifest.as_lines(times.settle(tree, manifest.entries(tree), since))
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    if not (host.layers / digest).exists():
        staged = workspace / "layer"
        staged.mkdir()
        size = sum(json.loads(line).get("size", 0) for line in lines)
        layer = Layer(digest=digest, files=len(lines), size=size, created=time.time(), **about)
        (staged / "manifest.gz").write_bytes(gzip.compress("".join(lines).encode(), 6, mtime=0))
        about_ = asdict(layer)
        (staged / "layer.json").write_text(json.dumps({**about_, "sum": manifest.digest(about_)}))
        tree.rename(staged / "fs")
        run(["sync", "--file-system", staged])
        staged.rename(host.layers / digest)
        sync_directory(host.layers)
        paths = [json.loads(line)["path"] for line in lines]
        verify.note(host, digest, verify.print_of(host, digest, paths))
    link(host, overlay.short(digest), f"../layers/{digest}/fs")
    return replace(load(host, digest), **about)  # the layer may be there since it was made above others


def keep(
    host: Host, key: str, digest: str, warnings: Sequence[str] = (), about: Mapping[str, Any] | None = None
) -> None:
    """Let ``key`` lead to a layer; it is given when nobody doubts any more what the layer was made from.

    ``about``: what depends on the layers below, too, so that the same layer may have another one under another key.
    """
    write(host.keys / key, "\n".join([digest, *map(json.dumps, [*([about] if about else []), *warnings])]))


def link(host: Host, name: str, target: str) -> str:
    """Make a short name for a layer; it may be there already."""
    place = host.l / name
    if not place.is_symlink():
        place.symlink_to(target)
    elif os.readlink(place) != target:
        raise CommandExecutionError(f"{place} leads to {os.readlink(place)}, not to {target}: two digests begin alike")
    return name


def lower(digests: list[str]) -> tuple[str, ...]:
    """Return the short names to mount these layers by."""
    return tuple(overlay.short(digest) for digest in digests)


def needed(host: Host, but_images: Sequence[str] = ()) -> set[str]:
    """Return the short names that an image (other than these), a machine or a mount of this host needs."""
    names = {name for each in machine.machines(host) for name in each.lower} | overlay.mounted()
    for digest, image in images.by_digest(host).items():
        names.update(() if digest in but_images else lower(image["layers"]))
    return names


def drop(host: Host, digests: list[str]) -> list[str]:
    """Remove those of these layers that nothing needs any more, and return them."""
    with host.lock("layers"):
        kept = needed(host)
        gone = [digest for digest in digests if overlay.short(digest) not in kept]
        set_aside(host, gone)
    host.remove_discarded()  # it may take long, and machines wait for the lock
    return gone


def set_aside(host: Host, digests: Sequence[str]) -> None:
    """Take layers away, to be removed later. Keys go first: what a kill leaves is then found by nobody."""
    for key in host.keys.iterdir():
        if key.read_text().partition("\n")[0] in digests:
            key.unlink()
    for digest in reversed(digests):
        (host.l / overlay.short(digest)).unlink(missing_ok=True)
        host.set_aside(host.layers / digest)


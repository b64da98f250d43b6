"""The layers of this host: looked up by key, stored by digest, never overwritten."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.host import Host, run, sync_directory, write
from saltext.immutable.images import manifest, times, verify, verity
from saltext.immutable.machines import damaged_images, images, machine, overlay


@dataclass(frozen=True)
class Layer:
    """A committed layer."""

    digest: str
    what: str
    """``debian bookworm``, ``minion salt==3008.3``, ``states of web``."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Packages of the stack up to this layer, of dpkg or rpm: name:arch -> version."""
    grains: Mapping[str, Any] = field(default_factory=dict)
    """Grains of a minion of this stack, for pillars that depend on them; empty below the minion layer."""
    unproven: Sequence[str] = ()
    """Sentences about what no key can see."""
    sls: Sequence[str] | None = None
    """Names of the SLS that were applied; None for other layers, and for layers of older versions."""
    tests: Sequence[Mapping[str, Any]] = ()
    """Results of the inside tests."""
    files: int = 0
    size: int = 0
    """Bytes."""
    created: float = 0.0
    """Epoch seconds."""
    seconds: float = 0.0
    """Duration of the build."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each phase of the build."""
    slim: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Files and bytes that were removed from it, by category."""
    private_keys: Sequence[str] = ()
    """Its files that hold a private key."""
    deferred: Sequence[Mapping[str, str]] = ()
    """What its states left to the boot of a machine: ``state``, ``what`` and ``applied_by``."""
    restless: Sequence[str] = ()
    """The states that would change something each time they are applied, if the recipe asks for them."""
    services: Mapping[str, bool] = field(default_factory=dict)
    """The units that its states declare running (True) or dead."""
    git: Sequence[Mapping[str, Any]] = ()
    """The commits of which its states were made: of (states or pillar), url, ref, commit, pinned."""
    warnings: Sequence[str] = field(default_factory=list)
    """Sentences for the operator. They depend on the key: the same layer may have others under another key."""
    damaged: str = ""
    """What was wrong with the layers that this one takes the place of, '' where there was none."""
    differs_from: Sequence[str] = ()
    """Digests of those of them that had another content: no image that has them can be used any more."""


_KNOWN = frozenset(each.name for each in fields(Layer))
"""A layer of a later version may have more in its metadata."""
OF_DAMAGE = ("damaged", "differs_from", "unusable")
"""What the bake reports, and none after it, that built a layer in place of a damaged one; ``unusable``: images."""
_DIGEST = re.compile("[0-9a-f]{64}")


def find(host: Host, key: str) -> Layer | None:
    """Return the layer that was built last for ``key``, or None, also where the key or the layer cannot be read."""
    try:
        digest, *lines = (host.keys / key).read_text().splitlines()
        values = list(map(json.loads, lines))
        about = next((value for value in values if isinstance(value, dict)), {})
        changes: Any = {**about, "warnings": [value for value in values if isinstance(value, str)]}
        return replace(load(host, digest), **changes)
    except (FileNotFoundError, TypeError, ValueError):
        return None


def load(host: Host, digest: str) -> Layer:
    """Return a layer of this host. Its metadata has a checksum of its own, because the digest covers only its files.

    Raises `verify.Damaged` where that is wrong.
    """
    try:
        about = json.loads((host.layers / digest / "layer.json").read_text())
        if about.pop("sum", None) not in (None, manifest.digest(about)):
            raise ValueError("its checksum is wrong")
        return Layer(**{name: about[name] for name in _KNOWN.intersection(about)})
    except FileNotFoundError:
        raise
    except (AttributeError, OSError, TypeError, ValueError) as err:
        raise verify.damaged_layer(host, digest, f"layer.json cannot be read: {err}") from err


def digest_of(host: Host, key: str) -> str | None:
    """Return the digest of the layer that was built last for ``key``, sound or not; None where it is not here."""
    try:
        digest = (host.keys / key).read_text().partition("\n")[0]
    except (FileNotFoundError, ValueError):
        return None
    return digest if _DIGEST.fullmatch(digest) and (host.layers / digest).exists() else None


def damage(host: Host, digest: str) -> str | None:
    """Return what is wrong with a layer of this host, or None."""
    if not (host.layers / digest / "layer.json").exists():
        return str(verify.damaged_layer(host, digest, "layer.json is missing"))
    try:
        verify.require_layers(host, [digest])
        load(host, digest)
    except verify.Damaged as err:
        return str(err)
    return None


def _clear(host: Host, digests: Iterable[str]) -> dict[str, str]:
    """Set aside those of these layers that are damaged; return what is wrong with each.

    Machines that run on them go on: the files stay until none of them is there any more.
    """
    here = [digest for digest in digests if (host.layers / digest).exists()]
    wrong = {digest: found for digest in here if (found := damage(host, digest))}
    with host.lock("layers"):
        for digest in wrong:
            damaged_images.set_aside(host, host.layers / digest)
    return wrong


def commit(host: Host, workspace: Path, instead_of: Sequence[str] = (), **about: Any) -> Layer:
    """Store ``workspace``/fs as a layer under its digest. ``about``: its metadata.

    ``instead_of``: digests of the damaged layers that this one is built in place of. They are set aside, whether or not
    it has their content.

    The content is on the disk before the layer gets its name, so a crash leaves either no layer or a complete one.
    """
    tree = workspace / "fs"
    since = (workspace / "lock").stat().st_mtime  # the start of the work
    lines = manifest.as_lines(times.clamp(tree, manifest.entries(tree), since))
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    damaged = _clear(host, dict.fromkeys([digest, *instead_of]))
    if not (host.layers / digest).exists():
        staged = workspace / "layer"
        staged.mkdir()
        size = sum(json.loads(line).get("size", 0) for line in lines)
        layer = Layer(digest=digest, files=len(lines), size=size, created=time.time(), **about)
        (staged / "manifest.gz").write_bytes(gzip.compress("".join(lines).encode(), 6, mtime=0))
        metadata = asdict(layer)
        (staged / "layer.json").write_text(json.dumps({**metadata, "sum": manifest.digest(metadata)}))
        tree.rename(staged / "fs")
        verity.enable(staged)
        run(["sync", "--file-system", staged])
        staged.rename(host.layers / digest)
        sync_directory(host.layers)
        verify.mark_verified(host, digest, verify.fingerprint(host, digest), time.time())
    make_link(host, overlay.short(digest), images.layer_target(digest))
    about["damaged"] = "; ".join(damaged.values())
    about["differs_from"] = [each for each in damaged if each != digest]
    return replace(load(host, digest), **about)  # a layer that existed may have been built on another stack


def set_key(
    host: Host, key: str, digest: str, warnings: Sequence[str] = (), about: Mapping[str, Any] | None = None
) -> None:
    """Record that ``key`` leads to a layer. Called when it is certain what the layer was made from.

    ``about``: metadata that depends on the layers below, and may differ under another key.
    """
    write(host.keys / key, "\n".join([digest, *map(json.dumps, [*([about] if about else []), *warnings])]))


def make_link(host: Host, name: str, target: str) -> None:
    """Make the short link of a layer or a seal, also in place of what is there and leads elsewhere.

    Raises CommandExecutionError where the short name is that of another one, too.
    """
    link, found = host.l / name, images.leads_to(host, name)
    if found == target:
        return
    own, other = (Path(path).parent.name for path in (target, found or ""))
    if overlay.short(own) == overlay.short(other) and found == target.replace(own, other) and link.exists():
        raise CommandExecutionError(
            f"{link} leads to {found}, not to {target}: two digests have the same first 16 digits; "
            "change one of the two recipes, and bake again"
        )
    if found is None:
        host.take_away(link)
    new = link.with_name(f".{name}.{secrets.token_hex(4)}")
    new.symlink_to(target)
    new.replace(link)


def mend_links(host: Host) -> None:
    """Make the short links of all layers and images of this host that are missing or lead elsewhere."""
    with host.lock("layers"):  # so that none is removed meanwhile
        layers, seals = ([folder.name for folder in place.iterdir()] for place in (host.layers, host.images))
        links = [(overlay.short(digest), images.layer_target(digest)) for digest in layers]
        links += [(overlay.seal_name(digest), images.seal_target(digest)) for digest in seals]
        for name, target in links:
            with suppress(CommandExecutionError):  # of two with one name, the first keeps it
                make_link(host, name, target)


def short_names(digests: list[str]) -> tuple[str, ...]:
    """Return the short names by which these layers are mounted."""
    return tuple(overlay.short(digest) for digest in digests)


def needed(host: Host, but_images: Sequence[str] = ()) -> set[str]:
    """Return the short names of the layers that an image, a machine or a mount of this host needs.

    ``but_images``: digests of images that do not count. An image that cannot be read may need every layer.
    """
    names = {name for each in machine.machines(host) for name in each.lower} | overlay.mounted()
    known = images.by_digest(host)
    for digest in {file.parent.name for file in host.images.glob("*/image.json")}.difference(but_images):
        stack = known[digest]["layers"] if digest in known else [folder.name for folder in host.layers.iterdir()]
        names.update(short_names(stack))
    return names


def drop(host: Host, digests: list[str]) -> list[str]:
    """Remove those of these layers that nothing needs, and return them."""
    with host.lock("layers"):
        kept = needed(host)
        unneeded = [digest for digest in digests if overlay.short(digest) not in kept]
        take_away(host, unneeded)
    host.remove_discarded()  # outside of the lock, for which machines wait, because it may take long
    return unneeded


def take_away(host: Host, digests: Sequence[str]) -> None:
    """Take layers away; `Host.remove_discarded` deletes them.

    Their keys go first, so a kill leaves no key without a layer.
    """
    for key in host.keys.iterdir():
        if key.read_text().partition("\n")[0] in digests:
            key.unlink()
    for digest in reversed(digests):
        (host.l / overlay.short(digest)).unlink(missing_ok=True)
        host.take_away(host.layers / digest)


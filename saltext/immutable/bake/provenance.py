"""Where an image comes from, as SLSA writes it down: what it was made of, by whom, where and when; and who vouches."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError

from saltext.immutable.images import manifest, sign, verify
from saltext.immutable.spec.model import Settings
from saltext.immutable.store import Image, Store
from saltext.immutable.store.schema import proofs

_PREDICATE = "https://slsa.dev/provenance/v1"
_PASSWORD = re.compile(r"//[^/@\s]+@")
_BUILD = "urn:saltext-immutable:bake:1"


def document(name: str, digest: str, layers: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance of an image: an in-toto statement with the predicate of SLSA 1.0.

    ``layers``: digest, what, created, seconds, cached, and inputs: what each was made from. ``run``: recipe, grains,
    policy, refresh, builder, versions, who, started, finished.
    """
    definition = {
        "buildType": _BUILD,
        "externalParameters": {what: _told(run[what]) for what in ("recipe", "grains", "policy", "refresh")},
        "resolvedDependencies": [_dependency(layer) for layer in layers],
    }
    details = {
        "builder": {"id": f"urn:saltext-immutable:builder:{run['builder']}", "version": dict(run["versions"])},
        "metadata": {"startedOn": _time(run["started"]), "finishedOn": _time(run["finished"])},
        "byproducts": [{"name": "who", "annotations": {"user": run["who"]}}],
    }
    return {
        "_type": sign.STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}}],
        "predicateType": _PREDICATE,
        "predicate": {"buildDefinition": definition, "runDetails": details},
    }


def _told(data: Any) -> Any:
    """Return data as JSON can hold it, without the passwords that addresses of mirrors may have."""
    if isinstance(data, Mapping):
        return {str(name): _told(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_told(value) for value in data]
    if isinstance(data, str):
        return _PASSWORD.sub("//...@", data)
    return data if data is None or isinstance(data, int | float) else repr(data)


def _dependency(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return one layer: what it is, and what it was made from. Of secrets there are keyed hashes only."""
    about = {"created": _time(layer["created"]), "seconds": round(layer["seconds"], 3), "from": _told(layer["inputs"])}
    return {
        "name": layer["what"],
        "digest": {"sha256": layer["digest"]},
        "annotations": {**about, "cached": layer["cached"]},
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


# Who vouches


def vouch(
    builder: Callable[..., Any],
    store: Store,
    settings: Settings,
    image: Image,
    made: Mapping[str, Any],
    provenance: Mapping[str, Any] | None,
) -> None:
    """Sign an image that the builder made, unless that was done; a signature that does not fit is never replaced."""
    trusted = sign.trusted(settings)
    found = made["proof"]
    if found is None:
        order = {"order": manifest.of_image(made), "created": image.created}
        said = verify.statement(image.name, image.digest, made["above"], provenance, order)
        found = {"signature": sign.sign(said, sign.key(settings)), "provenance": provenance}
        sign.keep_public(settings)
        builder("keep_proof", digest=image.digest, proof=found)
        trusted = sign.trusted(settings)  # the key may be a minute old
    verify.require_signed(image.digest, found, made["above"], trusted)
    keep(store, image.digest, found)


def keep(store: Store, digest: str, proof: Mapping[str, Any]) -> None:
    """Write down what vouches for an image."""
    with store.write() as tx:
        tx.execute(sa.delete(proofs).where(proofs.c.digest == digest))
        tx.execute(sa.insert(proofs).values(digest=digest, **proof))


def find(store: Store, image: Image, trusted: Sequence[str]) -> dict[str, Any]:
    """Return the provenance of an image, if it is the one that was signed."""
    found = require(store, image, trusted)
    if found is None:
        raise CommandExecutionError(
            f"where {image.name} comes from was not written down: it was signed by hand; delete it and bake it again"
        )
    return found


def require(store: Store, image: Image, trusted: Sequence[str]) -> dict[str, Any] | None:
    """Return the provenance of an image, which may be none; raise unless it is signed."""
    with store.read() as connection:
        row = connection.execute(sa.select(proofs).where(proofs.c.digest == image.digest)).mappings().first()
    if row is None:
        raise CommandExecutionError(
            f"{image.name} is not signed: it was baked before images were; bake its recipe again, or if you know that "
            f"it is as it was baked, salt-run image.sign {image.name}"
        )
    verify.vouched(image.digest, dict(row), trusted)
    return None if row["provenance"] is None else dict(row["provenance"])

"""Sign images, and read back their signatures and their provenance, which the store keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError

from saltext.immutable.images import manifest, sign, verify
from saltext.immutable.spec.model import Settings
from saltext.immutable.store import Image, Store
from saltext.immutable.store.schema import proofs


def sign_image(
    builder: Callable[..., Any],
    store: Store,
    settings: Settings,
    image: Image,
    made: Mapping[str, Any],
    document: Mapping[str, Any] | None,
) -> None:
    """Sign an image that the builder made, unless that was done; a signature that does not fit is never replaced."""
    trusted = sign.trusted(settings)
    found = made["proof"]
    if found is None:
        order = {"order": manifest.of_image(made), "created": image.created}
        said = verify.statement(image.name, image.digest, made["above"], document, order)
        found = {"signature": sign.sign(said, sign.key(settings)), "provenance": document}
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


def provenance(store: Store, image: Image, trusted: Sequence[str]) -> dict[str, Any]:
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

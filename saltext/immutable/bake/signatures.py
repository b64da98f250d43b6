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
    """Sign an image that the builder made, and keep signature and provenance in the store and on the builder.

    ``made``: the builder's answer; if it has a proof, that is checked and kept. ``document``: the provenance; None if
    nobody knows it. Raises CommandExecutionError where the signature is not that of this image, or not trusted: it is
    never replaced.
    """
    trusted = sign.trusted(settings)
    proof = made["proof"]
    if proof is None:
        order = {"order": manifest.image_definition(made), "created": image.created}
        statement = verify.statement(image.name, image.digest, made["above"], document, order)
        proof = {"signature": sign.sign(statement, sign.key(settings)), "provenance": document}
        sign.write_public(settings)
        builder("keep_proof", digest=image.digest, proof=proof)
        trusted = sign.trusted(settings)  # the key may be a minute old
    verify.require_signed(image.digest, proof, made["above"], trusted)
    keep(store, image.digest, proof)


def keep(store: Store, digest: str, proof: Mapping[str, Any]) -> None:
    """Keep the signature and the provenance of an image in the store."""
    with store.write() as tx:
        tx.execute(sa.delete(proofs).where(proofs.c.digest == digest))
        tx.execute(sa.insert(proofs).values(digest=digest, **proof))


def provenance(store: Store, image: Image, trusted: Sequence[str]) -> dict[str, Any]:
    """Return the provenance of an image.

    Raises CommandExecutionError where there is none, or it is not the one that was signed.
    """
    found = require(store, image, trusted)
    if found is None:
        raise CommandExecutionError(
            f"the provenance of {image.name} is not known: the image was signed by hand; delete it and bake it again"
        )
    return found


def require(store: Store, image: Image, trusted: Sequence[str]) -> dict[str, Any] | None:
    """Return the provenance of a signed image; None if it was signed by hand.

    Raises CommandExecutionError where the image is not signed by a key that is trusted.
    """
    with store.read() as connection:
        row = connection.execute(sa.select(proofs).where(proofs.c.digest == image.digest)).mappings().first()
    if row is None:
        raise CommandExecutionError(
            f"{image.name} is not signed: it was baked before images were signed. Bake its recipe again, or if you "
            f"know that it was not changed since, salt-run image.sign {image.name}"
        )
    verify.signed_predicate(image.digest, dict(row), trusted)
    return None if row["provenance"] is None else dict(row["provenance"])

"""Images that the builder has and the store does not know, for ``fleet.adopt_store``: read, verified, written back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable.bake import image_tests, signatures
from saltext.immutable.images import manifest, verify
from saltext.immutable.spec.model import Definitions
from saltext.immutable.store import Image, Store
from saltext.immutable.text import plain

UNTESTED = (
    "the results of its tests are lost, and no machine runs it: no channel names it before `salt-run image.bake` tests "
    "it again, or `salt-run image.promote` names it"
)


@dataclass(frozen=True)
class Builder:
    """The builder, and the public keys (base64) whose signatures count."""

    call: Callable[..., Any]
    trusted: Sequence[str]


@dataclass(frozen=True)
class Found:
    """What a builder has that the store does not know."""

    images: tuple[Image, ...] = ()
    proofs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Digest to signature and provenance."""
    left_out: tuple[tuple[str, str, str], ...] = ()
    """Digest, name and reason of images that do not verify."""


def read(builder: Builder, known: Collection[str], recipes: Collection[str] | None) -> Found:
    """Return the images of a builder that are not ``known``, verified as for a launch; None: those of all recipes.

    Raises ``CommandExecutionError`` if the builder does not answer.
    """
    images, proofs, left_out = list[Image](), dict[str, Mapping[str, Any]](), list[tuple[str, str, str]]()
    for digest, about in sorted(builder.call("local_images").items()):
        recipe = str(about.get("recipe", "?"))
        if digest in known or (recipes is not None and recipe not in recipes):
            continue
        try:
            image, proof = _verified(builder, digest)
        except CommandExecutionError as err:
            left_out.append((digest, f"{recipe}@{digest[:12]}", plain(str(err))))
        else:
            images.append(image)
            proofs[digest] = proof
    return Found(tuple(images), proofs, tuple(left_out))


def _verified(builder: Builder, digest: str) -> tuple[Image, Mapping[str, Any]]:
    """Return an image with its proof. The master verifies the signature by itself, the builder the files."""
    builder.call("require_image", digest=digest, trusted=list(builder.trusted))
    made = builder.call("find_image", digest=digest)
    if manifest.image_digest(made) != digest or made["proof"] is None:
        raise CommandExecutionError(f"image {digest[:12]} is not what its digest says, or is not signed")
    verify.require_signed(digest, made["proof"], made["above"], builder.trusted)
    created = verify.signed_predicate(digest, made["proof"], builder.trusted).get("created", made["created"])
    image = Image(digest, made["recipe"], tuple(made["layers"]), created, made["read_only"], _report(made))
    return image, made["proof"]


def _report(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known again of a bake: the rest of its report was in the store alone."""
    provenance = made["proof"]["provenance"] or {"predicate": {"buildDefinition": {"resolvedDependencies": []}}}
    layers = [
        {"what": one["name"], "digest": one["digest"]["sha256"], "seconds": one["annotations"]["seconds"]}
        for one in provenance["predicate"]["buildDefinition"]["resolvedDependencies"]
        if "sha256" in one["digest"]  # those with another kind are commits
    ]
    known = {name: made[name] for name in ("policy", "salt", "pack") if name in made}
    return {"layers": layers, "warnings": list(made.get("warnings", [])), **known}


def write(store: Store, found: Found) -> None:
    """Write images with their proofs."""
    for image in found.images:
        store.add_image(image)
        signatures.keep(store, image.digest, found.proofs[image.digest])


def good(store: Store, definitions: Definitions, images: Sequence[Image], running: Collection[str]) -> list[Image]:
    """Return those of the images that may be rolled, the newest first.

    These are images that passed their tests as the store says, that machines run (``running``: digests), or whose
    recipe has no tests of its images. (A test inside the bake that fails ends it, without an image.)
    """
    bad = store.revoked()
    untested = {name for name, recipe in definitions.recipes.items() if not recipe.tests.of_image}

    def may_be_rolled(image: Image) -> bool:
        proven = image.digest in running or image.recipe in untested
        return image.digest not in bad and (proven or image_tests.of_image(store, image.digest) is not None)

    return sorted(filter(may_be_rolled, images), key=lambda one: (-one.created, one.digest))


def described(found: Found, usable: Sequence[Image]) -> Iterator[dict[str, Any]]:
    """Yield what is done with each image: digest, image (its name), written, and reason."""
    rollable = {one.digest for one in usable}
    for image in found.images:
        reason = "" if image.digest in rollable else UNTESTED
        yield {"digest": image.digest, "image": image.name, "written": True, "reason": reason}
    for digest, name, reason in found.left_out:
        yield {"digest": digest, "image": name, "written": False, "reason": reason}

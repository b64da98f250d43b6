"""Refuse to bake what was revoked, or what stands on it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from salt.exceptions import CommandExecutionError

from saltext.immutable.store import Image
from saltext.immutable.store.revocations import Failure, Revocation


def require_sound(
    recipe: str, stack: Sequence[str], images: Sequence[Image], revoked: Mapping[str, Revocation]
) -> None:
    """Raise CommandExecutionError where the layers of a bake begin with a revoked image of another recipe."""
    for image in images:
        begins = image.layers == tuple(stack[: len(image.layers)])
        if image.digest in revoked and image.recipe != recipe and begins:
            undo = f"image.unrevoke {image.name} reason=..."
            if isinstance(revoked[image.digest], Failure):
                undo = f"image.bake {image.recipe}, which tests it again"
            raise CommandExecutionError(
                f"{recipe} would be built on {revoked[image.digest]}; change what {image.recipe} is made from, "
                f"or `salt-run {undo}`"
            )


def require_not_revoked(recipe: str, digest: str, revoked: Mapping[str, Revocation]) -> None:
    """Raise CommandExecutionError where a bake of a recipe gives an image that was revoked."""
    if digest in revoked:
        raise CommandExecutionError(
            f"the same inputs give the same image, and {revoked[digest]}; change what {recipe} is made from, "
            f"or `salt-run image.unrevoke {revoked[digest].name} reason=...`"
        )

"""Have the builder open a shell in a copy of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable import spec
from saltext.immutable.bake.bake import recipe_chain
from saltext.immutable.bake.context import machine_network
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.spec.model import Settings
from saltext.immutable.store import Image, Store
from saltext.immutable.worker import Worker

FAILED = "@failed"
"""How the name of the machine ends that a failed bake keeps."""


def shell(opts: Mapping[str, Any], ref: str, command: str | None = None, boot: bool = False) -> dict[str, Any]:
    """Open a shell in a copy of the image ``ref``, or run ``command`` there. ``boot``: let its services run.

    Returns image and the builder's answer. Raises SaltInvocationError for a shell on a builder that is another host.
    """
    settings = spec.settings(opts)
    if ref.endswith(FAILED):
        return _of_failed(opts, settings, ref.removesuffix(FAILED), command)
    with closing(Store.open(settings.store)) as store:
        image = store.image(ref)
    return {"image": image.name, **_ask(settings, image, command, boot, Worker(opts, settings, "image", LOCAL))}


def _of_failed(opts: Mapping[str, Any], settings: Settings, recipe: str, command: str | None) -> dict[str, Any]:
    """Open a shell in the machine that a failed bake of a recipe keeps, or run ``command`` there."""
    bake_id = recipe_chain(opts, recipe)[-1].bake_id
    _require_terminal(settings, f"the machine of {recipe}", command, f"image.open_failed {bake_id}")
    call = Worker(opts, settings, "image", LOCAL)
    return {"image": f"{recipe}{FAILED}", **call("open_failed", bake_id=bake_id, command=command)}


def _ask(
    settings: Settings, image: Image, command: str | None, boot: bool, call: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """Have the builder open the shell; on another host it would have no terminal."""
    _require_terminal(settings, image.name, command, f"image.open_shell {image.digest}")
    return call("open_shell", digest=image.digest, command=command, boot=boot, **machine_network(settings))


def _require_terminal(settings: Settings, what: str, command: str | None, function: str) -> None:
    """Raise SaltInvocationError for a shell in ``what`` on another host. ``function``: what opens it there."""
    if settings.builder is not None and command is None:
        raise SaltInvocationError(
            f"{what} is on the builder {settings.builder}, and a job has no terminal there; log in there as root "
            f"and run salt-call --local {function}, or give command='...'"
        )

"""What a recipe begins with, as the order for the layer that is made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from saltext.immutable.bake.keys import inputs
from saltext.immutable.builder.sources import downloads
from saltext.immutable.spec.model import Debian, Directory, Source, Tarball

Ask = Callable[..., Any]
"""Calls a function of the builder by its name."""


@dataclass(frozen=True)
class Root:
    """The layer that a recipe begins with."""

    function: str
    """Of the builder, which makes it."""
    inputs: dict[str, Any]
    order: dict[str, Any]


def root(source: Source, ask: Ask) -> Root | None:
    """Return what the lowest layer of a recipe is made from; None for a recipe that has a parent."""
    if isinstance(source, Debian):
        return _debian(source, ask)
    if isinstance(source, Tarball):
        return _made("tarball", source.location, source.sha256, ask)
    return _made("directory", source.path, None, ask) if isinstance(source, Directory) else None


def _debian(source: Debian, ask: Ask) -> Root:
    order = {"suite": source.suite, "components": list(source.components), "mirror": source.mirror}
    made_from = inputs.of_debian(source, ask("sources", **order))
    order |= {"what": f"debian {source.suite}", "packages": list(source.packages)}
    return Root("debian_layer", made_from, order)


def _made(kind: str, place: str, sha256: str | None, ask: Ask) -> Root:
    content = sha256 or ask("root_content", order={kind: place})
    what = f"{kind} {PurePosixPath(place).name}" if downloads.remote(place) else f"{kind} {place}"
    return Root("root_layer", inputs.of_root(content), {kind: place, "sha256": content, "what": what})

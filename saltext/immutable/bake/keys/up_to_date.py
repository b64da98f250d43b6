"""The answer to a bake of what has not changed, without a look at anything but fingerprints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saltext.immutable.bake.keys import fingerprint, last_bake
from saltext.immutable.spec.model import Recipe, Settings
from saltext.immutable.store import Store


class Shortcut:
    """Answers one bake, or lets it go its long way and remembers how things looked before it began."""

    def __init__(self, store: Store, opts: Mapping[str, Any], settings: Settings, recipe: str, channel: str) -> None:
        self._store, self._opts, self._settings = store, opts, settings
        self._recipe, self._channel = recipe, channel
        self._began = time.monotonic()
        self._before = self._look()

    def _look(self) -> str | None:
        return fingerprint.take(self._opts, self._settings, self._store.secret)

    def answer(self, builder: Callable[..., Any]) -> dict[str, Any] | None:
        """Return what a bake would, if nothing has changed since one; None if that cannot be told."""
        kept = last_bake.fingerprint(self._store, self._recipe, self._channel)
        if self._before is None or kept is None or kept.fingerprint != self._before or self._store.enrolled():
            return None
        digest = kept.image
        moved = self._store.channel(self._recipe, self._channel) != digest
        if moved or not self._sound(digest) or not builder("has_image", digest=digest):
            return None
        if not all(_leads(builder, key, layer) for key, layer in kept.layers.items()):
            return None  # another bake has built a layer anew since, that of a parent with updates for one
        builder("sweep")
        return self._report(digest)

    def _sound(self, digest: str) -> bool:
        """Tell whether an image may be rolled, and stands on no other that may not."""
        refused = self._store.revoked()
        if not refused:
            return True
        stack = self._store.image(digest).layers
        wrong = [image.layers for image in self._store.images() if image.digest in refused]
        return digest not in refused and not any(stack[: len(layers)] == layers for layers in wrong)

    def _report(self, digest: str) -> dict[str, Any]:
        image = self._store.image(digest)
        report = {name: value for name, value in image.report.items() if name not in ("salt", "pack", "policy")}
        report["layers"] = [{**layer, "cached": True} for layer in report["layers"]]
        told = {"image": image.name, "digest": digest, "changed": False, "channel": self._channel}
        return {**report, **told, "cached": True, "seconds": round(time.monotonic() - self._began, 3)}

    def keep(self, chain: Sequence[Recipe], layers: Sequence[Mapping[str, Any]], digest: str) -> None:
        """Remember how things looked before a bake that ended well, if they still look so and it can be told."""
        doubtful = {layer["what"] for layer in layers if layer.get("unproven")}
        steady = doubtful <= {f"states of {each.name}" for each in chain if each.assume_stable}
        lasts = steady and fingerprint.lasting(self._opts, chain, time.time()) and self._look() == self._before
        keys = {layer["key"]: layer["digest"] for layer in layers if layer.get("key")}
        known = lasts and self._before and len(keys) == len(layers)
        kept = last_bake.Kept(str(self._before), digest, keys) if known else None
        last_bake.keep_fingerprint(self._store, self._recipe, self._channel, kept)


def _leads(builder: Callable[..., Any], key: str, digest: str) -> bool:
    found = builder("find_layer", key=key)
    return found is not None and found["digest"] == digest

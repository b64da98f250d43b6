"""Tell by fingerprints alone whether a bake would change nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saltext.immutable.bake.keys import fingerprint, last_bake
from saltext.immutable.images import sign
from saltext.immutable.images.layers import OF_DAMAGE
from saltext.immutable.spec.model import Recipe, Settings
from saltext.immutable.store import Store


@dataclass(frozen=True)
class UpToDateCheck:
    """The check of one bake. It answers in place of the bake, or keeps its fingerprint for the next one."""

    store: Store
    opts: Mapping[str, Any]
    settings: Settings
    recipe: str
    channel: str
    began: float
    """`time.monotonic` at the beginning."""
    before: str | None
    """The fingerprint at the beginning, before the bake read anything."""

    @classmethod
    def begin(
        cls, store: Store, opts: Mapping[str, Any], settings: Settings, recipe: str, channel: str
    ) -> UpToDateCheck:
        """Return the check of a bake that begins now."""
        began = time.monotonic()
        return cls(store, opts, settings, recipe, channel, began, fingerprint.take(opts, settings, store.secret))

    def answer(self, builder: Callable[..., Any]) -> dict[str, Any] | None:
        """Return what the bake would, if nothing has changed since the last one; None where that is not certain."""
        kept = last_bake.fingerprint(self.store, self.recipe, self.channel)
        if self.before is None or kept is None or kept.fingerprint != self.before or self.store.enrolled():
            return None
        digest = kept.image
        moved = self.store.channel(self.recipe, self.channel) != digest
        if moved or not self._sound(digest) or not self._is_there(builder, digest):
            return None
        if not all(_leads(builder, key, layer) for key, layer in kept.layers.items()):
            return None  # since then another bake built a layer again, for example of a parent with refresh=updates
        builder("sweep")
        return self._report(digest)

    def _is_there(self, builder: Callable[..., Any], digest: str) -> bool:
        """Tell whether the builder has an image, undamaged and signed."""
        return bool(builder("has_image", digest=digest, trusted=sign.trusted(self.settings)))

    def _sound(self, digest: str) -> bool:
        """Tell whether neither an image nor one whose layers it begins with was revoked."""
        refused = self.store.revoked()
        if not refused:
            return True
        stack = self.store.image(digest).layers
        wrong = [image.layers for image in self.store.images() if image.digest in refused]
        return digest not in refused and not any(stack[: len(layers)] == layers for layers in wrong)

    def _report(self, digest: str) -> dict[str, Any]:
        image = self.store.image(digest)
        report = {name: value for name, value in image.report.items() if name not in ("salt", "pack", "policy")}
        layers = [{**layer, "cached": True} for layer in report["layers"]]
        report["layers"] = [{name: layer[name] for name in layer if name not in OF_DAMAGE} for layer in layers]
        known = {"image": image.name, "digest": digest, "changed": False, "channel": self.channel}
        return {"deferred": [], **report, **known, "cached": True, "seconds": round(time.monotonic() - self.began, 3)}

    def keep(self, chain: Sequence[Recipe], layers: Sequence[Mapping[str, Any]], digest: str) -> None:
        """Keep the fingerprint with the image of a bake that ended well, if the next bake may go by it.

        Otherwise the fingerprint of the bake before is deleted.
        """
        keys = {layer["key"]: layer["digest"] for layer in layers if layer.get("key")}
        known = self._lasts(chain, layers) and len(keys) == len(layers)
        kept = last_bake.Kept(str(self.before), digest, keys) if known else None
        last_bake.keep_fingerprint(self.store, self.recipe, self.channel, kept)

    def _lasts(self, chain: Sequence[Recipe], layers: Sequence[Mapping[str, Any]]) -> bool:
        """Tell whether nothing has changed since the bake began, and all inputs are such as a fingerprint can see."""
        doubtful = {layer["what"] for layer in layers if layer.get("unproven")}
        steady = doubtful <= {f"states of {each.name}" for each in chain if each.assume_stable}
        if self.before is None or not steady or not fingerprint.lasting(self.opts, chain, time.time()):
            return False
        return fingerprint.take(self.opts, self.settings, self.store.secret) == self.before


def _leads(builder: Callable[..., Any], key: str, digest: str) -> bool:
    """Tell whether a key still leads to a layer, and that is undamaged."""
    found = builder("find_layer", key=key)
    return found is not None and found["digest"] == digest and not found.get("damaged")

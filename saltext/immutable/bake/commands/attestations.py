"""Verify, sign, list and compare the content of images, as the store and the builder have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from salt.exceptions import CommandExecutionError

from saltext.immutable import spec
from saltext.immutable.bake import signatures
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.images import sign
from saltext.immutable.spec.model import Settings
from saltext.immutable.store import Image, Store
from saltext.immutable.worker import Worker


@dataclass
class Evidence:
    """Answers about images that can be proven. The builder has the files, the store has signatures and provenance."""

    settings: Settings
    store: Store
    builder: Callable[..., Any]

    def verify(self, ref: str) -> dict[str, Any]:
        """Read every file of an image. Raises CommandExecutionError unless the image is as it was signed."""
        image = self.store.image(ref)
        read = self.builder("verify_image", digest=image.digest, trusted=sign.trusted(self.settings))
        return {"image": image.name, "digest": image.digest, "verified": True, **read}

    def sign(self, ref: str) -> dict[str, Any]:
        """Sign an image that has no signature, then read every file of it.

        Its digest says which layers it has, so only what lies in them has to be read.
        """
        image = self.store.image(ref)
        made = self.builder("find_image", digest=image.digest)
        if made["proof"] is not None:
            raise CommandExecutionError(f"{image.name} is signed already; salt-run image.verify {image.name} checks it")
        signatures.sign_image(self.builder, self.store, self.settings, image, made, None)
        return {**self.verify(image.digest), "signed": True}

    def provenance(self, ref: str) -> dict[str, Any]:
        """Return the provenance of an image, see `images.provenance.document`."""
        return signatures.provenance(self.store, self.store.image(ref), sign.trusted(self.settings))

    def sbom(self, ref: str) -> dict[str, Any]:
        """Return the bill of materials of an image (CycloneDX).

        Raises CommandExecutionError unless the image is as it was signed.
        """
        from saltext.immutable.images import sbom  # its library takes half a second to load

        image = self.store.image(ref)
        self.builder("require_image", digest=image.digest, trusted=sign.trusted(self.settings))
        found = self.builder("software", digest=image.digest)
        return sbom.document(image.name, image.digest, image.created, found)

    def inside(self, old: Image, new: Image) -> dict[str, Any]:
        """Return how the files and the services of two images differ."""
        return dict(self.builder("compare_images", old=old.digest, new=new.digest))


@contextmanager
def evidence(opts: Mapping[str, Any]) -> Iterator[Evidence]:
    """Open the store and reach the builder while the block runs."""
    settings = spec.settings(opts)
    store = Store.open(settings.store)
    try:
        yield Evidence(settings, store, Worker(opts, settings, "image", LOCAL))
    finally:
        store.close()

"""What stands in an image beside its layers, for roots that were never baked."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saltext.immutable.guard.seal import Seal
from saltext.immutable.images import manifest, seal_layer

POLICY = {"guard": {}, "at_launch": [], "writable": [], "mutable": [], "states": []}


def sealed(digest: str, **changes: Any) -> Seal:
    """The seal of an image with no policy to speak of."""
    said = {"image": digest, "recipe": "web", "read_only": True, "created": 1.0, "salt": "3008.3", "pack": "0.1.0"}
    return Seal(**{**said, "policy": POLICY, **changes})


def prove(root: Path, *layers: list[str], names: Mapping[str, str] | None = None, grains: Any = None) -> str:
    """Write into a root what `proof.add` writes into an image of these layers, given as lines of manifests."""
    (root / seal_layer.MANIFESTS).mkdir(parents=True, exist_ok=True)
    digests = []
    for lines in layers:
        text = "".join(lines).encode()
        digests.append(hashlib.sha256(text).hexdigest())
        (root / seal_layer.MANIFESTS / f"{digests[-1]}.gz").write_bytes(gzip.compress(text))
    order = {"recipe": "web", "layers": digests, "read_only": True, "grains": grains or {}, "policy": POLICY}
    (root / seal_layer.DEFINITION).write_text(manifest.canonical(order))
    names = names or {digest: f"layer {n}" for n, digest in enumerate(digests)}
    (root / seal_layer.NAMES).write_text(json.dumps(names))
    for path, text_ in seal_layer.derived_files(order).items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text_)
    for each in (root / "etc", *(root / "etc").rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)
    return manifest.image_digest(order)

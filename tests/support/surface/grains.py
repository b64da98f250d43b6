"""What the grain says of a machine, with and without a seal: tops, pillars and targets rely on it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .files import ROOT
from .shapes import Shape, shape_of

_MACHINE = {"immutable_machine": {"fleet": "web", "generation": 1}}
_SEALS = {"no seal": None, "a seal": '{"recipe": "web", "image": "3f2a9c1d04be"}', "a damaged seal": "{"}


def read() -> dict[str, Shape]:
    """Return the shape of the grain in each case."""
    return {case: shape_of(_grain(seal)) for case, seal in _SEALS.items()}


def _grain(seal: str | None) -> Any:
    spec = importlib.util.spec_from_file_location("immutable_grain", ROOT / "_grains/immutable.py")
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with TemporaryDirectory() as folder:
        for name, text in (("SEAL_PATH", seal), ("MACHINE_PATH", json.dumps(_MACHINE))):
            setattr(module, name, f"{folder}/{name}")
            if text is not None:
                Path(folder, name).write_text(text)
        return module.immutable()

"""What third parties build on: entry points, and what a provider or a traffic adapter has to offer."""

from __future__ import annotations

import configparser
import dataclasses
import inspect
from typing import Any

from .files import ROOT
from .library import PROTOCOLS, VALUES


def read() -> dict[str, Any]:
    """Return entry points, protocols (attributes and methods) and values (fields)."""
    return {
        "entry points": _entry_points(),
        "protocols": {one.__name__: {**_attributes(one), **_methods(one)} for one in PROTOCOLS},
        "values": {one.__name__: _fields(one) for one in VALUES},
    }


def _entry_points() -> dict[str, list[str]]:
    """Return the names in each group; where they lead to is our own business."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    groups = setup["options.entry_points"].items()
    return {group: [line.partition(" = ")[0] for line in text.strip().splitlines()] for group, text in groups}


def _attributes(protocol: type) -> dict[str, str]:
    return {name: str(kind) for name, kind in inspect.get_annotations(protocol).items()}


def _methods(protocol: type) -> dict[str, str]:
    found = inspect.getmembers(protocol, inspect.isfunction)
    return {name: _signature(method) for name, method in found if not name.startswith("_")}


def _signature(method: Any) -> str:
    """Return a signature; annotations are text there, and stand in quotes."""
    return str(inspect.signature(method)).replace("'", "")


def _fields(value: Any) -> dict[str, str]:
    return {
        field.name: f"{field.type}" + ("" if field.default is dataclasses.MISSING else f" = {field.default!r}")
        for field in dataclasses.fields(value)
    }

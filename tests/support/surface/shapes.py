"""Shapes of JSON documents: which keys there are, of which types, and which may be absent.

::

    str  int  float  bool  null     what JSON calls so; ``int | null`` is one of two
    [shape]                         a list; [] is one of which only the empty one was seen
    {name: shape, other?: shape}    a mapping; ``other`` may be absent
    {<machine>: shape}              a mapping whose keys are data, not names
    {one of: [shape, shape]}        where a ``|`` has no place
    rollout                         a shape that the file has a name for
    any                             what is not ours to say

A document fits a shape if merging the two leaves the shape as it is; that is the whole comparison.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import reduce
from typing import Any

Shape = Any
Named = dict[str, Shape]
_SCALARS = {"str": "str", "int": "int", "float": "float", "bool": "bool", "NoneType": "null"}
_NAME = re.compile(r"[$A-Za-z_][A-Za-z0-9_ -]{0,39}")
"""A key that is none of these is data: a digest, a path, a minion id."""


def shape_of(document: Any) -> Shape:
    """Return the shape of one JSON document."""
    if isinstance(document, list):
        return reduce(lambda found, one: merged(found, [shape_of(one)]), document, [])
    if isinstance(document, Mapping):
        fixed = all(_NAME.fullmatch(key) for key in document)
        found = {key: shape_of(one) for key, one in document.items()}
        return found if fixed else {"<key>": reduce(merged, found.values())}
    return _SCALARS[type(document).__name__]


def merged(known: Shape, seen: Shape, named: Named | None = None) -> Shape:
    """Return the narrowest shape that both fit; where one of ``named`` has to be widened for that, it is."""
    names = {} if named is None else named
    found = _alternatives(known)
    for one in _alternatives(seen) if "any" not in found else ():
        kinds = [_kind(each, names) for each in found]
        if _kind(one, names) in kinds:
            place = kinds.index(_kind(one, names))
            found[place] = _both(found[place], one, names)
        else:
            found.append(one)
    return _joined(found)


def _alternatives(shape: Shape) -> list[Shape]:
    if isinstance(shape, str):
        return list(shape.split(" | "))
    return list(shape["one of"]) if isinstance(shape, dict) and "one of" in shape else [shape]


def _joined(alternatives: list[Shape]) -> Shape:
    if all(isinstance(one, str) for one in alternatives):
        return " | ".join(alternatives)
    return alternatives[0] if len(alternatives) == 1 else {"one of": alternatives}


def _kind(shape: Shape, named: Named) -> str:
    """Return what of shapes can be merged to one."""
    if isinstance(shape, str):
        return _kind(named[shape], named) if shape in named else shape
    return type(shape).__name__


def _both(known: Shape, seen: Shape, named: Named) -> Shape:
    """Merge two shapes of one kind."""
    if isinstance(known, str) and known in named:
        named[known] = merged(named[known], seen, named)
        return known
    if isinstance(known, list):
        return [merged(known[0], seen[0], named)] if known and seen else known or seen
    return _mapping(known, seen, named) if isinstance(known, dict) else known


def _mapping(known: dict[str, Shape], seen: dict[str, Shape], named: Named) -> Shape:
    """Merge two mappings. What only one of them has may be absent; keys that have no name are data."""
    found, news = _fields(known), _fields(seen)
    data = next((key for key in known if key.startswith("<")), None)
    for key in found.keys() - news.keys():
        found[key] = (found[key][0], True)
    for key, (shape, optional) in news.items():
        place = key if key in found or data is None else data
        before, might = found.get(place, (shape, True))
        found[place] = (merged(before, shape, named), optional or might)
    return {f"{key}?" if optional and key[0] != "<" else key: shape for key, (shape, optional) in found.items()}


def _fields(mapping: dict[str, Shape]) -> dict[str, tuple[Shape, bool]]:
    """Return, by key, its shape and whether it may be absent."""
    return {key.removesuffix("?"): (shape, key.endswith("?")) for key, shape in mapping.items()}

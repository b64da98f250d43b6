"""Say what has changed since the last bake, in sentences that name an input and never show its value. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from saltext.immutable.images.manifest import canonical, digest

Parts = Mapping[str, Any]
"""The inputs of a layer of states, in parts: below (digest) and settings; by name or path a hash of each of grains,
pillar, files, lists, states; and tops, asked, unproven."""
SETTINGS = (
    *("at_boot", "bake_id", "bake_identity", "bake_in", "idempotent", "kernel", "marked", "pack", "pillarenv"),
    *("saltcheck", "saltenv", "settings", "slim", "states", "tests"),
)
"""Keys of the ground that are settings of the recipe or the master. The others have parts of their own."""
PARENT_IMAGE = "parent image"
"""With its reference, how the image is called that a recipe is built from."""
_NAMED = {"grains": "grain", "pillar": "pillar", "files": "file", "states": "state"}


def parts(ground: Parts, details: Parts, selected: Parts, more: Parts) -> dict[str, Any]:
    """Return the inputs of a layer of states in parts.

    ``ground``: what `layer_key.of_states` returns; ``details``: `layer_key.details`; ``selected``: `used_files.select`;
    ``more``: asked, states and unproven.
    """
    files = {f"{path} ({env})": hashed for env, found in selected["files"].items() for path, hashed in found.items()}
    settings = {name: _setting(ground[name]) for name in SETTINGS if name in ground}
    own = {"below": ground.get("below"), "settings": settings, "tops": ground.get("tops"), "files": files}
    return plain({**own, "lists": selected["lists"], **details, **more})


def _setting(value: Any) -> Any:
    """Return what is kept of a setting: one that is not short, tests for example, as a hash."""
    return value if isinstance(value, str | bool | None) else digest(value)


def plain(data: Parts) -> dict[str, Any]:
    """Return data as it is after it was kept in the store and read again."""
    return dict(json.loads(canonical(data)))


def changes(recipe: str, old: Parts, new: Parts) -> list[str]:
    """Return a sentence for each input of a recipe's states that changed."""
    found = [
        f"{what} {name} {how}"
        for part, what in _NAMED.items()
        for name, how in _differences(old.get(part) or {}, new.get(part) or {})
    ]
    found += [f"setting {name} {how}" for name, how in _differences(old["settings"], new["settings"])]
    found += [f"{_list(name)} changed" for name, how in _differences(old["lists"], new["lists"])]
    if old["tops"] != new["tops"]:
        found.append("what the master's external tops say changed")
    return [f"{recipe}: {sentence}" for sentence in found]


def of_layers(old: Mapping[str, Parts], new: Mapping[str, Parts]) -> list[str]:
    """Return a sentence for each layer below the states whose inputs changed."""
    found = moved(old, new)
    for what, how in _differences(old, new):
        if how == "changed" and what.startswith(PARENT_IMAGE):
            continue
        parts_ = [name for name, _ in _differences(old.get(what, {}), new.get(what, {}))] if how == "changed" else []
        found.append(f"{what} {how}" + (f": {', '.join(parts_)}" if parts_ else ""))
    return found


def moved(old: Mapping[str, Parts], new: Mapping[str, Parts]) -> list[str]:
    """Return a sentence if the channel that names the parent image has moved. Arguments as in `of_layers`."""
    return [
        f"{what} moved from {old[what]['image']} to {new[what]['image']}"
        for what, how in _differences(old, new)
        if how == "changed" and what.startswith(PARENT_IMAGE)
    ]


def of_packages(installed: Mapping[str, str], candidates: Mapping[str, str]) -> list[str]:
    """Return a sentence for each package that has another version at the mirrors."""
    return [
        f"package {name} has an update: {version} -> {candidates[name]}"
        for name, version in sorted(installed.items())
        if candidates.get(name, version) != version
    ]


def _differences(old: Parts, new: Parts) -> Iterator[tuple[str, str]]:
    for name in sorted({*old, *new}):
        if name not in new:
            yield name, "is gone"
        elif name not in old:
            yield name, "is new"
        elif old[name] != new[name]:
            yield name, _how(old[name], new[name])


def _how(old: Any, new: Any) -> str:
    """Return how a value changed; the hash of a file that was asked for and is not there is ''."""
    return "is new" if old == "" else "is gone" if new == "" else "changed"


def _list(name: str) -> str:
    kind, _, what = name.partition(" ")
    words: Mapping[str, str] = {"has": "whether there is", "sls": "state files called", "list": "the list of files in"}
    return f"{words[kind]} {what}" if kind in words else f"the list of {name}"


def leaves(data: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested data by their path: ``db:password``."""
    if isinstance(data, Mapping) and data:
        for name, value in data.items():
            yield from leaves(value, f"{above}:{name}" if above else str(name))
    elif isinstance(data, Sequence) and not isinstance(data, str) and data:
        for number, value in enumerate(data):
            yield from leaves(value, f"{above}:{number}" if above else str(number))
    else:
        yield above, data

"""The provenance of an image as an in-toto statement of SLSA: what it was made from, by whom, where and when. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from saltext.immutable.images import sign

_PREDICATE = "https://slsa.dev/provenance/v1"
_PASSWORD = re.compile(r"//[^/@\s]+@")
_BUILD = "urn:saltext-immutable:bake:1"


def document(name: str, digest: str, layers: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance: an in-toto statement with the predicate of SLSA 1.0.

    ``layers``: digest, what, created, seconds, cached, and inputs (what each was made from). ``run``: recipe, grains,
    policy, refresh, builder, versions, who, started, finished. A layer's ``git`` are the commits of its states and its
    pillar; each is a dependency after those of the layers.
    """
    definition = {
        "buildType": _BUILD,
        "externalParameters": {what: _as_json(run[what]) for what in ("recipe", "grains", "policy", "refresh")},
        "resolvedDependencies": [*map(_dependency, layers), *(each for layer in layers for each in _remotes(layer))],
    }
    details = {
        "builder": {"id": f"urn:saltext-immutable:builder:{run['builder']}", "version": dict(run["versions"])},
        "metadata": {"startedOn": _time(run["started"]), "finishedOn": _time(run["finished"])},
        "byproducts": [{"name": "who", "annotations": {"user": run["who"]}}],
    }
    return {
        "_type": sign.STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}}],
        "predicateType": _PREDICATE,
        "predicate": {"buildDefinition": definition, "runDetails": details},
    }


def _as_json(data: Any) -> Any:
    """Return data that JSON can hold, without passwords in URLs."""
    if isinstance(data, Mapping):
        return {str(name): _as_json(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_as_json(value) for value in data]
    if isinstance(data, str):
        return _PASSWORD.sub("//...@", data)
    return data if data is None or isinstance(data, int | float) else repr(data)


def _dependency(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer as a resource of SLSA. Its inputs hold keyed hashes of secrets only."""
    times = {"created": _time(layer["created"]), "seconds": round(layer["seconds"], 3)}
    return {
        "name": layer["what"],
        "digest": {"sha256": layer["digest"]},
        "annotations": {**times, "from": _as_json(layer["inputs"]), "cached": layer["cached"]},
    }


def _remotes(layer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the commits of the repositories that a layer was made from as resources of SLSA."""
    for each in layer.get("git") or ():
        yield {
            "name": f"{each['of']} of {each['ref']}",
            "uri": each["url"],
            "digest": {"gitCommit": each["commit"]},
            "annotations": {"ref": each["ref"], "layer": layer["what"], "pinned": each["pinned"]},
        }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

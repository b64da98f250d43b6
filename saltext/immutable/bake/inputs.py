"""What a layer is made from, as data whose hash is the layer's key. Rather too much than too little."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import salt.fileserver
import salt.version

from saltext.immutable import __version__, minions
from saltext.immutable.bake import pack
from saltext.immutable.bake.manifest import canonical, digest
from saltext.immutable.spec.model import Debian, Minion, Recipe

_CUSTOM = ("_beacons/", "_grains/", "_modules/", "_outputters/", "_renderers/", "_returners/", "_states/", "_utils/")


def key(inputs: Mapping[str, Any]) -> str:
    """Return the key of a layer with these inputs."""
    return digest(inputs)


def of_debian(source: Debian, sources: list[str]) -> dict[str, Any]:
    """Inputs of a Debian root; ``sources`` are the sources.list lines that the builder will use."""
    return {
        "kind": "debian",
        "suite": source.suite,
        "packages": sorted(source.packages),
        "components": list(source.components),
        "sources": sources,
        "pack": __version__,
    }


def requirement(minion: Minion) -> str:
    """Return the pip requirement; the bare word ``salt`` means the version of this master."""
    return f"salt=={salt.version.__version__}" if minion.pip == "salt" else minion.pip


def of_minion(minion: Minion, below: str) -> dict[str, Any]:
    """Inputs of the layer with Salt and this pack."""
    return {"kind": "minion", "below": below, "requirement": requirement(minion), "pack": pack.fingerprint()}


def of_states(
    opts: Mapping[str, Any], recipe: Recipe, grains: Mapping[str, Any], below: str, secret: bytes
) -> dict[str, Any]:
    """Inputs of a layer of states: the recipe, a keyed hash of its pillar (it may hold secrets), every file served."""
    envs = {"saltenv": recipe.saltenv, "pillarenv": recipe.pillarenv}
    pillar = minions.pillar(opts, recipe.bake_id, {**grains, **recipe.grains, "id": recipe.bake_id}, **envs)
    return {
        "kind": "states",
        "below": below,
        "bake_id": recipe.bake_id,
        "grains": dict(recipe.grains),
        "states": recipe.states if isinstance(recipe.states, str) else list(recipe.states),
        **envs,
        "pillar": hmac.new(secret, canonical(_plain(pillar)).encode(), hashlib.sha256).hexdigest(),
        "files": files(opts),
        "pack": __version__,
    }


def _plain(data: Any) -> Any:
    """Return data as JSON can hold it: pillars know dates, bytes and sets."""
    if isinstance(data, Mapping):
        return {str(name): _plain(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return data if data is None or isinstance(data, str | int | float) else repr(data)


def files(opts: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the hash of each file that the master serves, by environment and path."""
    server = _server(opts)
    return {env: _hashes(server, env) for env in sorted(server.envs())}


def _server(opts: Mapping[str, Any]) -> Any:
    server = salt.fileserver.Fileserver({**opts, "fileserver_list_cache_time": 0})
    # The master may answer from its list of files for 20 seconds, also to the minion that bakes.
    server.clear_file_list_cache({"saltenv": None})
    server.update()
    return server


def _hashes(server: Any, env: str) -> dict[str, str]:
    hashes = {}
    for path in sorted(server.file_list({"saltenv": env})):
        hashes[path] = server.file_hash({"path": path, "saltenv": env}).get("hsum", "")
    return hashes


def has_custom_modules(inputs: Mapping[str, Any]) -> bool:
    """Tell whether any environment brings modules that a minion has to sync before its grains and pillar are right."""
    return any(path.startswith(_CUSTOM) for env in inputs["files"].values() for path in env)

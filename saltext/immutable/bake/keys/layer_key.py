"""The inputs of a layer, as data whose hash is the layer's key.

An input too many builds a layer again for nothing; an input that is missing gives an outdated image.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import salt.fileserver
import salt.loader
import salt.version

from saltext.immutable import __version__, minions
from saltext.immutable.bake.keys import changed_inputs, used_files
from saltext.immutable.builder.finish import slim
from saltext.immutable.builder.sources import wheel
from saltext.immutable.images.manifest import canonical, digest, sha256
from saltext.immutable.spec.model import Minion, Recipe
from saltext.immutable.spec.origins import Debian
from saltext.immutable.spec.tests import plain

_CUSTOM = ("_beacons/", "_grains/", "_modules/", "_outputters/", "_renderers/", "_returners/", "_states/", "_utils/")
GRAINS = ("_grains/",)
_ON_DISK = ("roots", "gitfs", "git")
"""Backends that give the path of a file on this host: of gitfs it is the copy that the master serves."""
# Settings of the master that decide which states a top file gives, and how they are rendered.
_SETTINGS = (
    "default_top",
    "env_order",
    "jinja_env",
    "jinja_lstrip_blocks",
    "jinja_sls_env",
    "jinja_trim_blocks",
    "nodegroups",
    "renderer",
    "state_aggregate",
    "state_auto_order",
    "state_top",
    "state_top_saltenv",
    "top_file_merging_strategy",
)


def key(inputs: Mapping[str, Any]) -> str:
    """Return the key of a layer with these inputs."""
    return digest(inputs)


def last(recipe: Recipe) -> str:
    """Return the key that leads to the layer that was last made of a recipe's states."""
    return digest({"kind": "last", "recipe": recipe.name})


def of_debian(source: Debian, sources: list[str]) -> dict[str, Any]:
    """Return the inputs of a Debian root; ``sources``: the lines of sources.list that the builder will use."""
    return {
        "kind": "debian",
        "suite": source.suite,
        "packages": sorted(source.packages),
        "components": list(source.components),
        "sources": sources,
        "pack": __version__,
    }


def of_root(sha256: str) -> dict[str, Any]:
    """Return the inputs of a root that another tool made: its content, wherever it lies."""
    return {"kind": "root", "sha256": sha256, "pack": __version__}


def of_disk(sha256: str, partition: int | None) -> dict[str, Any]:
    """Return the inputs of the root on a disk; ``partition``: None if it is found."""
    return {"kind": "disk", "sha256": sha256, "partition": partition, "pack": __version__}


def of_oci(layers: Sequence[str], last: bool) -> dict[str, Any]:
    """Return the inputs of the uppermost of these layers of an OCI image (sha256, the lowest first).

    ``last``: there is none above it, so it is made a complete root.
    """
    return {"kind": "oci", "layers": list(layers), "last": last, "pack": __version__}


def requirement(minion: Minion) -> str:
    """Return the pip requirement of a recipe's minion; the word ``salt`` alone means the version of this master."""
    return f"salt=={salt.version.__version__}" if minion.pip == "salt" else minion.pip


def of_minion(minion: Minion, below: str) -> dict[str, Any]:
    """Return the inputs of the layer with Salt and this pack; ``below``: the digest of the layer below."""
    return {"kind": "minion", "below": below, "requirement": requirement(minion), "pack": wheel.fingerprint()}


def of_states(
    opts: Mapping[str, Any], recipe: Recipe, grains: Mapping[str, Any], below: str, secret: bytes
) -> dict[str, Any]:
    """Return the inputs of a layer of states without the tree: the ground.

    Grains and pillar are keyed hashes, as they may hold secrets. ``grains``: those of a minion of the layer below, with
    those of the recipes of its parents. ``below``: the digest of the layer below. ``secret``: the key of the hashes.
    Raises SaltInvocationError where the pillar cannot be compiled.
    """
    envs = {"saltenv": recipe.saltenv, "pillarenv": recipe.pillarenv}
    known = {**grains, **recipe.grains, **_identity(recipe.bake_id)}
    pillar = minions.pillar(opts, recipe.bake_id, known, **envs)
    return {
        "kind": "states",
        "below": below,
        "bake_id": recipe.bake_id,
        "grains": _keyed_hash(known, secret),
        "states": recipe.states if isinstance(recipe.states, str) else list(recipe.states),
        **envs,
        "marked": list(recipe.secrets),
        "tests": _plain(plain(recipe.tests.inside)),
        "bake_in": recipe.bake_in,
        **({"idempotent": recipe.tests.idempotent} if recipe.tests.idempotent else {}),
        **({"at_boot": sorted(recipe.at_boot)} if recipe.at_boot else {}),
        **({"bake_identity": sorted(recipe.bake_identity)} if recipe.bake_identity else {}),
        "slim": slim.settings(recipe.slim),
        "pillar": _keyed_hash(pillar, secret),
        "tops": _keyed_hash(_tops(opts, known, recipe.bake_id), secret),
        "settings": {name: _plain(opts.get(name)) for name in _SETTINGS},
        "pack": __version__,
    }


def details(opts: Mapping[str, Any], recipe: Recipe, grains: Mapping[str, Any], secret: bytes) -> dict[str, Any]:
    """Return a keyed hash of each grain and each leaf of the pillar, by which a later bake names those that changed."""
    known = {**grains, **recipe.grains, **_identity(recipe.bake_id)}
    pillar = minions.pillar(opts, recipe.bake_id, known, saltenv=recipe.saltenv, pillarenv=recipe.pillarenv)
    return {
        "grains": {str(name): _keyed_hash([name, value], secret)[:16] for name, value in known.items()},
        "pillar": {path: _keyed_hash([path, value], secret)[:16] for path, value in changed_inputs.leaves(pillar)},
    }


def _identity(bake_id: str) -> dict[str, Any]:
    """Return the grains that follow from the minion id that bakes."""
    host, _, domain = bake_id.partition(".")
    return {"id": bake_id, "fqdn": bake_id, "host": host, "nodename": host, "localhost": host, "domain": domain}


def _keyed_hash(data: Any, secret: bytes) -> str:
    return hmac.new(secret, canonical(_plain(data)).encode(), hashlib.sha256).hexdigest()


def _tops(opts: Mapping[str, Any], grains: Mapping[str, Any], bake_id: str) -> dict[str, Any]:
    """Return the states that the master's external tops (``master_tops``) assign to the id that bakes."""
    if not opts.get("master_tops"):
        return {}
    asked = {"opts": {**opts, "id": bake_id, "grains": dict(grains)}, "grains": dict(grains)}
    found = salt.loader.tops(dict(opts))
    return {name: found[name](**asked) for name in found if name in opts["master_tops"]}


def _plain(data: Any) -> Any:
    """Return data as JSON can hold it; a pillar may have dates, bytes and sets."""
    if isinstance(data, Mapping):
        return {str(name): _plain(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return data if data is None or isinstance(data, str | int | float) else repr(data)


class Served(Mapping[str, str]):
    """The files that the master serves in one environment, as `used_files.Tree` has them; hashes are read on demand."""

    def __init__(self, server: Any, env: str) -> None:
        """``env``: the name of the environment, or of its pin."""
        self._server, self._env = server, env
        found = {f"{folder}/": "" for folder in server.dir_list({"saltenv": env})}
        found |= {f"{path}@": str(target) for path, target in server.symlink_list({"saltenv": env}).items()}
        self._known: dict[str, str | None] = {**found, **dict.fromkeys(server.file_list({"saltenv": env}))}

    def __getitem__(self, path: str) -> str:
        hashed = self._known[path]
        if hashed is None:
            hashed = self._known[path] = self._read(path)
        return hashed

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._known))

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, path: object) -> bool:
        return path in self._known

    def _read(self, path: str) -> str:
        path = f"|{path}"  # Salt takes what follows as a name, whatever is in it: a question mark would begin options
        found = self._server.find_file(path, self._env)
        if found.get("back") in _ON_DISK and (content := _content(found["path"])):
            return f"{found['stat'][0]} {content}"
        hashed, stat = self._server.file_hash_and_stat({"path": path, "saltenv": self._env})
        # A broken link, or a file that was deleted since it was listed, has no hash.
        content = hashed.get("hsum", "") if isinstance(hashed, Mapping) else ""
        return f"{stat[0] if stat else ''} {content}"


def _content(path: str) -> str | None:
    """Return the hash of a file, read now: Salt caches its own for as long as the file has the same time of change."""
    try:
        return sha256(path)
    except OSError:  # deleted since it was found
        return None


def tree(opts: Mapping[str, Any], pins: Mapping[str, str] = MappingProxyType({})) -> dict[str, Mapping[str, str]]:
    """Return the files that the master serves now, by environment. ``pins``: as `git_remotes.Remotes` has them."""
    server = _server(opts)
    return {env: Served(server, name) for env, name in (pins or {env: env for env in sorted(server.envs())}).items()}


def whole(served: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return a tree with every hash read now."""
    return {env: dict(files) for env, files in served.items()}


def complete(ground: Mapping[str, Any], served: Mapping[str, Mapping[str, str]], asked: Any) -> dict[str, Any]:
    """Return all inputs of a layer of states: the ground, and the tree's answers to what its bake asked for."""
    return {**ground, **used_files.select(served, asked or None)}


def hash_key(secret: bytes) -> str:
    """Return the key of a builder's hashes of states, which may hold secrets. It does not reveal ``secret``."""
    return hmac.new(secret, b"states", hashlib.sha256).hexdigest()


def _server(opts: Mapping[str, Any]) -> Any:
    server = salt.fileserver.Fileserver({**opts, "fileserver_list_cache_time": 0})
    # For 20 seconds the master may answer from its list of files, also to the minion that bakes.
    server.clear_file_list_cache({"saltenv": None})
    server.update()
    return server


def has_custom_modules(inputs_files: Mapping[str, Mapping[str, str]], kinds: tuple[str, ...] = _CUSTOM) -> bool:
    """Tell whether a tree has modules that a minion has to sync before its grains and its pillar are right."""
    return any(path.startswith(kinds) for env in inputs_files.values() for path in env)

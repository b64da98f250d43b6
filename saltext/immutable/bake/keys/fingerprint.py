"""The fingerprint of all that images are made from: names, times and sizes of files, and options.

It is not the key of a layer (`layer_key`). It is taken before a bake reads anything, and kept if the bake succeeds and
nothing changed meanwhile. The same fingerprint later means that a bake would build nothing. Where it cannot see an
input there is none, and the bake looks at the keys of the layers.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import salt.version

from saltext.immutable.builder.sources import wheel
from saltext.immutable.images.manifest import canonical, digest
from saltext.immutable.spec.model import Recipe, Settings
from saltext.immutable.spec.origins import Debian, Parent

_APT = Path("/etc/apt")
_SETTLED = 2.0
"""Seconds after which a file that changes again has another time, however coarse the times of its file system are."""
_COMPILED = "__pycache__"
"""A folder that Python writes when it first loads the modules beside it: no input."""
_PLAIN_RENDERERS = ("jinja|yaml", "yaml")
_JINJA = re.compile(r"\{[{%]")
_READS_MORE = re.compile(
    r"\bsalt\b|__salt__|\bopts\b|strftime|date_format|\b(today|now|utcnow|method_call)\b"
    r"|random|shuffle|rand_str|gen_mac|lipsum|http_query|dns_check"
    r"|file_hashsum|list_files|is_(bin|text)_file|is_empty|get_uid|\bwhich\b"
)
"""What in a pillar file may read more than grains and other pillar files: the clock, this host, random values."""
_OF_THE_CALL = re.compile(r"__|log_|output|jid$|fun$|arg$|kwarg$|doc$|user$|username$|password$|auth|token|async|color")
"""Options that tell how the runner was called, not how the master is configured."""


def take(opts: Mapping[str, Any], settings: Settings, secret: bytes) -> str | None:
    """Return the fingerprint now; None where it cannot see all that images are made from.

    ``secret``: the key of the hash, as options may hold passwords.
    """
    if settings.builder is not None or not _simple(opts):
        return None
    seen = {
        "options": _keyed_hash({name: opts[name] for name in opts if not _OF_THE_CALL.match(name)}, secret),
        "files": {env: [_files(root) for root in roots] for env, roots in opts["file_roots"].items()},
        "pillar": {env: [_files(root) for root in roots] for env, roots in opts["pillar_roots"].items()},
        "apt": [_files(_APT), os.environ.get("APT_CONFIG")],
        "versions": [salt.version.__version__, [_files(folder, but=_COMPILED) for folder in wheel.folders()]],
    }
    return digest(seen)


def _simple(opts: Mapping[str, Any]) -> bool:
    """Tell whether state tree and pillar are files in folders of this host, and nothing else."""
    backends = set(opts.get("fileserver_backend") or ["roots"])
    folders = [*opts["file_roots"], *opts["pillar_roots"]]
    others = opts.get("ext_pillar") or opts.get("master_tops") or opts.get("jinja_env") or "__env__" in folders
    return backends == {"roots"} and not others and opts.get("renderer") in _PLAIN_RENDERERS


def _keyed_hash(data: Any, secret: bytes) -> str:
    return hmac.new(secret, repr(_ordered(data)).encode(), hashlib.sha256).hexdigest()


def _ordered(data: Any) -> Any:
    """Return data in an order that is the same in every process."""
    if isinstance(data, Mapping):
        return sorted(((str(name), _ordered(value)) for name, value in data.items()), key=lambda pair: pair[0])
    if isinstance(data, list | tuple):
        return [_ordered(value) for value in data]
    return sorted(map(str, data)) if isinstance(data, set | frozenset) else data


def _files(root: str | os.PathLike[str], but: str = "") -> str:
    """Return a hash of the names, times and sizes of all that is below a folder, but for folders of one name."""
    return hashlib.sha256(canonical(list(_stats(os.fspath(root), but))).encode()).hexdigest()


def _stats(root: str, but: str = "") -> Iterator[list[Any]]:
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in seen:  # links that form a circle
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = [name for name in folders if name != but]
        folders.sort()
        for name in ("", *folders, *sorted(files)):
            yield [f"{folder}/{name}", *_stat(f"{folder}/{name}")]


def _stat(path: str) -> list[Any]:
    """Return what changes when a file does; for a link also what changes when its target does."""
    try:
        link, found = os.lstat(path), os.stat(path)
    except FileNotFoundError:
        return [os.readlink(path)] if os.path.islink(path) else []
    return [
        [each.st_mode, each.st_size, each.st_mtime_ns, each.st_ctime_ns, each.st_ino, each.st_dev]
        for each in (link, found)
    ]


def lasting(opts: Mapping[str, Any], chain: Sequence[Recipe], now: float) -> bool:
    """Tell whether the fingerprint of a bake of these recipes may be kept; ``now``: seconds since 1970."""
    sources = all(isinstance(each.source, Debian | Parent) and each.kernel_of_builder is None for each in chain)
    return sources and _plain(opts) and _settled(opts, now)


def _plain(opts: Mapping[str, Any]) -> bool:
    """Tell whether the pillar depends on its files and the grains only."""
    paths = [path for root in _folders(opts["pillar_roots"]) for path, *_ in _stats(root) if os.path.isfile(path)]
    return not any(_reads_more(Path(path).read_text(errors="replace")) for path in paths)


def _reads_more(text: str) -> bool:
    return text.startswith("#!") or bool(_JINJA.search(text) and _READS_MORE.search(text))


def _settled(opts: Mapping[str, Any], now: float) -> bool:
    """Tell whether every file is so old that another change would give it another time."""
    roots = [*_folders(opts["file_roots"]), *_folders(opts["pillar_roots"])]
    times = (each[3] for root in roots for _, *stats in _stats(root) for each in stats if isinstance(each, list))
    return max(times, default=0) < (now - _SETTLED) * 1e9


def _folders(roots: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for folders in roots.values():
        yield from map(os.fspath, folders)

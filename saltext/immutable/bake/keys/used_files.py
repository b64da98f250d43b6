"""Which files of the state tree a layer was made from: those that its bake asked for. Pure.

A bake asks the master for files, and what it asks for next follows from the answers so far. So a tree that gives the
same answers to the same questions leads to the same states, whatever else is in it.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from saltext.immutable.images.manifest import digest

Tree = Mapping[str, Mapping[str, str]]
"""By environment and path: a file's mode and hash, '' for a folder (``web/``), the target of a link (``web/link@``)."""
Trace = Sequence[Sequence[Any]]
"""What the builder observed while states were applied, as `builder.states.trace` writes it."""
_SHA256 = re.compile(r"(^| )[0-9a-f]{64}$")
_KINDS = ("envs", "file", "has", "list", "sls")


def asked(trace: Trace) -> list[list[Any]]:
    """Return the questions that a bake asked the master, each once."""
    found = [[*each[:3]] for each in trace if each[0] in _KINDS]
    return sorted([list(each) for each in {tuple(each) for each in found}], key=str)


def observed(trace: Trace) -> list[str]:
    """Return the sentences of the builder about what no key can see."""
    return list(dict.fromkeys(str(each[1]) for each in trace if each[0] == "unproven"))


def states(trace: Trace) -> dict[str, str]:
    """Return the keyed hash of each state that was applied, by its name."""
    return {f"{sls}: {identity} ({function})": hashed for _, sls, identity, function, hashed in _of(trace, "state")}


def environments(trace: Trace) -> set[str]:
    """Return the environments from which the master served files."""
    return {str(env) for _, env, *_ in _of(trace, "given")}


def unlisted(tree: Tree, trace: Trace) -> list[str]:
    """Return the files that the master served but does not list: a later bake cannot see whether they changed."""
    given = [(env, path) for _, env, path, found in _of(trace, "file") if found]
    return sorted({str(path) for env, path in given if _plain(path) not in tree.get(env, {})})


def differing(tree: Tree, trace: Trace) -> list[str]:
    """Return the files that the master served with another content than its tree has."""
    found = (
        (tree.get(str(env), {}).get(_plain(path), ""), str(path), given) for _, env, path, given in _of(trace, "given")
    )
    return sorted({path for served, path, given in found if _SHA256.search(served) and not served.endswith(given)})


def unproven(tree: Tree, trace: Trace) -> list[str]:
    """Return a sentence for each input of a bake that no key can see."""
    if not trace:
        return ["nothing was observed while its states were applied"]
    unseen = [f"{path} is served though the master does not list it" for path in unlisted(tree, trace)]
    return [*observed(trace), *unseen]


def _of(trace: Trace, kind: str) -> Iterator[Sequence[Any]]:
    yield from (each for each in trace if each[0] == kind)


def select(tree: Tree, questions: Trace | None) -> dict[str, Any]:
    """Return a tree's answers to these questions: ``files`` with mode and hash, ``lists`` with a hash each.

    None: it is not known what was asked, so every file counts. Custom modules always count: a minion syncs all of them.
    """
    if questions is None:
        return {"files": {env: dict(files) for env, files in tree.items()}, "lists": {}}
    files = {env: {path: served[path] for path in served if path.startswith("_")} for env, served in tree.items()}
    lists: dict[str, Any] = {}
    for kind, *about in questions:
        if kind == "envs":
            lists["environments"] = sorted(tree)
        elif kind == "file":
            env, path = str(about[0]), _plain(about[1])
            files.setdefault(env, {}).update(_file(tree.get(env, {}), path))
        else:
            env, what = map(str, about)
            lists[f"{kind} {env}:{what}"] = _ANSWERS[kind](tree.get(env, {}), what)
    return {"files": {env: dict(sorted(found.items())) for env, found in files.items() if found}, "lists": lists}


def _plain(path: Any) -> str:
    """Return a path as the master lists it, without the ``|`` that lets a name have a question mark."""
    return posixpath.normpath(str(path).removeprefix("|")).lstrip("/")


def _file(served: Mapping[str, str], path: str) -> dict[str, str]:
    """Return a file's mode and hash, '' if there is none; for a link also its target."""
    found = {path: served.get(path, "")}
    return found | ({f"{path}@": served[f"{path}@"]} if f"{path}@" in served else {})


def _below(served: Mapping[str, str], prefix: str) -> str:
    """Return a hash of the names that begin with ``prefix``, and of the targets of links among them."""
    start = prefix.strip("/")
    names = [path for path in served if path.startswith(start)]
    return digest(sorted(f"{path}{served[path]}" if path.endswith("@") else path for path in names))[:16]


def _has(served: Mapping[str, str], path: str) -> bool:
    plain = _plain(path)
    return plain in served or f"{plain}/" in served or f"{plain}@" in served


def _matching(served: Mapping[str, str], pattern: str) -> str | list[str]:
    """Return the names of state files that match a pattern; a hash of them if they are ten or more."""
    found = sorted(set(fnmatch.filter(_sls(served), pattern)))
    return found if len(found) < 10 else digest(found)[:16]


def _sls(served: Iterable[str]) -> Iterator[str]:
    """Yield the names of the state files, as ``salt.fileclient.Client.list_states`` makes them."""
    for path in served:
        if path.endswith(".sls"):
            yield path.replace("/", ".")[: -9 if path.endswith("/init.sls") else -4]


_ANSWERS = {"list": _below, "has": _has, "sls": _matching}

"""How two images differ, and what changed since a plan was made, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Tree = Mapping[str, Any]

_HASHED = {"states": "sls", "files": "files"}
"""The parts of a recipe's inputs that are compared by hash: name to key in its contents."""
_NAMED = 5
"""How many machines one sentence names; the others are counted."""


def difference(old: Tree, new: Tree) -> dict[str, Any]:
    """Return how image ``new`` differs from ``old``, without the parts that are the same.

    Each image has ``name``, ``digest``, ``settings`` (data of any depth; None: it is deleted) and ``contents`` (what
    ``bake.contents`` finds, or None). Returns from, to, same; packages, settings and recipes with added, removed and
    changed, each a mapping of name to value; states and files likewise, each a list of names; also (sentences); size
    (bytes more or less); and unknown: sentences about what cannot be told.
    """
    told = {"from": old["name"], "to": new["name"], "same": old["digest"] == new["digest"]}
    if told["same"]:
        return told
    parts: dict[str, Any] = {}
    if old["settings"] is not None:
        parts["settings"] = _changes(_flat(old["settings"]), _flat(new["settings"]))
    lacking = [image["name"] for image in (old, new) if image["contents"] is None]
    if lacking:
        why = "was not written down when it was baked, or it is deleted"
        parts["unknown"] = [f"packages and states: what went into {name} {why}" for name in lacking]
    else:
        parts |= _inside(old["contents"], new["contents"])
    return {**told, **{name: part for name, part in parts.items() if part}}


def _inside(old: Tree, new: Tree) -> dict[str, Any]:
    before, after = old["states"], new["states"]
    unknown = {name for states in (before, after) for name, made in states.items() if made["sls"] is None}
    known = [{name: made for name, made in states.items() if name not in unknown} for states in (before, after)]
    return {
        "packages": _changes(old["packages"], new["packages"]),
        **{what: _names(_changes(*(_all(states, of) for states in known))) for what, of in _HASHED.items()},
        "recipes": _changes(_flat(_each(before, "recipe")), _flat(_each(after, "recipe"))),
        "also": list(_also(before, after)),
        "size": new["size"] - old["size"],
        "unknown": [f"states: which SLS recipe {name} applied was not written down" for name in sorted(unknown)],
    }


def _changes(old: Tree, new: Tree) -> dict[str, dict[str, Any]]:
    """Return the entries that were added, removed and changed."""
    shared = [name for name in sorted(set(old) & set(new)) if old[name] != new[name]]
    found = {
        "added": {name: new[name] for name in sorted(set(new) - set(old))},
        "removed": {name: old[name] for name in sorted(set(old) - set(new))},
        "changed": {name: f"{old[name]} -> {new[name]}" for name in shared},
    }
    return {what: entries for what, entries in found.items() if entries}


def _names(changes: Mapping[str, Tree]) -> dict[str, list[str]]:
    """Return names without hashes, which mean nothing to people."""
    return {what: list(entries) for what, entries in changes.items()}


def _each(states: Tree, what: str) -> dict[str, Any]:
    return {recipe: made_from[what] for recipe, made_from in states.items()}


def _all(states: Tree, what: str) -> dict[str, str]:
    """Return the hashes of all recipes together, by name."""
    return {name: value for made_from in states.values() for name, value in made_from[what].items()}


def _also(old: Tree, new: Tree) -> Iterator[str]:
    """Yield what else changed, of which only a hash is known."""
    for recipe in sorted(set(old) & set(new)):
        before, after = old[recipe], new[recipe]
        if before["pillar"] != after["pillar"]:
            yield f"the pillar of {recipe}"
        if before["tops"] != after["tops"]:
            yield f"what the master's external tops say of {recipe}"
        if before["tree"] != after["tree"] and all(before[of] == after[of] for of in _HASHED.values()):
            yield f"files of the state tree that lie in no folder of a state of {recipe}"


def _flat(tree: Any, above: str = "") -> dict[str, str]:
    """Return the leaves of nested data by their path: ``{"strategy": {"soak": 5}}`` is ``{"strategy.soak": "5"}``."""
    if isinstance(tree, Mapping):
        return {path: leaf for name in tree for path, leaf in _flat(tree[name], f"{above}.{name}".lstrip(".")).items()}
    return {above: _leaf(tree)} if above else {}


def _leaf(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_leaf, value)) or "none"
    return "none" if value is None else str(value)


def moved(then: Tree, now: Tree) -> list[str]:
    """Return a sentence for each input of a plan that has changed since.

    Ground has ``image`` (name), ``digest``, ``generation``, ``unfinished`` (a rollout in words, or None), ``fleet``
    (the pillar's definition as data) and ``machines``: facts of each, by minion id.
    """
    return [
        *_image_moved(then, now),
        *leaves_moved(then["fleet"], now["fleet"]),
        *_machines_moved(then["machines"], now["machines"]),
    ]


def _image_moved(then: Tree, now: Tree) -> Iterator[str]:
    if then["digest"] != now["digest"]:
        yield f"image {now['image']} would run, not {then['image']}"
    if then["generation"] != now["generation"]:
        yield f"generation {now['generation'] or 'none'} runs, not {then['generation'] or 'none'}"
    if then["unfinished"] != now["unfinished"]:
        yield f"{now['unfinished']} is unfinished" if now["unfinished"] else f"{then['unfinished']} has ended"


def leaves_moved(then: Tree, now: Tree) -> Iterator[str]:
    """Yield each changed value of nested data, by its path: ``strategy.soak is 5, it was none``."""
    before, after = _flat(then), _flat(now)
    for path in sorted(set(before) | set(after)):
        if before.get(path) != after.get(path):
            yield f"{path} is {after.get(path, 'none')}, it was {before.get(path, 'none')}"


def _machines_moved(then: Mapping[str, Tree], now: Mapping[str, Tree]) -> Iterator[str]:
    for minion_ids, are in ((set(now) - set(then), "new"), (set(then) - set(now), "gone")):
        if minion_ids:
            yield _counted(minion_ids, are)
    changed: dict[str, set[str]] = {}
    for minion_id in set(then) & set(now):
        for fact in sorted(set(then[minion_id]) | set(now[minion_id])):
            before, after = then[minion_id].get(fact), now[minion_id].get(fact)
            if before != after:
                changed.setdefault(_fact(fact, before, after), set()).add(minion_id)
    for are in sorted(changed):
        yield _counted(changed[are], are)


def _fact(fact: str, before: Any, after: Any) -> str:
    """Return how a fact about a machine changed: ``tainted now``, ``no longer protected``, ``booting, not serving``."""
    if isinstance(before, bool) or isinstance(after, bool):
        return f"{fact} now" if after else f"no longer {fact}"
    return f"of {fact} {after}, not {before}"


def _counted(minion_ids: set[str], are: str) -> str:
    named = sorted(minion_ids)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    many = "1 machine is" if len(named) == 1 else f"{len(named)} machines are"
    return f"{many} {are}: {', '.join(named[:_NAMED])}{more}"

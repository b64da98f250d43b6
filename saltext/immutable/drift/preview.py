"""What the recipe's own states would change on this machine."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from saltext.immutable.drift.item import Item
from saltext.immutable.guard import seal

_SHOWN = 1000
Call = Callable[..., Any]
"""``__salt__``'s functions by name: ``call("state.apply", ...)``."""


def preview(call: Call) -> dict[str, Any]:
    """Return each change that the states of this machine's image predict, as drift with its state id and SLS.

    Keys: ``drift``, ``counts``, ``states`` (how many were asked), ``seconds``. A state that fails and an SLS that
    cannot be rendered are told among them.
    """
    began = time.monotonic()
    sealed = seal.required("no image says which states it was made with")
    results = [_asked(call, applied) for applied in sealed.policy.get("states", ())]
    found = [each for result in results for each in predicted(result)]
    return {
        "drift": found,
        "counts": dict(Counter(each["kind"] for each in found)),
        "states": sum(len(result) for result in results if isinstance(result, Mapping)),
        "seconds": round(time.monotonic() - began, 3),
    }


def _asked(call: Call, applied: Mapping[str, Any]) -> Any:
    """Run what a recipe applied in its bake, with ``test=True``."""
    where = {name: applied[name] for name in ("saltenv", "pillarenv") if applied.get(name)}
    try:
        if applied["sls"] == "highstate":
            return call("state.highstate", test=True, **where)
        return call("state.apply", ",".join(applied["sls"]), test=True, **where)
    except Exception as err:  # whatever a renderer raises says something about this machine
        return [f"{type(err).__name__}: {err}"]


def predicted(result: Any) -> Iterator[dict[str, Any]]:
    """Yield what a dry run of states (as `state.apply` returns it) says would change."""
    if not isinstance(result, Mapping):
        for said in result if isinstance(result, list) else [result]:
            yield {**Item("state", "states", f"they cannot be asked: {said}").told(), "sls": ""}
        return
    for tag, state in result.items():
        if state.get("result") is not True or state.get("changes"):
            what = state.get("__id__") or tag
            yield {**Item("state", str(what), _detail(state)).told(), "sls": state.get("__sls__") or ""}


def _detail(state: Mapping[str, Any]) -> str:
    word = "fails" if state.get("result") is False else "would change"
    changes = json.dumps(state["changes"], default=str) if state.get("changes") else ""
    return f"{word}: {state.get('comment') or ''} {changes}".strip()[:_SHOWN]

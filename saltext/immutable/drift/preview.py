"""The function ``immutable.preview``: what the recipe's states would change on this machine."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from saltext.immutable.drift.item import Item
from saltext.immutable.guard import seal
from saltext.immutable.state_names import name_of_result

_MAX_DETAIL = 1000
"""Characters."""
Call = Callable[..., Any]
"""Calls an execution function by name: ``call("state.apply", ...)``."""


def preview(call: Call) -> dict[str, Any]:
    """Return each change that the states of this machine's image predict, as drift with its state id and SLS.

    Keys: ``drift``, ``counts``, ``states`` (how many ran), ``left_out`` (how many would change something, as the bake
    already knew), ``seconds``. A state that fails and an SLS that cannot be
    rendered are drift too. Raises ``CommandExecutionError`` on a machine that is not sealed.
    """
    began = time.monotonic()
    sealed = seal.required("it has no image whose states could be previewed")
    results = [_dry_run(call, applied) for applied in sealed.policy.get("states", ())]
    known = frozenset(sealed.policy.get("not_previewed", ()))
    found = [each for result in results for each in predicted(result, known)]
    everything = sum(1 for result in results for _ in predicted(result))
    return {
        "drift": found,
        "counts": dict(Counter(each["kind"] for each in found)),
        "states": sum(len(result) for result in results if isinstance(result, Mapping)),
        "left_out": everything - len(found),
        "seconds": round(time.monotonic() - began, 3),
    }


def _dry_run(call: Call, applied: Mapping[str, Any]) -> Any:
    """Run the states that a recipe applied in its bake, with ``test=True``."""
    environment = {name: applied[name] for name in ("saltenv", "pillarenv") if applied.get(name)}
    try:
        if applied["sls"] == "highstate":
            return call("state.highstate", test=True, **environment)
        return call("state.apply", ",".join(applied["sls"]), test=True, **environment)
    except Exception as err:  # a renderer may raise anything
        return [f"{type(err).__name__}: {err}"]


def predicted(result: Any, known: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the changes that a dry run of states predicts; ``result``: as `state.apply` returns it.

    ``known``: names of states that would change something on each machine; only their failures count.
    """
    if not isinstance(result, Mapping):
        for error in result if isinstance(result, list) else [result]:
            yield {**Item("state", "states", f"the states cannot run: {error}").as_dict(), "sls": ""}
        return
    for tag, state in result.items():
        if state.get("result") is not False and known and name_of_result(tag, state) in known:
            continue
        if state.get("result") is not True or state.get("changes"):
            what = state.get("__id__") or tag
            yield {**Item("state", str(what), _detail(state)).as_dict(), "sls": state.get("__sls__") or ""}


def _detail(state: Mapping[str, Any]) -> str:
    word = "fails" if state.get("result") is False else "would change"
    changes = json.dumps(state["changes"], default=str) if state.get("changes") else ""
    return f"{word}: {state.get('comment') or ''} {changes}".strip()[:_MAX_DETAIL]

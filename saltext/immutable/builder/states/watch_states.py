"""Watch states as Salt applies them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from saltext.immutable.builder.states import custom_code, purity
from saltext.immutable.builder.states.trace import Trace, around, raised


def watch_states(trace: Trace) -> None:
    """Note each state, and what of it no key can see."""
    import salt.state

    def calling(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, low: Any, *args: Any, **kwargs: Any) -> Any:
            name = f"{low.get('state')}.{low.get('fun')}"
            trace.note("state", low.get("__sls__"), low.get("__id__"), name, trace.hash(low))
            trace.doing.append(f"state {low.get('__id__')} ({name}) of {low.get('__sls__')}")
            reason = purity.of_state(low)
            if reason:
                trace.unproven(reason)
            custom_code.custom(trace, self.states, name)
            for function in purity.calls(low):
                custom_code.custom(trace, self.functions, function)
            proven = contextlib.nullcontext() if reason or "source_hash" not in low else raised(trace, "proven")
            try:
                with proven:
                    return original(self, low, *args, **kwargs)
            finally:
                trace.doing.pop()

        return call

    around(salt.state.State, "call", calling)

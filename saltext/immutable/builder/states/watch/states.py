"""Record states as Salt applies them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from saltext.immutable.builder.states import custom_code, failed_state, purity
from saltext.immutable.builder.states.trace import Trace, counted, wrap_method
from saltext.immutable.state_names import name_of_state


def watch_states(trace: Trace) -> None:
    """Record each state, and why it is unproven."""
    import salt.state

    def calling(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, low: Any, *args: Any, **kwargs: Any) -> Any:
            name = f"{low.get('state')}.{low.get('fun')}"
            trace.note("state", low.get("__sls__"), low.get("__id__"), name, trace.hash(low))
            state = name_of_state(low.get("__id__"), name, low.get("__sls__"), low.get("name"))
            trace.in_progress.append(f"state {state}")
            if low.get("state") == "file":
                trace.note("wrote", str(low.get("name")), state)
            reason = purity.unproven_state(low)
            if reason:
                trace.unproven(reason)
            custom_code.check_function(trace, self.states, name)
            for function in purity.called_functions(low):
                custom_code.check_function(trace, self.functions, function)
            proven = contextlib.nullcontext() if reason or "source_hash" not in low else counted(trace, "proven")
            try:
                with proven, failed_state.errors_logged() as errors:
                    result = original(self, low, *args, **kwargs)
                return failed_state.explained(result, errors, self.functions)
            finally:
                trace.in_progress.pop()

        return call

    wrap_method(salt.state.State, "call", calling)

"""A call of a state function that may leave a part to the boot (see `deferred`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from saltext.immutable.builder.states.trace import Trace

Result = dict[str, Any]
"""What a state function returns: name, result, changes, comment."""
AT_LAUNCH = "run it on each machine (at_launch of the recipe)"
IN_VM = "bake in a machine with a kernel of its own (bake_in: vm)"


@dataclass(frozen=True)
class Call:
    """One call of a state function."""

    function: str
    arguments: Mapping[str, Any]
    """By name, with defaults."""
    salt: Mapping[str, Callable[..., Any]]
    """Salt's execution functions."""
    run: Callable[..., Result]
    """Calls Salt's own function, with further arguments perhaps."""
    trace: Trace
    at_boot: Collection[str]
    """Services that the recipe does not start in the bake."""

    @property
    def name(self) -> str:
        """The argument ``name``."""
        return str(self.arguments["name"])

    def get(self, argument: str) -> Any:
        """Return an argument, None where it is not given."""
        return self.arguments.get(argument)

    def deferred(self, what: str, applied_by: str, changes: Mapping[str, Any]) -> Result:
        """Record what is left to the boot, and return the result of a state whose persistent part is done."""
        self.trace.note("deferred", self._state, what, applied_by)
        comment = f"deferred to the boot: {what} (applied by {applied_by})"
        return {"name": self.name, "result": True, "changes": dict(changes), "comment": comment}

    def lost(self, what: str, place: str = "") -> None:
        """Record that a state succeeded, but that its effect ends with the machine that bakes.

        ``place``: where it mounted something, which a later state may unmount.
        """
        self.trace.note("lost", self._state, what, place)

    @property
    def _state(self) -> str:
        """The name of the state that is being applied."""
        return self.trace.in_progress[-1].removeprefix("state ") if self.trace.in_progress else self.function

    def run_caught(self) -> Result:
        """Return the result of Salt's function. One that a container stops with an exception has failed."""
        from salt.exceptions import CommandExecutionError

        try:
            return self.run()
        except (CommandExecutionError, OSError) as err:
            return self.failed(str(err))

    def failed(self, comment: str) -> Result:
        """Return the result of a state that fails."""
        return {"name": self.name, "result": False, "changes": {}, "comment": comment}

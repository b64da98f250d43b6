"""`schedule.*` and `beacon.*` speak with a running minion: say that there is none, and what to write in place."""

from __future__ import annotations

from saltext.immutable.builder.states.handlers.call import Call, Result

INSTEAD = {
    "schedule": (
        "a sealed machine runs no scheduled jobs of its minion either. Take the state out of the recipe's states, and "
        "write a timer of systemd, or a job of the master's schedule"
    ),
    "beacon": "write what the minion of each machine reads when it starts: beacons in a file of /etc/salt/minion.d",
}
"""State modules that speak with the minion, and what to do in place of them."""


def running(call: Call) -> Result:
    """Refuse what changes a running minion; from one that does not run nothing needs to be taken."""
    module, _, function = call.function.partition(".")
    if function in ("absent", "disabled"):
        comment = f"no minion runs in a bake that {call.name} could be taken from"
        return {"name": call.name, "result": True, "changes": {}, "comment": comment}
    return call.failed(f"{call.function} changes a running minion, and none runs in a bake; {INSTEAD[module]}")

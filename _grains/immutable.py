"""The grain ``immutable``: which image this machine runs, and for which fleet.

Standard library only, so that it works where it was merely synced; it never raises, since a grain that
does would cost every minion its start.
"""

from __future__ import annotations

import json
import os

SEAL_PATH = "/etc/immutable/seal.json"
MACHINE_PATH = "/etc/salt/minion.d/zzz-machine.conf"


def immutable():
    """Return ``{"immutable": {...}}``; ``sealed`` is False on a host that runs no image."""
    try:
        seal = _json(SEAL_PATH)
        if seal is None:
            return {"immutable": {"sealed": False}}
        machine = (_json(MACHINE_PATH) or {}).get("immutable_machine", {})
        return {"immutable": _said(seal, machine)}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as err:
        return {"immutable": {"sealed": True, "damaged": f"{type(err).__name__}: {err}"}}


def _said(seal, machine):
    return {
        "sealed": True,
        "image": f"{seal['recipe']}@{seal['image'][:12]}",
        "digest": seal["image"],
        "recipe": seal["recipe"],
        "fleet": machine.get("fleet"),
        "generation": machine.get("generation"),
    }


def _json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        if os.path.islink(path):
            raise
        return None

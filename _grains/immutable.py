"""The grain ``immutable``: which image this machine runs, and for which fleet.

Standard library only, so that it also works where it was synced without the library. It never raises: a grain that
raises would keep the minion from starting.
"""

from __future__ import annotations

import json
import os

SEAL_PATH = "/etc/immutable/seal.json"
MACHINE_PATH = "/etc/salt/minion.d/zzz-machine.conf"


def immutable():
    """Return ``{"immutable": {...}}``: sealed, image, digest, recipe, fleet, generation.

    On a host without a seal only ``sealed: False``; if a file cannot be read, ``damaged`` with the error.
    """
    try:
        seal = _json(SEAL_PATH)
        if seal is None:
            return {"immutable": {"sealed": False}}
        machine = (_json(MACHINE_PATH) or {}).get("immutable_machine", {})
        return {"immutable": _grain(seal, machine)}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as err:
        return {"immutable": {"sealed": True, "damaged": f"{type(err).__name__}: {err}"}}


def _grain(seal, machine):
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

"""The result of `fleet.plan`: what a roll would do, how the images differ, and an id to have exactly that done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salt.exceptions import SaltInvocationError

from saltext.immutable.bake import contents
from saltext.immutable.fleet.books.saved_plans import Plans
from saltext.immutable.fleet.decide.difference import difference
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.fleet.show.report import describe_forecast
from saltext.immutable.store import Store


def propose(operations: Operations, name: str, image: str | None = None) -> dict[str, Any]:
    """Return what ``fleet.roll`` would do now, and how the images differ; save the plan if it does anything.

    ``image``: another image than the channel's.
    """
    forecast = operations.forecast_roll(name, image)
    result: dict[str, Any] = {**describe_forecast(forecast), "difference": None, "plan": None, "warnings": []}
    if forecast.digest is not None:
        result["warnings"] = operations.access.unmet(operations.definition(name), forecast.digest)
        lineage = operations.ledger(name).lineage()
        current = operations.ledger(name).generation(lineage[-1]).image if lineage else None
        result["difference"] = image_difference(operations.store, current, forecast.digest)
    if forecast.nothing:
        return result
    ground = operations.ground(forecast)
    plans = Plans(operations.store, name)
    plan = plans.save(ground, forecast.actions, operations.clock(), image=image, who=operations.user)
    return {**result, "plan": plan}


def image_difference(store: Store, old: str | None, new: str) -> dict[str, Any]:
    """Return how two images differ, by their digests. ``old`` may be None, or an image that was deleted."""
    if old is None:
        return {"from": None, "to": _image(store, new)["name"], "same": False}
    return difference(_image(store, old), _image(store, new))


def _image(store: Store, digest: str) -> Mapping[str, Any]:
    try:
        image = store.image(digest)
    except SaltInvocationError:
        return {"name": f"{digest[:12]} (deleted)", "digest": digest, "settings": None, "contents": None}
    settings = {name: image.report[name] for name in ("salt", "pack", "policy") if name in image.report}
    found = contents.find(store, digest)
    grains = (found or {}).get("grains", {})
    return {
        "name": image.name,
        "digest": digest,
        "settings": {**settings, "read_only": image.read_only, "grains": grains},
        "contents": found,
    }

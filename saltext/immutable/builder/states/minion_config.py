"""What a state tree writes into the minion's config, and a sealed machine could not keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import salt.utils.yaml
from salt.exceptions import CommandExecutionError

_REFUSED = {
    "autoload_dynamic_modules": "a highstate, with test=True too, would sync executors that outrank the guard",
    "master_alive_interval": "it is a scheduled job, and a sealed machine runs none; a minion reconnects by itself",
    "executor_dirs": "executors from there would outrank the guard",
    "module_executors": "the guard is in direct_call, splay and sudo, which Salt takes without it",
}


def refuse(tree: Path) -> None:
    """Raise where a layer (its files below ``tree``) sets what would weaken the guard, or what would not work."""
    found = [f"/{file.relative_to(tree)} sets {wrong}" for file in _files(tree) for wrong in wrongs(_read(file))]
    if found:
        raise CommandExecutionError("; ".join(found) + "; take it out of the states of this recipe")


def _files(tree: Path) -> Iterator[Path]:
    place = tree / "etc/salt"
    yield from (file for file in [place / "minion", *sorted(place.glob("minion.d/*.conf"))] if file.is_file())


def _read(file: Path) -> Mapping[str, Any]:
    """Return the config of a file; what Salt could not read either is none."""
    try:
        found = salt.utils.yaml.safe_load(file.read_text(errors="replace"))
    except salt.utils.yaml.YAMLError:
        return {}
    return found if isinstance(found, Mapping) else {}


def wrongs(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of a minion's config a sealed machine could not keep, each with the reason."""
    for name, reason in _REFUSED.items():
        if config.get(name):
            yield f"{name}: {reason}"
    schedule = config.get("schedule")
    if isinstance(schedule, Mapping) and schedule.get("enabled"):
        yield "schedule:enabled: scheduled jobs pass no guard"

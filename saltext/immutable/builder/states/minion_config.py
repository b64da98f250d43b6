"""Minion config of sealed machines: what a state tree must not set. (`spec.minion_settings`: what a fleet may set.)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import salt.utils.yaml
from salt.exceptions import CommandExecutionError

from saltext.immutable.guard import loader_settings

_REFUSED = {
    "autoload_dynamic_modules": "a highstate, also with test=True, would sync executors that take the guard's place",
    "master_alive_interval": "it is a scheduled job, and a sealed machine runs none; a minion reconnects without it",
    "executor_dirs": "executors from there would take the guard's place",
    "module_dirs": "executors from there would take the guard's place",
    "module_executors": "the guard is in direct_call, splay and sudo, which Salt uses without this setting",
}


def refuse(tree: Path) -> None:
    """Raise CommandExecutionError where the minion config in a layer's tree has a setting that `violations` names."""
    found = [f"/{file.relative_to(tree)} sets {each}" for file in _files(tree) for each in violations(_read(file))]
    if found:
        raise CommandExecutionError(
            f"no image may set this of its minion: {'; '.join(found)}; take it out of the states of this recipe"
        )


def _files(tree: Path) -> Iterator[Path]:
    folder = tree / "etc/salt"
    yield from (file for file in [folder / "minion", *sorted(folder.glob("minion.d/*.conf"))] if file.is_file())


def _read(file: Path) -> Mapping[str, Any]:
    """Return the config in a file, {} where it is no YAML mapping: Salt cannot read it either."""
    try:
        found = salt.utils.yaml.safe_load(file.read_text(errors="replace"))
    except salt.utils.yaml.YAMLError:
        return {}
    return found if isinstance(found, Mapping) else {}


def violations(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield each setting that a sealed machine must not have, with the reason."""
    for name, reason in _REFUSED.items():
        if config.get(name):
            yield f"{name}: {reason}"
    yield from loader_settings.leaving_out(config)
    schedule = config.get("schedule")
    if isinstance(schedule, Mapping) and schedule.get("enabled"):
        yield "schedule:enabled: the guard does not see scheduled jobs"

"""The answer of ``immutable.status``: image, fleet, policy, problems, stopped jobs, break-glass and counts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saltext.immutable.guard import break_glass, gate, intake, launch, loader_settings, seal


def status(opts: Mapping[str, Any], pillar: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image of this machine, and what is wrong with its seal (``problems``: sentences)."""
    try:
        found = seal.read(seal.SEAL_PATH)
        machine = seal.machine(seal.MACHINE_PATH)
    except seal.SealDamaged as err:
        return {"sealed": True, "problems": [str(err)]}
    if found is None:
        return {"sealed": False, "problems": []}
    return {
        "sealed": True,
        "problems": list(_problems(found, opts)),
        "image": found.name,
        "digest": found.image,
        "recipe": found.recipe,
        "read_only": found.read_only,
        "adopted": found.adopted is not None,
        "created": found.created,
        "salt": found.salt,
        "pack": found.pack,
        "policy": found.policy,
        **{key: machine.get(key) for key in ("fleet", "generation", "installation")},
        "stopped_jobs": stopped_jobs(opts, pillar),
        "launched": launch.launched(found.policy),
        "glass": _break_glass(opts),
        "counts": gate.counts(),
    }


def stopped_jobs(opts: Mapping[str, Any], pillar: Mapping[str, Any]) -> dict[str, str]:
    """Return the scheduled jobs of config and pillar that a sealed machine does not run: name to function."""
    jobs: dict[str, str] = {}
    for source in (pillar, opts):
        schedule = source.get("schedule")
        for name, job in schedule.items() if isinstance(schedule, Mapping) else ():
            if isinstance(job, Mapping):
                jobs[name] = str(job.get("function") or job.get("func") or "?")
    return jobs


def _break_glass(opts: Mapping[str, Any]) -> dict[str, Any] | None:
    granted = break_glass.current_grant(opts)
    if granted is None:
        return None
    return {"who": granted.who, "reason": granted.reason, "seconds_left": round(break_glass.seconds_left(granted))}


def _problems(found: seal.Seal, opts: Mapping[str, Any]) -> Iterator[str]:
    schedule = opts.get("schedule")
    if not isinstance(schedule, Mapping) or schedule.get("enabled", True) is not False:
        yield "the scheduler runs, and the guard does not see its jobs: set `schedule: {enabled: False}` in the config"
    if opts.get("master_alive_interval"):
        yield "master_alive_interval is set, but a sealed machine runs no scheduled job, so the master is never checked"
    if opts.get("__cli") == "salt-minion" and not intake.judges:  # a salt-call receives no job
        yield gate.NOT_INSTALLED
    for setting in loader_settings.leaving_out(opts):
        yield f"the config sets {setting}; take it out of the config"
    for folder in _before_the_guard(opts):
        yield f"Salt's loader takes the executors of {folder} before the guard; remove that folder"
    if found.read_only and _root_is_writable():
        yield "the root is writable, but the image is read-only; replace this machine"


def _root_is_writable() -> bool:
    return os.access("/", os.W_OK)


def _before_the_guard(opts: Mapping[str, Any]) -> Iterator[str]:
    """Yield folders whose executors Salt's loader takes before those of an installed package."""
    roots = [opts.get("extension_modules"), *(opts.get("module_dirs") or [])]
    folders = [Path(root, "executors") for root in roots if root] + list(map(Path, opts.get("executor_dirs") or []))
    for folder in folders:
        # Salt also takes packages, compiled code and libraries, and compiled code in __pycache__ without its source.
        if folder.is_dir() and any(path.is_file() for path in folder.rglob("*")):
            yield str(folder)

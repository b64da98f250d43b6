"""All that a machine can say about its seal, in one answer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saltext.immutable.guard import break_glass, gate, launch, seal


def status(opts: Mapping[str, Any], pillar: Mapping[str, Any]) -> dict[str, Any]:
    """Return what this machine says about its image, and what is wrong with that."""
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
        "glass": _glass(opts),
        "counts": gate.counts(),
    }


def stopped_jobs(opts: Mapping[str, Any], pillar: Mapping[str, Any]) -> dict[str, str]:
    """Return the scheduled jobs of config and pillar that do not run here: name to function."""
    jobs: dict[str, str] = {}
    for source in (pillar, opts):
        schedule = source.get("schedule")
        for name, job in schedule.items() if isinstance(schedule, Mapping) else ():
            if isinstance(job, Mapping):
                jobs[name] = str(job.get("function") or job.get("func") or "?")
    return jobs


def _glass(opts: Mapping[str, Any]) -> dict[str, Any] | None:
    granted = break_glass.grant(opts)
    if granted is None:
        return None
    return {"who": granted.who, "reason": granted.reason, "seconds_left": round(break_glass.seconds_left(granted))}


def _problems(found: seal.Seal, opts: Mapping[str, Any]) -> Iterator[str]:
    schedule = opts.get("schedule")
    if not isinstance(schedule, Mapping) or schedule.get("enabled", True) is not False:
        yield "the scheduler runs, past the guard: `schedule: {enabled: False}` is missing from the minion's config"
    if opts.get("master_alive_interval"):
        yield "master_alive_interval is set, but no scheduled job runs: nobody looks whether the master is alive"
    for folder in _above_the_guard(opts):
        yield f"{folder} outranks the guard; remove it"
    if found.read_only and _root_is_writable():
        yield "the root can be written, though the image says that it is read-only"


def _root_is_writable() -> bool:
    return os.access("/", os.W_OK)


def _above_the_guard(opts: Mapping[str, Any]) -> Iterator[str]:
    """Yield folders whose executors Salt's loader takes before those of an installed package."""
    roots = [opts.get("extension_modules"), *(opts.get("module_dirs") or [])]
    for place in [Path(root, "executors") for root in roots if root] + list(map(Path, opts.get("executor_dirs") or [])):
        if place.is_dir() and any(place.glob("*.py")):
            yield str(place)

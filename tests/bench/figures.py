"""The figures: each is measured together with its baseline."""

from __future__ import annotations

import itertools
import operator
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from unittest import mock

import salt.config

from saltext.immutable.bake import bake, states
from saltext.immutable.machines.machine import Machine
from saltext.immutable.minions import Jobs, Minions, NoAnswer
from saltext.immutable.providers import Identity
from saltext.immutable.providers.nspawn import Nspawn
from tests.bench import drifting, guarding, planning
from tests.support.estate import Estate, wait_for

_versions = itertools.count(1)


@dataclass(frozen=True)
class Figure:
    """Something measured: ``measure`` returns ours and the baseline's, ``value`` what the two come to."""

    unit: str
    baseline: str
    measure: Callable[[Estate], tuple[float, float]]
    value: Callable[[float, float], float]
    measured: str = "seconds"


def opts_of(estate: Estate) -> dict[str, Any]:
    """Return the master's opts."""
    opts: dict[str, Any] = salt.config.master_config(str(estate.etc / "master"))
    return opts


def first_image(estate: Estate) -> None:
    """Bake what the figures start from; its layers may be there already."""
    estate.salt_run("image.bake", "web")


def bake_over_salt_call(estate: Estate) -> tuple[float, float]:
    """Bake a state layer; its own ``salt-call`` is the baseline: the same states in the same machine."""
    bare: list[float] = []

    def timed(machine: Machine, order: Any) -> Any:
        began = time.monotonic()
        done = apply(machine, order)
        bare.append(time.monotonic() - began)
        return done

    # A pillar that was never baked before, so that the layer has to be built.
    estate.write_pillar("web", {"web": {"version": f"bench {next(_versions)} {secrets.token_hex(4)}"}})
    apply = states.apply
    with mock.patch.object(states, "apply", timed):
        layer = bake.bake("web", opts_of(estate))["layers"][-1]
    return layer["seconds"], bare[0]


def rebake_unchanged(estate: Estate) -> tuple[float, float]:
    """Bake what has not changed, beside a ``salt-run`` that does nothing."""
    first_image(estate)
    return estate.salt_run("image.bake", "web").seconds, estate.salt_run("test.arg").seconds


def roll_over_bare_boot(estate: Estate) -> tuple[float, float]:
    """Roll three machines, from the command to its end, beside three started bare until their minions answer."""
    first_image(estate)
    rolled = estate.salt_run("fleet.roll", "web")
    estate.salt_run("fleet.destroy", "web")
    return rolled.seconds, _bare_boot(estate)


def _bare_boot(estate: Estate) -> float:
    opts = opts_of(estate)
    image = bake.bake("web", opts)["digest"]
    minions, provider = Minions(opts), Nspawn({}, opts)
    names = [f"web-{secrets.token_hex(8)}.example.com" for _ in range(3)]
    try:
        began = time.monotonic()
        for name in names:
            minions.expect(name)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda name: provider.launch(image, Identity(name, "bench", 1, "bench")), names))
            _wait_for_starts(minions, set(names))
            list(pool.map(lambda name: _answers(opts, name), names))
        return time.monotonic() - began
    finally:
        for name in names:
            provider.destroy(name)
            minions.forget(name)
        minions.close()


def _wait_for_starts(minions: Minions, names: set[str]) -> None:
    started: set[str] = set()

    def all_started() -> bool:
        started.update(event.minion_id for event in minions.poll() if event.kind == "started")
        return names <= started

    wait_for(all_started, 60.0, every=0.02)


def _answers(opts: dict[str, Any], name: str) -> None:
    jobs = Jobs(opts)

    def answers() -> bool:
        try:
            return bool(jobs.run(name, "test.ping"))
        except NoAnswer:
            return False

    wait_for(answers)


def milliseconds(ours: float, bare: float) -> float:
    """Return ours in milliseconds."""
    return ours * 1000


def alone(ours: float, bare: float) -> float:
    """Return ours as it is; the baseline is there for the ratio."""
    return ours


def ratio(ours: float, bare: float) -> float:
    """Return how many times the baseline ours is."""
    return ours / bare


FIGURES = {
    "bake_over_salt_call_ratio": Figure("x", "bare salt-call of the same states", bake_over_salt_call, ratio),
    "rebake_unchanged_s": Figure("s", "salt-run test.arg", rebake_unchanged, operator.sub),
    "roll_over_bare_boot_ratio": Figure("x", "three machines started bare", roll_over_bare_boot, ratio),
    "guard_sealed_call_us": Figure("us", "core's direct_call", guarding.sealed_call, guarding.per_call),
    "guard_unsealed_call_ratio": Figure("x", "core's direct_call", guarding.unsealed_call, ratio),
    "drift_metadata_20k_s": Figure("s", "find over the same files", drifting.metadata, alone),
    "drift_full_20k_s": Figure("s", "sha256sum of the same files", drifting.full, alone),
    "plan_10000_ms": Figure("ms", "a walk over the same machines", planning.ten_thousand, milliseconds),
    "plan_growth_ratio": Figure("x", "a machine of 10,000", planning.growth, ratio),
    "drift_memory_20k_mb": Figure("MB", "a bare Python", drifting.memory, operator.sub, "megabytes"),
}

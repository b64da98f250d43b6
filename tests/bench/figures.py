"""The figures: each is measured together with its baseline."""

from __future__ import annotations

import itertools
import operator
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

from saltext.immutable.bake import bake, states
from saltext.immutable.machines.machine import Machine
from tests.bench import drifting, guarding, planning, rolling, simulating
from tests.support.estate import Estate

_versions = itertools.count(1)


@dataclass(frozen=True)
class Figure:
    """Something measured: ``measure`` returns ours and the baseline's, ``value`` what the two come to."""

    unit: str
    baseline: str
    measure: Callable[[Estate], tuple[float, float]]
    value: Callable[[float, float], float]
    measured: str = "seconds"


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
        layer = bake.bake("web", rolling.opts_of(estate))["layers"][-1]
    return layer["seconds"], bare[0]


def rebake_unchanged(estate: Estate) -> tuple[float, float]:
    """Bake what has not changed, beside a ``salt-run`` that does nothing."""
    first_image(estate)
    return estate.salt_run("image.bake", "web").seconds, estate.salt_run("test.arg").seconds


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
    "roll_over_bare_boot_ratio": Figure("x", "three machines started bare", rolling.three_machines, ratio),
    "roll_10_over_bare_boot_ratio": Figure("x", "ten machines started bare", rolling.ten_machines, ratio),
    "fast_rollback_over_launch_ratio": Figure("x", "a rollback by launch", rolling.back_by_traffic, ratio),
    "sim_10000_cpu_s": Figure("s", "ten rollouts of 1,000 machines", simulating.cpu, alone),
    "sim_10000_peak_mb": Figure("MB", "a rollout of 1,000 machines", simulating.memory, alone, "megabytes"),
    "guard_sealed_call_us": Figure("us", "core's direct_call", guarding.sealed_call, guarding.per_call),
    "guard_unsealed_call_ratio": Figure("x", "core's direct_call", guarding.unsealed_call, ratio),
    "drift_metadata_20k_s": Figure("s", "find over the same files", drifting.metadata, alone),
    "drift_full_20k_s": Figure("s", "sha256sum of the same files", drifting.full, alone),
    "plan_10000_ms": Figure("ms", "a walk over the same machines", planning.ten_thousand, milliseconds),
    "plan_growth_ratio": Figure("x", "a machine of 10,000", planning.growth, ratio),
    "drift_memory_20k_mb": Figure("MB", "a bare Python", drifting.memory, operator.sub, "megabytes"),
}

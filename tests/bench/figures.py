"""The figures: each is measured together with its baseline."""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from tests.bench import baking, drifting, guarding, looking, packing, planning, rolling, simulating
from tests.support.estate import Estate


@dataclass(frozen=True)
class Figure:
    """Something measured: ``measure`` returns ours and the baseline's, ``value`` what the two come to."""

    unit: str
    baseline: str
    measure: Callable[[Estate], tuple[float, float]]
    value: Callable[[float, float], float]
    measured: str = "seconds"
    ready: Callable[[Estate], AbstractContextManager[None]] = nullcontext
    """Sets up what all runs of it need, and takes it away."""
    runs: int = 3


def first_image(estate: Estate) -> None:
    """Bake what the figures start from; its layers may be there already."""
    estate.salt_run("image.bake", "web")


def milliseconds(ours: float, bare: float) -> float:
    """Return ours in milliseconds."""
    return ours * 1000


def alone(ours: float, bare: float) -> float:
    """Return ours as it is; the baseline is there for the ratio."""
    return ours


def ratio(ours: float, bare: float) -> float:
    """Return how many times the baseline ours is."""
    return ours / bare


_SALT_CALL = "bare salt-call of the same states"
_PACKERS: tuple[tuple[str, packing.Base, str], ...] = (
    ("", "debian", "packer build of the same states, from Debian"),
    ("_prepared", "prepared", "packer build of the same states, from an image with Salt"),
    ("_cached", "cached", "packer build from an image with Salt, with our package cache"),
)

FIGURES = {
    "bake_over_salt_call_ratio": Figure("x", _SALT_CALL, baking.site_over_salt_call, ratio, ready=baking.site_ready),
    "bake_heavy_over_salt_call_ratio": Figure(
        "x", _SALT_CALL, baking.heavy_over_salt_call, ratio, ready=baking.heavy_ready
    ),
    **{
        f"bake{heavy}_over{of}_packer_ratio": Figure(
            "x", baseline, partial(packing.over_packer, recipe, base), ratio, ready=partial(packing.ready, recipe, base)
        )
        for of, base, baseline in _PACKERS
        for heavy, recipe in (("", "site"), ("_heavy", "heavy"))
    },
    "rebake_unchanged_s": Figure("s", "salt-run test.arg", baking.unchanged, operator.sub),
    "rebake_top_of_three_s": Figure("s", _SALT_CALL, baking.top_of_three, alone, ready=baking.upper_ready),
    "cold_base_over_mmdebstrap_ratio": Figure(
        "x", "mmdebstrap of the same packages", baking.cold_base, ratio, ready=baking.cold_ready
    ),
    "disk_10_images_over_1_ratio": Figure(
        "x", "one of them", baking.ten_images, ratio, "megabytes", ready=baking.site_ready, runs=1
    ),
    "roll_over_bare_boot_ratio": Figure("x", "three machines started bare", rolling.three_machines, ratio),
    "roll_10_over_bare_boot_ratio": Figure("x", "ten machines started bare", rolling.ten_machines, ratio),
    "fast_rollback_over_launch_ratio": Figure("x", "a rollback by launch", rolling.back_by_traffic, ratio),
    "sim_10000_cpu_s": Figure("s", "ten rollouts of 1,000 machines", simulating.cpu, alone),
    "sim_10000_peak_mb": Figure("MB", "a rollout of 1,000 machines", simulating.memory, alone, "megabytes"),
    "guard_sealed_call_us": Figure("us", "core's direct_call", guarding.sealed_call, guarding.per_call),
    "guard_unsealed_call_ratio": Figure("x", "core's direct_call", guarding.unsealed_call, ratio),
    "look_100_s": Figure("s", "as many bare jobs of Salt", looking.look_100, alone, ready=looking.simulated),
    "drift_metadata_20k_s": Figure("s", "find over the same files", drifting.metadata, alone),
    "drift_full_20k_s": Figure("s", "sha256sum of the same files", drifting.full, alone),
    "plan_10000_ms": Figure("ms", "a walk over the same machines", planning.ten_thousand, milliseconds),
    "plan_growth_ratio": Figure("x", "a machine of 10,000", planning.growth, ratio),
    "drift_memory_20k_mb": Figure("MB", "a bare Python", drifting.memory, operator.sub, "megabytes"),
}

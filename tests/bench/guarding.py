"""What the guard costs per call, against core's own executor: with Salt's real loader, in this process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import salt.config
import salt.executors.direct_call
import salt.loader

from saltext.immutable import spec
from saltext.immutable.executors import direct_call
from saltext.immutable.guard import seal
from saltext.immutable.spec.model import Recipe
from saltext.immutable.spec.origins import Debian
from tests.support.estate import Estate

CALLS = 5000


def sealed_call(estate: Estate) -> tuple[float, float]:
    """Return the seconds of ``CALLS`` calls that only read, on a sealed machine and through core's executor."""
    with _sealed(estate.home):
        return _both(estate)


def unsealed_call(estate: Estate) -> tuple[float, float]:
    """Return the same for a host without a seal."""
    with mock.patch.object(direct_call, "SEAL_PATH", str(estate.home / "no-seal.json")):
        return _both(estate)


def per_call(ours: float, bare: float) -> float:
    """Return the microseconds that the guard adds to a call."""
    return (ours - bare) / CALLS * 1e6


def _both(estate: Estate) -> tuple[float, float]:
    opts = salt.config.minion_config(None, minion_id="bench")
    opts |= {"file_client": "local", "cachedir": str(estate.home / "bench"), "grains": {}, "pillar": {}}
    func = salt.loader.minion_mods(opts)["test.ping"]
    data = {"fun": "test.ping", "jid": "1", "user": "root"}
    return tuple(_timed(executor.execute, opts, data, func) for executor in (direct_call, salt.executors.direct_call))


def _timed(execute: Any, opts: dict[str, Any], data: dict[str, Any], func: Any) -> float:
    execute(opts, data, func, [], {})
    began = time.perf_counter()
    for _ in range(CALLS):
        execute(opts, data, func, [], {})
    return time.perf_counter() - began


@contextmanager
def _sealed(home: Path) -> Iterator[None]:
    policy = spec.policy([Recipe("web", Debian("bookworm"), "web-bake")])
    about = {"image": "ab" * 32, "recipe": "web", "read_only": True, "created": 1.0, "salt": "3008", "pack": "0"}
    (home / "seal.json").write_text(json.dumps({**about, "policy": policy}, indent=1))
    own = {"id": "web-1", "master": "10.0.0.1", "immutable_machine": {"fleet": "web", "generation": 1}}
    (home / "machine.conf").write_text(json.dumps(own, indent=1))
    paths = {"SEAL_PATH": str(home / "seal.json"), "MACHINE_PATH": str(home / "machine.conf")}
    with (
        mock.patch.multiple(seal, **paths),
        mock.patch.object(direct_call, "SEAL_PATH", paths["SEAL_PATH"]),
    ):
        yield

"""Adoption: seal a minion that was not baked, and undo that. (An image is sealed by its bake and never unsealed.)

The seal file is written last, in one step: an interrupted adoption leaves the minion unsealed and can be repeated.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import salt.version
from salt.exceptions import CommandExecutionError
from salt.utils.crypt import pem_finger

from saltext.immutable import __version__, drift, spec
from saltext.immutable.guard import loader_settings, seal
from saltext.immutable.host import require_root, run, systemd_here, write
from saltext.immutable.spec import recipes
from saltext.immutable.spec.section import Section, refuse

ADOPTED = "adopted"
"""The recipe in the seal of an adopted machine."""
CONFIG = "zz-immutable-sealed.conf"
_SEALED_CONFIG = """\
# Written by immutable.seal. The guard does not see scheduled jobs; a highstate would sync executors that Salt prefers.
schedule: {enabled: False}
autoload_dynamic_modules: False
"""
_SYSTEMD = Path("/etc/systemd/system")
MINE_UNITS = ("immutable-mine.service", "immutable-mine.timer")

Call = Callable[..., Any]
"""Calls an execution function by name: ``call("schedule.disable")``."""


def policy(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the policy of an adopted machine; ``given``: ``guard`` and ``mutable`` as in a recipe.

    Raises ``SaltInvocationError`` that names each wrong key.
    """
    problems: list[str] = []
    found = recipes.adopted(ADOPTED, Section("immutable.seal", given, problems))
    refuse("immutable.seal", problems)
    return spec.policy([found])


def obstacles(opts: Mapping[str, Any], executor: str) -> list[str]:
    """Return why this minion cannot be sealed; empty if it can. ``executor``: the file of its ``direct_call``."""
    found = []
    ours = str(files("saltext.immutable") / "executors")
    if not os.path.realpath(executor).startswith(os.path.realpath(ours) + os.sep):
        found.append(f"calls go through {executor}, not through the guard; remove that executor or install this pack")
    if opts.get("master_alive_interval"):
        found.append(
            "master_alive_interval is set, and a sealed machine runs no scheduled job: it would never check whether "
            "its master is alive; remove it (the minion reconnects by itself when its connection breaks)"
        )
    found += [f"its config sets {setting}; take it out of the config" for setting in loader_settings.leaving_out(opts)]
    if opts.get("file_client") == "local":
        found.append("it has no master (file_client: local), so nobody could open it again by break-glass")
    return found


def master_pin(opts: Mapping[str, Any]) -> dict[str, str]:
    """Return what break-glass tokens are checked against: this minion's id, its master's fingerprint and hash type.

    Raises ``CommandExecutionError`` if the minion has not connected to its master yet.
    """
    path = Path(opts["pki_dir"], "minion_master.pub")
    if not path.exists():
        raise CommandExecutionError(f"this minion has no key of its master ({path}); connect it to its master first")
    finger = pem_finger(str(path), sum_type=opts["hash_type"])
    return {"id": opts["id"], "master_finger": finger, "hash_type": opts["hash_type"]}


def seal_minion(opts: Mapping[str, Any], policy: dict[str, Any], call: Call) -> seal.Seal:
    """Seal this minion, at once and for every start, and return its seal. Drift is compared with what is on it now.

    Raises ``CommandExecutionError``; then all that was done is undone.
    """
    require_root()
    pinned, scheduled = master_pin(opts), _scheduled(opts)
    with ExitStack() as undo:
        undo.callback(_remove_config, opts)
        _write_config(opts)
        undo.callback(_remove_mine_timer)
        _start_mine_timer()
        if scheduled:
            undo.callback(call, "schedule.enable")
            call("schedule.disable", persist=False)
        found = seal.Seal(
            image=drift.baseline(ADOPTED, policy),
            recipe=ADOPTED,
            read_only=False,
            created=time.time(),
            salt=salt.version.__version__,
            pack=__version__,
            policy=policy,
            adopted={**pinned, "scheduled": scheduled},
        )
        _commit(found)
        undo.pop_all()
    call("saltutil.refresh_modules")  # a minion that started before the pack was installed has core's executors loaded
    return found


def unseal_minion(opts: Mapping[str, Any], call: Call) -> None:
    """Undo `seal_minion`: remove the seal, its config and the mine's timer; enable the scheduler if it ran before."""
    require_root()
    found = seal.read(seal.SEAL_PATH)
    os.unlink(seal.SEAL_PATH)
    _remove_config(opts)
    _remove_mine_timer()
    if found and found.adopted and found.adopted.get("scheduled"):
        call("schedule.enable")  # and persist it: the minion may have saved meanwhile that the scheduler is off


def _scheduled(opts: Mapping[str, Any]) -> bool:
    """Tell whether this minion's scheduler runs."""
    schedule = opts.get("schedule")
    return not isinstance(schedule, Mapping) or schedule.get("enabled", True) is not False


def _commit(found: seal.Seal) -> None:
    """Write the seal file, once a temporary copy of it could be read back."""
    path = Path(seal.SEAL_PATH)
    path.parent.mkdir(parents=True, exist_ok=True)
    copy = path.with_name(".trial.json")
    text = json.dumps(asdict(found), indent=1)
    try:
        write(copy, text)
        if seal.read(str(copy)) != found:
            raise CommandExecutionError(f"the seal could not be read back from {copy}; nothing was sealed")
        write(path, text)
    finally:
        copy.unlink(missing_ok=True)


def _config(opts: Mapping[str, Any]) -> Path:
    return Path(opts["config_dir"], "minion.d", CONFIG)


def _write_config(opts: Mapping[str, Any]) -> None:
    _config(opts).parent.mkdir(parents=True, exist_ok=True)
    write(_config(opts), _SEALED_CONFIG)


def _remove_config(opts: Mapping[str, Any]) -> None:
    _config(opts).unlink(missing_ok=True)


def _start_mine_timer() -> None:
    """Let a systemd timer update the mine, since scheduled jobs stop; without systemd nothing updates it."""
    if not systemd_here():
        return
    source = files("saltext.immutable.guard") / "files"
    for unit in MINE_UNITS:
        write(_SYSTEMD / unit, source.joinpath(unit).read_text())
    run(["systemctl", "daemon-reload"])
    run(["systemctl", "enable", "--now", "--quiet", "immutable-mine.timer"])


def _remove_mine_timer() -> None:
    installed = [unit for unit in MINE_UNITS if (_SYSTEMD / unit).exists()]
    if installed:
        run(["systemctl", "disable", "--now", "--quiet", "immutable-mine.timer"], check=False)
    for unit in installed:
        (_SYSTEMD / unit).unlink()

"""The launch phase: apply the states of ``at_launch`` once per boot, with the machine's own pillar, grains and mine.

A unit of the image runs this file (`guard/files/immutable-launch.service`). It applies exactly the SLS files that the
seal names, through Salt's Python API, which calls no executor. So the guard needs no exception, and no caller can
choose other states. The result is a file in /run: after a reboot the phase runs again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError, SaltClientError, SaltReqTimeoutError

from saltext.immutable.guard import seal
from saltext.immutable.host import run, this_boot, write

RESULT_PATH = f"{seal.RUN_PATH}/launch.json"
UNIT = "immutable-launch.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/launch.conf"
"""Only images with an ``at_launch`` have it; without it systemd skips the unit (ConditionPathExists=)."""
_HOMES = ("/home", "/root")
"""ProtectSystem= does not cover them. If two lines name one path, systemd applies the stricter one."""
_CONFIG = "/etc/salt/minion"
_RETRY_AFTER = 2.0
"""Seconds between two attempts to reach the master."""
_POLL_INTERVAL = 0.1
"""Seconds between two checks whether the master has accepted this minion."""
_MASTER_UNREACHABLE = (SaltClientError, SaltReqTimeoutError, SystemExit)
"""Raised by Salt while the master cannot be reached or has not accepted the key."""


def drop_in(policy: Mapping[str, Any]) -> str | None:
    """Return the unit's drop-in for an image of this policy: where it may write besides /run and /var.

    None if the image has no ``at_launch``.
    """
    if not policy["at_launch"]:
        return None
    lines = [f"ReadOnlyPaths=-{path}" for path in _HOMES if path not in policy["writable"]]
    lines += [f"ReadWritePaths={path}" for path in policy["writable"]]
    return "\n".join(["[Service]", *lines, ""])


def launched(policy: Mapping[str, Any], path: str = RESULT_PATH, boot_id: str | None = None) -> bool | str:
    """Tell whether the launch phase of this boot has succeeded; if it failed, return why.

    ``boot_id``: of the machine that wrote the result at ``path``; default: of this one.
    """
    if not policy.get("at_launch"):
        return True
    found = _result(path, boot_id)
    if found is None:
        return False
    return True if found["ok"] else explain(found["failed"])


def explain(failed: Mapping[str, str]) -> str:
    """Return one sentence that names each failed state with its comment."""
    return "the launch phase failed: " + "; ".join(f"{name}: {comment}" for name, comment in failed.items())


def rerun(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Run the phase again in its unit, wait for its end, and return ok, sls, failed and seconds.

    The earlier result stays until the new one is written. Raises ``CommandExecutionError`` if the phase is running
    already, or ended without a new result.
    """
    if not policy.get("at_launch"):
        return {"ok": True, "sls": [], "failed": {}, "seconds": 0.0}
    if _systemctl("is-active", UNIT) in ("active", "activating"):
        raise CommandExecutionError(
            "the launch phase is running already; call immutable.launch again when it has ended"
        )
    before = _result()
    output = _systemctl("start", "--wait", UNIT)
    found = _result()
    if found is None or found == before:
        raise CommandExecutionError(f"the launch phase ended without a result: {output or f'see journalctl -u {UNIT}'}")
    return {name: found[name] for name in ("ok", "sls", "failed", "seconds")}


def _systemctl(*words: str) -> str:
    done = run(["systemctl", *words], check=False)
    return (done.stdout + done.stderr).strip()


def _result(path: str = RESULT_PATH, boot_id: str | None = None) -> dict[str, Any] | None:
    """Return the result that the phase of this boot wrote; None if there is none. A damaged file is a failure."""
    try:
        found = json.loads(Path(path).read_text())
        result = {name: found[name] for name in ("ok", "sls", "failed", "seconds", "at", "boot_id")}
        failed = {str(name): str(comment) for name, comment in result["failed"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        damage = f"this file is not the result of a launch phase: {type(err).__name__}: {err}"
        return {"ok": False, "sls": [], "failed": {path: damage}, "seconds": 0.0}
    return {**result, "failed": failed} if result["boot_id"] == (boot_id or this_boot()) else None


def run_phase(
    steps: Sequence[Mapping[str, Any]],
    caller: Callable[[], Any],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Apply the steps of the seal's ``at_launch``, and return ok, sls, failed (state id to comment) and seconds.

    ``caller`` returns a `salt.client.Caller`. While the master cannot be reached, the phase waits and starts again.
    """
    began = clock()
    while True:
        try:
            failed = _apply(steps, caller)
            break
        except _MASTER_UNREACHABLE as err:
            print(f"the master cannot be reached yet: {type(err).__name__}: {err}", flush=True)
            sleep(_RETRY_AFTER)
        except Exception as err:  # any error: the master has to learn that this machine will not be ready
            failed = {"launch": f"{type(err).__name__}: {err}"}
            break
    sls = [name for step in steps for name in step["sls"]]
    return {"ok": not failed, "sls": sls, "failed": failed, "seconds": round(clock() - began, 3)}


def _apply(steps: Sequence[Mapping[str, Any]], caller: Callable[[], Any]) -> dict[str, str]:
    """Apply each step and return the states that failed, with their comments."""
    api = caller()
    failed: dict[str, str] = {}
    for step in steps:
        # `concurrent`: else a dry run that somebody started at the same time would make the phase fail.
        kwargs: dict[str, Any] = {"test": False, "concurrent": True}
        kwargs |= {name: step[name] for name in ("saltenv", "pillarenv") if step[name]}
        failed |= _failed(step["sls"], api.cmd("state.sls", list(step["sls"]), **kwargs))
    return failed


def _failed(sls: Sequence[str], result: Any) -> dict[str, str]:
    if not isinstance(result, Mapping):
        reasons = result if isinstance(result, list) else [result]
        return {", ".join(sls): "\n".join(map(str, reasons))}
    failed: dict[str, str] = {}
    for state in result.values():
        if not state["result"]:
            name = str(state.get("__id__"))
            failed[name] = "\n".join(filter(None, (failed.get(name), str(state["comment"]).strip())))
    return failed


def _caller() -> Any:
    """Return Salt's Python API, once a master has accepted the key of this machine.

    Wait for the minion to enrol: a second process that enrols at the same time would make another key.
    """
    import salt.client
    import salt.config

    opts = salt.config.minion_config(_CONFIG)
    while not Path(opts["pki_dir"], "minion_master.pub").exists():
        time.sleep(_POLL_INTERVAL)
    return salt.client.Caller(mopts=opts)


def main() -> int:
    """Run the launch phase, write its result, and return the exit code of the unit."""
    try:
        found = seal.read()
        steps = found.policy.get("at_launch", []) if found else []
        result = run_phase(steps, _caller)
    except seal.SealDamaged as err:
        result = {"ok": False, "sls": [], "failed": {"seal": str(err)}, "seconds": 0.0}
    Path(RESULT_PATH).parent.mkdir(mode=0o700, exist_ok=True)
    write(Path(RESULT_PATH), json.dumps({**result, "at": time.time(), "boot_id": this_boot()}), mode=0o600)
    for name, comment in result["failed"].items():
        print(f"{name}: {comment}", flush=True)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())

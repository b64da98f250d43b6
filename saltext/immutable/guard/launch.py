"""The launch phase: what a machine applies once a boot, before it is ready, with its own pillar, grains and mine.

A unit of the image runs this file (`guard/files/immutable-launch.service`): exactly the state files that the seal
names, through Salt's own API, which passes no executor. So the guard needs no exception, and there is no argument by
which anybody could have others applied. What came of it stays in /run: a reboot begins anew.
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
"""Only an image with something to apply has it; without it systemd does not even start the unit."""
_HOMES = ("/home", "/root")
"""ProtectSystem= leaves them alone; and of two lines about one path systemd takes the stricter one."""
_CONFIG = "/etc/salt/minion"
_AGAIN_AFTER = 2.0
"""Seconds between two tries to reach the master."""
_LOOK_AGAIN = 0.1
"""Seconds between two looks at whether the minion has been let in."""
_AWAY = (SaltClientError, SaltReqTimeoutError, SystemExit)
"""What Salt raises while its master cannot be reached, or has not accepted the key."""


def drop_in(policy: Mapping[str, Any]) -> str | None:
    """Return what an image of this policy says of the unit: where it may write besides /run and /var."""
    if not policy["at_launch"]:
        return None
    lines = [f"ReadOnlyPaths=-{path}" for path in _HOMES if path not in policy["writable"]]
    lines += [f"ReadWritePaths={path}" for path in policy["writable"]]
    return "\n".join(["[Service]", *lines, ""])


def launched(policy: Mapping[str, Any], path: str = RESULT_PATH, boot_id: str | None = None) -> bool | str:
    """Tell whether the phase of this boot is over and all went well; a text is why it did not."""
    if not policy.get("at_launch"):
        return True
    found = _result(path, boot_id)
    if found is None:
        return False
    return True if found["ok"] else explain(found["failed"])


def explain(failed: Mapping[str, str]) -> str:
    """Return a sentence for each state that failed."""
    return "the launch phase failed: " + "; ".join(f"{name}: {comment}" for name, comment in failed.items())


def again(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Run the phase once more in its unit, and return what came of it: ok, sls, failed, seconds.

    The unit is a sandbox of its own, and what was known before stays until there is something new to say.
    """
    if not policy.get("at_launch"):
        return {"ok": True, "sls": [], "failed": {}, "seconds": 0.0}
    if _systemctl("is-active", UNIT) in ("active", "activating"):
        raise CommandExecutionError("the launch phase runs at this moment; ask again when it has ended")
    before = _result()
    said = _systemctl("start", "--wait", UNIT)
    found = _result()
    if found is None or found == before:
        raise CommandExecutionError(f"the launch phase did not end: {said or f'see journalctl -u {UNIT}'}")
    return {name: found[name] for name in ("ok", "sls", "failed", "seconds")}


def _systemctl(*words: str) -> str:
    done = run(["systemctl", *words], check=False)
    return (done.stdout + done.stderr).strip()


def _result(path: str = RESULT_PATH, boot_id: str | None = None) -> dict[str, Any] | None:
    """Return what the phase of this boot wrote."""
    try:
        found = json.loads(Path(path).read_text())
        told = {name: found[name] for name in ("ok", "sls", "failed", "seconds", "at", "boot_id")}
        failed = {str(name): str(comment) for name, comment in told["failed"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        damage = f"it is no result of a launch phase: {type(err).__name__}: {err}"
        return {"ok": False, "sls": [], "failed": {path: damage}, "seconds": 0.0}
    return {**told, "failed": failed} if told["boot_id"] == (boot_id or this_boot()) else None


def phase(
    orders: Sequence[Mapping[str, Any]],
    caller: Callable[[], Any],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Apply what the seal orders, as soon as ``caller`` gives a Salt that has a master, and return what came of it."""
    began = clock()
    while True:
        try:
            failed = _applied(orders, caller)
            break
        except _AWAY as err:
            print(f"no master yet: {type(err).__name__}: {err}", flush=True)
            sleep(_AGAIN_AFTER)
        except Exception as err:  # whatever it is: the master has to learn that this machine will not be ready
            failed = {"launch": f"{type(err).__name__}: {err}"}
            break
    sls = [name for order in orders for name in order["sls"]]
    return {"ok": not failed, "sls": sls, "failed": failed, "seconds": round(clock() - began, 3)}


def _applied(orders: Sequence[Mapping[str, Any]], caller: Callable[[], Any]) -> dict[str, str]:
    """Return the states that failed, with their comments."""
    api = caller()
    failed: dict[str, str] = {}
    for order in orders:
        # `concurrent`: a dry run that somebody started is no reason to fail.
        how: dict[str, Any] = {"test": False, "concurrent": True}
        how |= {name: order[name] for name in ("saltenv", "pillarenv") if order[name]}
        failed |= _failed(order["sls"], api.cmd("state.sls", list(order["sls"]), **how))
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
    """Return Salt's own API, once a master has accepted the key of this machine.

    The minion makes the key and is let in; a second one at the door at the same time would make a key of its own.
    """
    import salt.client
    import salt.config

    opts = salt.config.minion_config(_CONFIG)
    while not Path(opts["pki_dir"], "minion_master.pub").exists():
        time.sleep(_LOOK_AGAIN)
    return salt.client.Caller(mopts=opts)


def main() -> int:
    """Do what the unit is for."""
    try:
        found = seal.read()
        orders = found.policy.get("at_launch", []) if found else []
        result = phase(orders, _caller)
    except seal.SealDamaged as err:
        result = {"ok": False, "sls": [], "failed": {"seal": str(err)}, "seconds": 0.0}
    Path(RESULT_PATH).parent.mkdir(mode=0o700, exist_ok=True)
    write(Path(RESULT_PATH), json.dumps({**result, "at": time.time(), "boot_id": this_boot()}), mode=0o600)
    for name, comment in result["failed"].items():
        print(f"{name}: {comment}", flush=True)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())

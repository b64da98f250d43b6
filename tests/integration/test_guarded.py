"""Every path of paths.py, tried on a real machine against a real master: none may end unnoticed."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import salt.client
from paths import ROOT, ROWS, TOUCH, VAR, Row
from salt.utils import args as salt_args
from support.estate import wait_for

PILLAR = {
    "schedule": {"schedule": {"evil": {"function": "cmd.run", "args": [TOUCH], "seconds": 1}}},
    "mine_functions": {"mine_functions": {"evil": [{"mine_function": "cmd.run"}, TOUCH]}},
    "beacons": {"beacons": {"salt_monitor": [{"salt_fun": [{"cmd.run": {"args": [TOUCH]}}]}, {"interval": 1}]}},
}


@dataclass
class Ground:
    """A sealed machine, its master, and ways to try something."""

    estate: Any
    machine: dict[str, Any]
    shell: Callable[[str], str]
    key: Path
    authorized: str
    client: salt.client.LocalClient
    digest: str
    """Of the image, as the master knows it."""

    @property
    def minion_id(self) -> str:
        return str(self.machine["minion_id"])

    def marked(self, path: str = VAR) -> bool:
        return self.shell(f"test -e {path} && echo there") == "there"

    def pillar(self, data: dict[str, Any]) -> None:
        self.estate.write_pillar("fort", {"fort": {"authorized": self.authorized}, **data})
        self.job("saltutil.refresh_pillar", [])

    def refused(self, fun: str) -> int:
        status = json.loads(self.job("immutable.status", [])[1])
        return int(status["counts"].get("refused", {}).get(fun, 0))

    def job(self, fun: Any, args: Any, **how: Any) -> tuple[int, str]:
        """Return the return code of a job on the machine, and what it said."""
        done = self.client.cmd(self.minion_id, fun, args, timeout=30, full_return=True, **how)
        answer = done.get(self.minion_id) or {}
        code = answer.get("retcode", 1)
        said = json.dumps(answer.get("ret", "no answer"), default=str)
        return max(code.values()) if isinstance(code, dict) else int(code), said

    def drift(self) -> tuple[bool, list[dict[str, str]], str]:
        """Return whether it is as its image says, what drifted, and all that was said."""
        code, said = self.job("immutable.drift", [f"digest={self.digest}"])
        told = json.loads(said)
        items = told["drift"] if isinstance(told, dict) else []
        return code == 0 and bool(told["proven"]) and not items, items, said


@pytest.fixture(scope="module")
def ground(estate, inside, booted, configured, tmp_path_factory) -> Iterator[Ground]:
    key = tmp_path_factory.mktemp("ssh") / "key"
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", str(key)], check=True)
    authorized = key.with_suffix(".pub").read_text().strip()
    estate.write_pillar("fort", {"fort": {"authorized": authorized}})
    with configured(reactor=[{"attack/*": ["salt://attack/reactor.sls"]}]):
        digest = estate.salt_run("image.bake", "fort").data["digest"]
        client = salt.client.LocalClient(str(estate.etc / "master"))
        try:
            estate.salt_run("fleet.roll", "fort")
            [machine] = estate.salt_run("fleet.status", "fort").data["machines"]
            booted(machine["minion_id"])
            run = lambda line: inside(machine["minion_id"], line)  # noqa: E731
            yield Ground(estate, machine, run, key, authorized, client, digest)
        finally:
            client.destroy()
            estate.salt_run("fleet.destroy", "fort")


def test_a_machine_that_nobody_touched_has_no_drift(ground):
    well, _, told = ground.drift()
    assert well, told


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_no_path_ends_unnoticed(ground, row):
    ground.shell(f"rm -f {VAR}")
    code, said = ATTEMPTS[row.start](ground, row)
    assert not ground.marked(ROOT), said
    OUTCOMES[row.outcome](ground, row, code, said)


# What is tried


def salt_job(ground: Ground, row: Row) -> tuple[int, str]:
    """Do what `salt` does, whose start costs a second; what it makes of the return code, one row of `master` sees."""
    words = shlex.split(row.tried)
    if row.name == "highstate":
        answer = ground.estate.salt(ground.minion_id, *words, check=False)
        return answer.returncode, answer.stdout + answer.stderr
    executors = [word.partition("=")[2] for word in words if word.startswith("--module-executors")]
    fun, *args = [word for word in words if not word.startswith("--module-executors")]
    several = "," in fun
    return ground.job(
        fun.split(",") if several else fun,
        [[], *([arg] for arg in args[1:])] if several else salt_args.parse_input(args),
        **({"module_executors": [salt_args.yamlify_arg(word) for word in executors][0]} if executors else {}),
    )


def salt_job_id(ground: Ground, row: Row) -> tuple[int, str]:
    """Salt 3008 writes a file of that name for a running job, and deletes it. The answer comes under another id."""
    before, kept = ground.refused("test.ping"), "/var/lib/salt/pki/minion/minion.pem /var/lib/dpkg/statoverride"
    sums = ground.shell(f"sha256sum {kept}")
    ground.client.cmd_async(ground.minion_id, "test.ping", jid=row.tried)
    wait_for(lambda: ground.refused("test.ping") > before, 30)
    assert ground.shell(f"sha256sum {kept}") == sums
    return 1, row.says


def returner(ground: Ground, row: Row) -> tuple[int, str]:
    """Salt calls it after the job, past every executor, also where the function was refused or is unknown."""
    tried = json.loads(row.tried)
    fun, options = tried["fun"].split(","), {key: value for key, value in tried.items() if key != "fun"}
    code, said = ground.job(fun if len(fun) > 1 else fun[0], [[] for _ in fun] if len(fun) > 1 else [], **options)
    if fun == ["no.such_function"]:
        assert "is not available" in said
        return code, row.says
    return code, said


def salt_run(ground: Ground, row: Row) -> tuple[int, str]:
    if row.tried.startswith("ssh "):
        return salt_ssh(ground, row.tried.removeprefix("ssh ").split(None, 1))
    words = shlex.split(row.tried.replace("{id}", ground.minion_id))
    answer = ground.estate.salt_run(*words, check=False)
    # salt.execute returns what the machine said, whatever that was.
    return answer.returncode or int("sealed:" in answer.stdout), answer.stdout + answer.stderr


def salt_ssh(ground: Ground, command: list[str]) -> tuple[int, str]:
    place = ground.key.parent
    roster = {"fort": {"host": ground.machine["address"], "user": "root", "priv": str(ground.key)}}
    (place / "roster").write_text(json.dumps(roster))
    cli = ground.estate.cli("salt-ssh", roster_file=str(place / "roster"), target_host="fort")
    cli.__cli_output_supported__ = False
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(place)}
    done = ground.estate.run(cli, "--ignore-host-keys", "--no-host-keys", *command, env=env)
    shutil.rmtree(place / ".ssh", ignore_errors=True)
    return done.returncode, done.stdout + done.stderr


def shell(ground: Ground, row: Row) -> tuple[int, str]:
    said = ground.shell(f"( {row.tried}\n) 2>&1; echo exit code $?")
    return int(said.rsplit(None, 1)[-1]), said


def pillar(ground: Ground, row: Row) -> tuple[int, str]:
    ground.pillar(PILLAR[row.tried])
    try:
        return _seen(ground, row)
    finally:
        ground.pillar({})


def _seen(ground: Ground, row: Row) -> tuple[int, str]:
    """Wait until the machine has the pillar and did with it what it does."""
    if row.tried == "beacons":
        wait_for(ground.marked, 30)
        return 0, ""
    ask = {"mine_functions": ("config.get", ["mine_functions"]), "schedule": ("immutable.status", [])}[row.tried]
    wait_for(lambda: "evil" in ground.job(*ask)[1], 20)
    if row.tried == "schedule":
        time.sleep(3)  # three times its interval
        return 0, ""
    return ground.job("mine.update", [])


def bus(ground: Ground, row: Row) -> tuple[int, str]:
    """What nobody waits for: the machine's own count tells."""
    fun = "cmd.run" if row.tried else "state.highstate"
    before = ground.refused(fun) if row.tried else 0
    if row.tried:
        ground.job(row.tried.split()[0], row.tried.split()[1:])
    wait_for(lambda: ground.refused(fun) > before, 30)
    return 1, row.says


ATTEMPTS = {
    "master": salt_job, "job id": salt_job_id, "returner": returner, "runner": salt_run, "machine": shell,
    "pillar": pillar, "bus": bus,
}  # fmt: skip


# How it ends


def is_refused(ground: Ground, row: Row, code: int, said: str) -> None:
    assert code != 0, said
    assert row.says in said
    assert "Traceback" not in said
    assert not ground.marked(), said


def is_read_only(ground: Ground, row: Row, code: int, said: str) -> None:
    assert code != 0, said


def never_runs(ground: Ground, row: Row, code: int, said: str) -> None:
    assert not ground.marked(), said


def is_found(ground: Ground, row: Row, code: int, said: str) -> None:
    try:
        well, drift, told = ground.drift()
        assert not well, (said, told)
        kind, part = row.finds
        named = [item for item in drift if item["kind"] == kind and part in f"{item['what']} {item['detail']}"]
        assert named or (not kind and part in told), (said, drift, told)
    finally:
        ground.shell(row.undo or "true")


OUTCOMES = {"refused": is_refused, "read-only": is_read_only, "never runs": never_runs, "found": is_found}


def test_what_was_found_is_tainted_and_replaced(ground):
    before = ground.minion_id
    assert ground.estate.salt_run("fleet.drift", "fort", "taint=True", check=False).returncode != 0
    [machine] = ground.estate.salt_run("fleet.status", "fort").data["machines"]
    assert machine["tainted"], machine
    ground.estate.salt_run("fleet.roll", "fort")
    [machine] = ground.estate.salt_run("fleet.status", "fort").data["machines"]
    assert machine["minion_id"] != before
    assert not machine["tainted"]

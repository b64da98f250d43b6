"""Apply a recipe's states: ``salt-call`` against the master, in a machine on a writable overlay."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from salt.exceptions import CommandExecutionError
from salt.utils.stringutils import get_context

from saltext.immutable import rendering, systemd
from saltext.immutable.builder import mirrors, offline, pins
from saltext.immutable.builder.finish import secrets
from saltext.immutable.builder.sources import debian
from saltext.immutable.builder.sources.minion import EXTENSION_MODULES, VENV
from saltext.immutable.builder.states import chroot, failures, minion_config
from saltext.immutable.builder.states.handlers.network import FIREWALLS
from saltext.immutable.builder.states.trace import SECRETS
from saltext.immutable.builder.states.traced_salt_call import AT_BOOT, HASH_KEY, OWN_KERNEL
from saltext.immutable.host import Host, remove, tail
from saltext.immutable.machines.description import Machine

_PKI = "/run/immutable-pki"
TRACE = "/run/immutable-trace"
"""File in the machine in which `traced_salt_call` records what the states use."""
_SAVED_RULES = "/etc/nftables"
"""Where Salt saves rules of nftables: in a file of this directory, or in a file of this name where there is none."""
_LOADS_IPTABLES = "/usr/share/netfilter-persistent/plugins.d/15-ip4tables"
_INCLUDED = r'^[^#]*include[[:space:]]+"{path}{end}'
_PLACES = 5
"""Places in the tree that a message names."""
_HERE = "    <======================"
"""How Salt marks the line that an error is about."""
_KIND, _SERVICE = "deferred", ".service"
_TIMED_OUT = 124
"""Exit code of timeout(1) when the time is over."""
# Kinds of custom modules that an image never keeps: a synced executor would take the guard's place.
_NEVER_KEPT = ("executors",)
_FETCHED = "/var/cache/salt/minion/files"
_EXTMODS = "var/cache/salt/minion/extmods"
# States may require that the service salt-minion runs; during a bake it runs `sleep` instead.
_NO_MINION = "[Service]\nType=simple\nExecStart=\nExecStart=/bin/sleep infinity\n"
_DROP_IN = "/run/systemd/system/salt-minion.service.d/bake.conf"
# Units that are not to start in a bake, for example by the package that has them.
_NOT_STARTED = "/run/systemd/system/{}.d/bake.conf"
_NOT_HERE = "[Unit]\nConditionPathExists=/run/immutable-never\n"
# Nothing that runs by the clock: it would be in one layer and not in the next. An empty file masks a unit.
_TIMERS = "/run/systemd/system/timers.target"
# Without an init, packages start their daemons by invoke-rc.d, which asks this program first. 101: do not start.
_POLICY = "/usr/sbin/policy-rc.d"
_START_NOTHING = "#!/bin/sh\nexit 101\n"


def make_key(host: Host, bake_id: str, master_key: str) -> str:
    """Make the key pair of a bake on this host and return its public half (PEM).

    ``master_key``: the master's public key (PEM). Each Salt process of the machine finds it there; without it the first
    writes it, and another one that starts meanwhile reads half of it and gives up.
    """
    pki = host.pki / bake_id
    remove(pki)
    pki.mkdir(mode=0o700, parents=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for name, text in (("minion.pem", private), ("minion.pub", public)):
        (pki / name).touch(mode=0o400)
        (pki / name).write_bytes(text)
    (pki / "minion_master.pub").write_text(master_key)
    return public.decode()


def prepare(host: Host, workspace: Path, order: Mapping[str, Any], lower: tuple[str, ...]) -> Machine:
    """Return the description of the machine in which the states are applied.

    ``order``: bake_id (`make_key` made its key), minion (its config: master, ports, grains), bridge, subnet, offline,
    and chroot, which is true for a machine without an init.
    """
    chrooted = bool(order.get("chroot"))
    path, text = (_POLICY, _START_NOTHING) if chrooted else (_DROP_IN, _NO_MINION)
    (workspace / "override").write_text(text)
    (workspace / "override").chmod(0o755)
    (workspace / "not-here").write_text(_NOT_HERE)
    (workspace / "nothing").touch()
    masked = {} if chrooted else {_TIMERS: str(workspace / "nothing")}
    stopped = [_NOT_STARTED.format(systemd.full_name(unit)) for unit in order.get("at_boot", ())]
    kept = dict.fromkeys(stopped, str(workspace / "not-here"))
    return Machine(
        minion_id=order["bake_id"],
        image="",
        lower=lower,
        minion={**order["minion"], "id": order["bake_id"], "pki_dir": _PKI, "immutable_bake": True},
        bridge=order["bridge"],
        subnet=order["subnet"],
        read_only=False,
        upper=str(workspace / "fs"),
        binds=debian.package_cache(host, order["bake_id"]) | {_PKI: str(host.pki / order["bake_id"])},
        files={
            path: str(workspace / "override"),
            **masked,
            **kept,
            **mirrors.apt_config(workspace, bool(order.get("offline"))),
        },
        boot=not chrooted,
        route=offline.route(order),
    )


def sync(machine: Machine, order: Mapping[str, Any]) -> dict[str, Any]:
    """Sync the tree's custom modules, and return the grains that the minion has with them.

    ``order``: within (seconds), pins.
    """
    _salt_call(machine, ["saltutil.sync_all"], order)
    grains = _parse(_salt_call(machine, ["grains.items"], order))
    return grains if isinstance(grains, dict) else {}


def apply(machine: Machine, order: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Apply the states; return the names of the applied SLS, and warnings about states that are unreliable in a chroot.

    ``order``: bake_id, states (``highstate`` or a list), saltenv, pillarenv, within (seconds), hash_key, minion,
    chroot, pins. Raises CommandExecutionError with the output of the states that fail, and where they do not run.
    """
    done = _call_states(machine, order, _states(order))
    result = _parse(done)
    saltenv = order["saltenv"] or "base"
    if not isinstance(result, dict) or not result:
        errors = _errors(result, done, unanswered(trace(machine)))
        raise CommandExecutionError(
            f"the states of {order['bake_id']} did not run; correct what Salt says, and bake again:\n"
            f"{errors}{_places(machine, saltenv, errors)}"
        )
    if done.returncode or not all(state["result"] for state in result.values()):
        where = partial(_where, machine, saltenv)
        raise CommandExecutionError(failures.describe(result, where, unanswered(trace(machine))))
    sls = sorted({str(state["__sls__"]) for state in result.values() if "__sls__" in state})
    return sls, chroot.warnings(result) if order.get("chroot") else []


def _call_states(machine: Machine, order: Mapping[str, Any], words: list[str]) -> CompletedProcess[str]:
    """Call a function of states; trace it, so that what it takes from outside is known."""
    done = _salt_call(machine, words, order, traced=_traced(order))
    if done.returncode and trace(machine) is None:  # the image's Salt or pack cannot be traced: no state was applied
        done = _salt_call(machine, words, order)
    return done


def _where(machine: Machine, saltenv: str, sls: str, state_id: str) -> str:
    """Return file and line at which a state begins, ``web/init.sls:12``, by what the minion fetched; '' if unknown."""
    path, line, _ = _find_state(machine, saltenv, sls, state_id)
    return f"{path}:{line}" if line else ""


def _find_state(machine: Machine, saltenv: str, sls: str, state_id: str) -> tuple[str, int | None, str]:
    """Return the file of a state, the line at which it begins, and the text of the file; no line if it is unknown."""
    name = sls.replace(".", "/")
    for path in (f"{name}.sls", f"{name}/init.sls"):
        done = machine.run(["cat", f"{_FETCHED}/{saltenv}/{path}"])
        if not done.returncode and (line := failures.line_of(state_id, done.stdout)):
            return path, line, done.stdout
    return "", None, ""


def _places(machine: Machine, saltenv: str, errors: str) -> str:
    """Return the lines of the tree that errors are about, where Salt names only a state or an SLS; '' if none is found.

    ``errors``: what Salt says of states that it does not run.
    """
    states = [_find_state(machine, saltenv, *state) for state in failures.named_states(errors)[:_PLACES]]
    found = [f"{path}:{line}:\n{get_context(text, line, 2, _HERE)}" for path, line, text in states if line]
    for sls in failures.missing_sls(errors)[:_PLACES]:
        whole, last = (re.escape(name) for name in (sls, sls.rpartition(".")[2]))
        written = rf"(^|[^A-Za-z0-9_.])({whole}|\.+{last})([^A-Za-z0-9_.]|$)"
        grep = ["grep", "-rnE", "--include=*.sls", "-e", written, "."]
        lines = machine.run(["env", "-C", f"{_FETCHED}/{saltenv}", *grep]).stdout.splitlines()
        found += [f"{sls} is named in {line.removeprefix('./')}" for line in sorted(lines)[:_PLACES]]
    return "".join(f"\n{each}" for each in found)


def _states(order: Mapping[str, Any]) -> list[str]:
    """Return the function that applies the states, with its arguments."""
    function = ["state.highstate"] if order["states"] == "highstate" else ["state.apply", ",".join(order["states"])]
    return [*function, *(f"{name}={order[name]}" for name in ("saltenv", "pillarenv") if order[name])]


def apply_again(machine: Machine, order: Mapping[str, Any], left: Sequence[str]) -> dict[str, str]:
    """Return the states that would change something if they were applied once more: name to comment. Changes nothing.

    ``left``: the names of those that left something to the boot, which they would do again.
    """
    done = _call_states(machine, order, [*_states(order), "test=True"])
    result = _parse(done)
    if not isinstance(result, dict) or not result:
        raise CommandExecutionError(
            f"the states did not run a second time; correct what Salt says, and bake again:\n{_errors(result, done)}"
        )
    return failures.changed_again(result, left)


def _traced(order: Mapping[str, Any]) -> list[str]:
    """Return the command to put before ``salt-call`` so that it is traced."""
    module = [f"{VENV}/bin/python", "-m", "saltext.immutable.builder.states.traced_salt_call", TRACE]
    settings = [f"{HASH_KEY}={order['hash_key']}", f"{AT_BOOT}={' '.join(order.get('at_boot', ()))}"]
    settings += [f"{OWN_KERNEL}=yes"] if order.get("vm") else []
    return ["env", *settings, *module, order["minion"]["master"]]


def trace(machine: Machine) -> list[list[Any]] | None:
    """Return the lines that `traced_salt_call` recorded, or None where it did not run."""
    done = machine.run(["cat", TRACE])
    return None if done.returncode else [list(json.loads(line)) for line in done.stdout.splitlines()]


@contextmanager
def noting_secrets(machine: Machine, known: list[secrets.Secret]) -> Iterator[None]:
    """Add what states read from secret stores while the block runs to the secrets that are ``known``."""
    try:
        yield
    finally:
        with suppress(CommandExecutionError):  # a machine that has ended: the error of the block says so
            done = machine.run(["cat", f"{TRACE}{SECRETS}"])
            known += [] if done.returncode else secrets.of_stores(done.stdout)


def unanswered(lines: Sequence[Sequence[Any]] | None) -> list[str]:
    """Return a sentence for each question to the mine, to other minions or to a secret store that has no answer.

    ``lines``: the result of `trace`.
    """
    asked = {line[1]: line[2] for line in lines or () if line[0] == "asked"}
    return [
        f"{sentence}, and {missing}; if machines of the image need that, let a state of at_launch do it"
        for sentence, missing in asked.items()
        if missing
    ]


def deferred(machine: Machine, lines: Sequence[Sequence[Any]] | None) -> list[dict[str, str]]:
    """Return what the states left to the boot: state, what and applied_by of each. ``lines``: the result of `trace`.

    Raises CommandExecutionError where no unit of the image would apply it.
    """
    names = ("state", "what", "applied_by")
    found = [dict(zip(names, line[1:], strict=True)) for line in lines or () if line[0] == _KIND]
    for each in found:
        unit = each["applied_by"]
        if unit.endswith(_SERVICE) and machine.run(["systemctl", "--quiet", "is-enabled", unit]).returncode:
            raise CommandExecutionError(
                f"{each['state']} leaves this to the boot: {each['what']}, but {unit} is not enabled in the image, so "
                "no machine would do it; install the package of that unit and enable it (service.enabled)"
            )
        saved = (unit, each["what"])
        if saved == FIREWALLS["nftables"]:
            _require_included(machine, each["state"])
        if saved == FIREWALLS["iptables"] and machine.run(["test", "-e", _LOADS_IPTABLES]).returncode:
            raise CommandExecutionError(
                f"{each['state']} saves rules of iptables, and {unit} has no plugin that loads them; install the "
                "package iptables-persistent in a state"
            )
    return found


def _require_included(machine: Machine, state: str) -> None:
    is_folder = not machine.run(["test", "-d", _SAVED_RULES]).returncode
    included = _INCLUDED.format(path=_SAVED_RULES, end="/" if is_folder else '"')
    if machine.run(["grep", "-Eq", included, "/etc/nftables.conf"]).returncode:
        kind, line = ("files of", f"{_SAVED_RULES}/*.nft") if is_folder else ("the file", _SAVED_RULES)
        raise CommandExecutionError(
            f"{state} saves its rules in {kind} {_SAVED_RULES}, which /etc/nftables.conf does not include, so no "
            f'machine would load them; let a state write `include "{line}"` there'
        )


def services(
    machine: Machine, lines: Sequence[Sequence[Any]] | None, below: Sequence[str]
) -> tuple[dict[str, bool], list[str]]:
    """Return the units that the states declare running (True) or not, and a sentence for each that no boot starts.

    ``lines``: the result of `trace`; ``below``: the units that the layers below want running. One that is removed or
    masked in the end is not to run, whatever a state declared of it before.
    """
    declared = {line[1]: line[2] for line in lines or () if line[0] == "service"}
    wanted = [unit for unit in dict.fromkeys((*below, *declared)) if declared.get(unit, True)]
    if not wanted or not machine.boot:
        return declared, []
    found = systemd.shown(machine.run(systemd.show_command(wanted)).stdout)
    if len(found) != len(wanted):
        return declared, []
    states = dict(zip(wanted, found, strict=True))
    gone = {unit: False for unit, properties in states.items() if systemd.is_gone(properties)}
    idle = [unit for unit in declared if unit in states.keys() - gone and systemd.is_never_started(states[unit])]
    return declared | gone, [
        f"{unit} runs in the bake, but nothing starts it at the boot of a machine, which would not become healthy; "
        "give enable: True to its service.running, or enable: False if machines need not run it"
        for unit in idle
    ]


def lost(machine: Machine, lines: Sequence[Sequence[Any]] | None) -> list[str]:
    """Return a sentence for each state that did something to the machine that bakes only. ``lines``: as `deferred`."""
    found = [line[1:] for line in lines or () if line[0] == "lost"]
    gone = {place for _, _, place in found if place and machine.run(["mountpoint", "--quiet", place]).returncode}
    return [f"{state}: {what}" for state, what, place in found if place not in gone]


def writers(lines: Sequence[Sequence[Any]] | None) -> dict[str, str]:
    """Return path to state of the files that states were applied to. ``lines``: the result of `trace`."""
    return {line[1]: line[2] for line in lines or () if line[0] == "wrote"}


def can_pin(machine: Machine) -> bool:
    """Tell whether the image's own pack can ask the master for a pinned tree; one of an older version cannot."""
    return not machine.run([f"{VENV}/bin/python", "-c", f"import {pins.__name__}"]).returncode


def environment(order: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables of a process of Salt in the machine that bakes. ``order``: pins."""
    return {**mirrors.environment(), **pins.environment(order.get("pins") or {})}


def _salt_call(
    machine: Machine, words: list[str], order: Mapping[str, Any], traced: Sequence[str] = ()
) -> CompletedProcess[str]:
    within, pinned = order["within"], [f"{VENV}/bin/python", "-m", pins.__name__] if order.get("pins") else []
    program = f"{VENV}/bin/salt-call" if traced or pinned else "salt-call"
    call = [*(traced or pinned), program, "--retcode-passthrough", "--out=json", "--log-level=error", *words]
    done = machine.run(["timeout", "--kill-after=10", f"{within:.0f}", *call], env=environment(order))
    if done.returncode == _TIMED_OUT:
        raise CommandExecutionError(f"{words[0]} did not end within {within:.0f} s; increase bake_within in the recipe")
    return done


def _parse(done: CompletedProcess[str]) -> Any:
    """Return the answer of salt-call, the first JSON in its output that is one; None if there is none.

    What states start in the background (``bg: True``) writes to the same output, before the answer or behind it.
    """
    for begin in re.finditer("^{", done.stdout, re.MULTILINE):
        with suppress(ValueError, KeyError, TypeError):
            return json.JSONDecoder().raw_decode(done.stdout, begin.start())[0]["local"]
    return None


def _errors(result: Any, done: CompletedProcess[str], hints: Sequence[str] = ()) -> str:
    """Return the errors of a salt-call that applied no states, and ``hints`` at what they may come from."""
    said = f"{tail(done.stdout if result is None else '')}\n{tail(rendering.readable(done.stderr))}".strip()
    if isinstance(result, list) and result:  # standard error has the same, with tracebacks
        said = rendering.messages(result)
    return "\n".join([said, *hints])


def stop(machine: Machine, within: float) -> None:
    """Shut the machine down in order, so that its services write their data. Raises after ``within`` seconds."""
    machine.power_off()
    deadline = time.monotonic() + within
    while machine.running:
        if time.monotonic() > deadline:
            raise CommandExecutionError(
                f"{machine.minion_id} did not shut down within {within:.0f} s after its states; find in "
                "machine.console which of its services does not end, and give its unit a TimeoutStopSec"
            )
        time.sleep(0.02)


def finish(tree: Path) -> None:
    """Move the synced custom modules to a read-only place in the tree, and remove files that were mounted for the bake.

    Raises CommandExecutionError for minion config that `minion_config.refuse` rejects.
    """
    minion_config.refuse(tree)
    synced = tree / _EXTMODS
    if synced.is_dir():
        for kind in _NEVER_KEPT:
            remove(synced / kind)
        remove(tree / EXTENSION_MODULES)
        (tree / EXTENSION_MODULES).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(synced, tree / EXTENSION_MODULES, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (mirrors.APT_CONF, _POLICY.lstrip("/")):  # a bind mount leaves an empty file
        if (tree / path).is_file() and not (tree / path).stat().st_size:
            (tree / path).unlink()


"""A shell in a temporary copy of an image. All changes are lost when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import seccomp
from saltext.immutable.builder import commands
from saltext.immutable.builder.sandbox import sandbox
from saltext.immutable.builder.states import keep_failed
from saltext.immutable.host import Host
from saltext.immutable.images import verify
from saltext.immutable.machines import images, nspawn
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.description import Machine
from saltext.immutable.spec.model import Network

# The copy must not connect to the master: it is no machine of a fleet.
_NO_MINION = "[Service]\nType=oneshot\nExecStart=\nExecStart=/bin/true\n"
_DROP_IN = "/run/systemd/system/salt-minion.service.d/copy.conf"
_LOGIN = "test -x /bin/bash && exec /bin/bash -l; exec /bin/sh -l"


def open_shell(
    host: Host,
    digest: str,
    command: str | None = None,
    boot: bool = False,
    bridge: str = Network.bridge,
    subnet: str = Network.subnet,
) -> dict[str, Any]:
    """Open a root shell in a copy of an image, or run ``command`` in it; remove the copy afterwards.

    ``boot``: start the image's services, but never its minion. Returns retcode, and for a command stdout and stderr.
    Raises SaltInvocationError where a shell has no terminal.
    """
    _require_terminal(command)
    network = {"bridge": bridge, "subnet": subnet}
    with _copy(host, digest, network, boot) as machine:
        return _use(machine, command)


def open_failed(host: Host, bake_id: str, command: str | None = None) -> dict[str, Any]:
    """Open a root shell in the machine that a failed bake keeps, or run ``command`` in it; answer as `open_shell`."""
    _require_terminal(command)
    machine = machines.find(host, bake_id)
    if machine is None or not machines.alive(host, machine) or not keep_failed.is_kept(machine):
        raise SaltInvocationError(
            f"no bake under {bake_id} has failed and keeps its machine; bake with keep_failed=1h, and enter it before "
            "that time is over"
        )
    return _use(machine, command)


def _use(machine: Machine, command: str | None) -> dict[str, Any]:
    if command is None:
        _interact(machine)
        return {"retcode": 0}
    done = machine.run(["/bin/sh", "-c", command])
    return {"retcode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def _require_terminal(command: str | None) -> None:
    if command is None and not sys.stdin.isatty():
        raise SaltInvocationError("a shell needs a terminal, and standard input is none; give command='...' instead")


@contextmanager
def _copy(host: Host, digest: str, network: Mapping[str, str], boot: bool) -> Iterator[Machine]:
    """Give a running machine of the image with a writable root. After a kill `sweep` removes it."""
    image = images.read(host, digest)
    verify.require_layers(host, image["layers"])
    commands.sweep(host)
    with host.workspace() as workspace:
        (workspace / "fs").mkdir(mode=0o755)
        order = sandbox(workspace, network, images.lower(host, digest), files=_files(workspace) if boot else {})
        order = replace(order, minion_id=f"{image['recipe']}-copy-{workspace.name}", boot=boot)
        with machines.temporary(host, order) as machine:
            if boot:
                machines.wait_booted(machine)
            yield machine


def _files(workspace: Path) -> dict[str, str]:
    (workspace / "no-minion.conf").write_text(_NO_MINION)
    return {_DROP_IN: str(workspace / "no-minion.conf")}


def _interact(machine: Machine) -> None:
    """Run root's login shell on this terminal until it ends.

    Its exit code is ignored: it is that of the last command.
    """
    if machine.vm is not None:
        raise SaltInvocationError(
            f"{machine.minion_id} has a kernel of its own, and takes commands but no terminal; give command='...'"
        )
    init = nspawn.find_init(machine.cgroup)
    if init is None:
        raise CommandExecutionError(
            f"{machine.minion_id} is not running any more; open the shell again, with boot=False if it does not boot"
        )
    env = {"TERM": os.environ.get("TERM", "linux")}
    command = nspawn.enter_command(init, machine.cgroup, ["/bin/sh", "-c", _LOGIN], env)
    terminal = sys.stdin.fileno()
    settings = termios.tcgetattr(terminal)
    try:
        with _signals_for_shell():
            subprocess.run(command, cwd="/", check=False, preexec_fn=seccomp.confine)
    finally:
        _restore(terminal, settings)


@contextmanager
def _signals_for_shell() -> Iterator[None]:
    """Ignore Ctrl-C, which is meant for the shell. Raise KeyboardInterrupt when the terminal is closed."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # Not SIG_IGN, which the shell would inherit.
    handlers = {signal.SIGINT: lambda *_: None, signal.SIGHUP: end}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _restore(terminal: int, settings: list[Any]) -> None:
    """Take the terminal back from the shell and restore its settings."""
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # which would stop a process that is in the background
    try:
        with suppress(OSError):
            os.tcsetpgrp(terminal, os.getpgrp())
        with suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, settings)
    finally:
        signal.signal(signal.SIGTTOU, before)

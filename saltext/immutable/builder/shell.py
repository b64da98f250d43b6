"""A throw-away copy of an image to look around in: what is changed in it vanishes with it."""

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

from saltext.immutable.builder import commands
from saltext.immutable.builder.sandbox import workshop
from saltext.immutable.host import Host
from saltext.immutable.images import verify
from saltext.immutable.machines import images, nspawn
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.machine import Machine
from saltext.immutable.spec.model import Network

# A copy must not come to the master as the machine that it is no copy of.
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
    """Open a shell of root in a copy of an image, or run ``command`` in one; it goes away afterwards.

    ``boot``: its services run; the minion never does. Returns retcode, and of a command stdout and stderr.
    """
    if command is None and not sys.stdin.isatty():
        raise SaltInvocationError("a shell needs a terminal, and there is none here; give command='...' instead")
    place = {"bridge": bridge, "subnet": subnet}
    with _copy(host, digest, place, boot) as machine:
        if command is None:
            _interact(machine)
            return {"retcode": 0}
        done = machine.run(["/bin/sh", "-c", command])
        return {"retcode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


@contextmanager
def _copy(host: Host, digest: str, place: Mapping[str, str], boot: bool) -> Iterator[Machine]:
    """Give a machine of the image whose root is writable; `sweep` removes it if we are killed."""
    image = images.read(host, digest)
    verify.require_layers(host, image["layers"])
    commands.sweep(host)
    with host.workspace() as workspace:
        (workspace / "fs").mkdir(mode=0o755)
        order = workshop(workspace, place, images.lower(host, digest), files=_files(workspace) if boot else {})
        order = replace(order, minion_id=f"{image['recipe']}-copy-{workspace.name}", boot=boot)
        with machines.temporary(host, order) as machine:
            if boot:
                machines.wait_booted(machine)
            yield machine


def _files(workspace: Path) -> dict[str, str]:
    (workspace / "no-minion.conf").write_text(_NO_MINION)
    return {_DROP_IN: str(workspace / "no-minion.conf")}


def _interact(machine: Machine) -> None:
    """Let root's login shell have our terminal until it ends; what its last command said is no error of ours."""
    init = nspawn.find_init(machine.cgroup)
    if init is None:
        raise CommandExecutionError(f"{machine.minion_id} is not running")
    env = {"TERM": os.environ.get("TERM", "linux")}
    words = nspawn.entering(init, machine.cgroup, ["/bin/sh", "-c", _LOGIN], env)
    terminal = sys.stdin.fileno()
    settings = termios.tcgetattr(terminal)
    try:
        with _left_alone():
            subprocess.run(words, cwd="/", check=False)
    finally:
        _take_back(terminal, settings)


@contextmanager
def _left_alone() -> Iterator[None]:
    """Leave Ctrl-C to who has the terminal; a terminal that is closed ends us in order."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # Not SIG_IGN, which the shell would inherit.
    ours = {signal.SIGINT: lambda *_: None, signal.SIGHUP: end}
    before = {number: signal.signal(number, handler) for number, handler in ours.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _take_back(terminal: int, settings: list[Any]) -> None:
    """Make the terminal ours and as it was, however the shell ended."""
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # who is in the background is stopped for less
    try:
        with suppress(OSError):
            os.tcsetpgrp(terminal, os.getpgrp())
        with suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, settings)
    finally:
        signal.signal(signal.SIGTTOU, before)

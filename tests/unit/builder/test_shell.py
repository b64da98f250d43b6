"""A shell in a copy of an image: where it opens, and that the terminal is restored."""

from __future__ import annotations

import io
import os
import pty
import termios
from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable.bake.commands import shell as bake_shell
from saltext.immutable.builder import shell
from saltext.immutable.host import Host
from saltext.immutable.spec.model import Settings
from saltext.immutable.store import Image

IMAGE = Image("ab" * 32, "web", ("cd" * 32,), 1.0, True, {})


def call_of(builder: str | None, command: str | None) -> tuple[str, dict[str, Any]]:
    calls: list[tuple[str, dict[str, Any]]] = []

    def call(name: str, **order: Any) -> dict[str, Any]:
        calls.append((name, order))
        return {"retcode": 0}

    bake_shell._ask(Settings(builder=builder), IMAGE, command, False, call)
    return calls[0]


@pytest.mark.parametrize("builder", [None, "builder-1"])
def test_a_command_runs_on_any_builder(builder):
    network = {"bridge": "immutable0", "subnet": "10.117.0.0/24"}
    assert call_of(builder, "id") == ("open_shell", {"digest": IMAGE.digest, "command": "id", "boot": False, **network})


def test_for_a_shell_on_another_host_the_error_says_where_to_log_in():
    with pytest.raises(SaltInvocationError, match=f"log in there as root and run salt-call --local .* {IMAGE.digest}"):
        call_of("builder-1", None)
    assert call_of(None, None)[1]["command"] is None


def test_without_a_terminal_no_copy_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(SaltInvocationError, match="give command="):
        shell.open_shell(Host(tmp_path / "nowhere"), IMAGE.digest)
    assert list(Path(tmp_path).iterdir()) == []


def test_the_settings_of_the_terminal_are_restored():
    ours, theirs = pty.openpty()
    try:
        before = termios.tcgetattr(theirs)
        raw = list(before)
        raw[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(theirs, termios.TCSANOW, raw)
        shell._restore(theirs, before)
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)

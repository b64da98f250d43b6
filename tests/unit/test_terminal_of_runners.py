"""What Salt logs about its own objects stays off the terminal of whoever calls a runner."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from saltext.immutable.runner import plain_errors


@pytest.fixture
def handlers(monkeypatch):
    """A handler of the terminal, as Salt sets it up, and one of a file; what each wrote."""
    terminal, file = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(logging.root, "handlers", [logging.StreamHandler(terminal), logging.StreamHandler(file)])
    with plain_errors():
        pass
    return terminal, file


def test_unclosed_objects_of_salt_are_for_log_files_only(handlers):
    logging.getLogger("salt.runner").warning("unclosed Runner <salt.runner.Runner object>; call ``destroy()``")
    terminal, file = handlers
    assert terminal.getvalue() == "" and "unclosed Runner" in file.getvalue()


def test_nor_do_they_reach_it_when_salt_has_put_its_handlers_away(handlers, monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])
    logging.getLogger("salt.runner").warning("unclosed Runner <salt.runner.Runner object>")
    logging.getLogger("salt.runner").warning("the disk is full")
    assert capsys.readouterr().err == "the disk is full\n"


@pytest.mark.parametrize(
    ("name", "message"), [("salt.runner", "the disk is full"), ("mine", "unclosed bracket in the file")]
)
def test_other_warnings_reach_the_terminal(handlers, name, message):
    logging.getLogger(name).warning(message)
    assert handlers[0].getvalue() == f"{message}\n"


def test_connections_that_salt_does_not_close_are_not_told_to_operators():
    """With a list of the calls that made each, forty lines long."""
    code = (
        "import gc, salt.transport.base as base; from saltext.immutable import runner; {}; "
        "transport = base.Transport(); transport.connect(); del transport; gc.collect()"
    )
    said = [
        subprocess.run([sys.executable, "-c", code.format(first)], capture_output=True, text=True, check=True).stderr
        for first in ("pass", "runner.keep_terminal_clean()")
    ]
    assert "Unclosed transport!" in said[0] and not said[1]

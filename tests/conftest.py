"""What all tests share."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from saltfactories.plugins.event_listener import EventListener
from support import slices

# Who was started in the background has Ctrl-C ignored, and so would have all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LOOPBACK = "127.0.0.1"
VERBOSE = ("saltfactories.plugins.event_listener", "pytestshellutils.utils.processes")
"""Would fill the report of a failure with each event and each process of a master."""


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Let the log server of pytest-salt-factories, which starts after this, be there for this host alone."""
    session.config.pluginmanager.get_plugin("saltfactories-log-server").log_host = LOOPBACK
    for name in VERBOSE:
        logging.getLogger(name).setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def event_listener() -> Iterator[EventListener]:
    """What pytest-salt-factories hears its daemons with, for this host alone."""
    listener = EventListener()
    listener.host = LOOPBACK
    with listener:
        yield listener


@pytest.fixture(scope="session")
def salt_factories_config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Let pytest-salt-factories take Salt's own scripts: one that it makes itself is no ``salt-run`` to the pack."""
    return {
        "root_dir": tmp_path_factory.mktemp("factories"),
        "scripts_dir": Path(sys.executable).parent,
        "slow_stop": False,  # daemons are killed, as by a power cut: nothing may depend on how they end
    }


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", slices.MARK)
    config.pluginmanager.register(slices.Plugin.from_environment(), "slices")


def pytest_unconfigure() -> None:
    """Let pytest's closing line be the last: at exit Salt logs, to streams that are closed, what it did not close."""
    logging.disable()
    logging.raiseExceptions = False

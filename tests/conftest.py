"""What all tests share."""

from __future__ import annotations

import logging


def pytest_unconfigure() -> None:
    """Let pytest's closing line be the last: at exit Salt logs, to streams that are closed, what it did not close."""
    logging.disable()
    logging.raiseExceptions = False

"""What all tests share."""

from __future__ import annotations

import logging
import signal

# Who was started in the background has Ctrl-C ignored, and so would have all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Let pytest's closing line be the last: at exit Salt logs, to streams that are closed, what it did not close."""
    logging.disable()
    logging.raiseExceptions = False

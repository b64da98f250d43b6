"""Look at what comes by on a master's event bus: events of ours, and what our functions returned."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import salt.config
import salt.utils.event

from .functions import FOLDERS, read
from .seen import REFUSED, Onlooker

_MARK = "surface/caught-up"
_FROM_MINIONS = {f"immutable/{what}" for what in ("refused", "operated", "changed", "image/export")}
_PATIENCE = 10.0
"""Seconds."""


class Listener(threading.Thread):
    """Shows an onlooker all that comes by, until told to stop."""

    def __init__(self, master_config: Path, onlooker: Onlooker) -> None:
        super().__init__(daemon=True)
        self.onlooker = onlooker
        logging.getLogger("salt.utils.event").setLevel(logging.WARNING)  # it would repeat every event in a failure
        self._opts = salt.config.master_config(str(master_config))
        self._functions = {name for kind in FOLDERS for name in read()[kind]}
        self._over, self._up_to = threading.Event(), 0.0

    def __enter__(self) -> Listener:
        self.start()
        self.catch_up()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(_PATIENCE)  # it may wait for a master that is gone

    def catch_up(self, within: float = _PATIENCE) -> None:
        """Return when all that was fired before has been looked at."""
        began = time.time()
        with salt.utils.event.get_master_event(self._opts, self._opts["sock_dir"], listen=False) as bus:
            while self._up_to < began and time.time() < began + within:
                bus.fire_event({"at": time.time()}, _MARK)
                time.sleep(0.05)

    def run(self) -> None:
        with salt.utils.event.get_event("master", opts=self._opts, listen=True) as bus:
            while not self._over.is_set():
                if event := bus.get_event(wait=1, full=True, auto_reconnect=True):
                    try:
                        self._look(event["tag"], event["data"])
                    except Exception as err:  # in a thread nobody would hear of it
                        self.onlooker.event(f"{event['tag']} cannot be read", repr(err))

    def _look(self, tag: str, data: Mapping[str, Any]) -> None:
        if tag == _MARK:
            self._up_to = data["at"]
        elif tag.startswith("immutable/"):
            self._event(tag, data)
        elif tag.startswith("salt/job/") and "sealed: " in str(data.get("return")) and not data.get("success"):
            self.onlooker.answer(REFUSED, (), {}, data["return"])
        elif tag.startswith(("salt/run/", "salt/job/")) and "return" in data:
            self._answer(str(data.get("fun")).removeprefix("runner."), data.get("fun_args", ()), data)

    def _event(self, tag: str, data: Mapping[str, Any]) -> None:
        """Look at an event without what Salt adds to it. A minion can fire any tag, and tests forge some."""
        from_minion = data.get("cmd") == "_minion_event"
        if not from_minion or tag in _FROM_MINIONS:
            sent = data["data"] if from_minion else data
            self.onlooker.event(tag, {name: one for name, one in sent.items() if not name.startswith("_")})

    def _answer(self, fun: str, args: Sequence[Any], data: Mapping[str, Any]) -> None:
        """Look at what a function of ours returned; an error is a text."""
        if fun in self._functions and (data.get("success") or isinstance(data["return"], dict)):
            kwargs = dict(args[-1]) if args and isinstance(args[-1], dict) else {}
            self.onlooker.answer(fun, args, kwargs, data["return"])

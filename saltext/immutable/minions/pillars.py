"""Compile a pillar on the master, and read the definitions in it."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import salt.pillar
from salt.exceptions import SaltInvocationError

from saltext.immutable import rendering, spec
from saltext.immutable.spec.model import Definitions


def pillar(opts: Mapping[str, Any], minion_id: str, grains: Mapping[str, Any], **envs: str | None) -> dict[str, Any]:
    """Compile the pillar of ``minion_id`` without any cache; ``envs``: saltenv, pillarenv.

    Raises ``SaltInvocationError`` with all errors of rendering.
    """
    # Without safe rendering the errors name their cause; a minion would only be referred to the master's log.
    mine = {**opts, "pillar_cache": False, "file_client": "local", "pillar_safe_render_error": False}
    compiler = salt.pillar.Pillar(mine, dict(grains), minion_id, envs.get("saltenv"), pillarenv=envs.get("pillarenv"))
    with _quiet():
        compiled: dict[str, Any] = compiler.compile_pillar()
    if errors := compiled.get("_errors"):
        raise SaltInvocationError(f"the pillar of {minion_id} does not compile:\n{rendering.messages(errors)}")
    return compiled


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep errors that Salt logs in this thread off the terminal while the block runs; log files have them.

    Each is among the errors of the pillar, and Salt prints it with a traceback.
    """
    thread = threading.get_ident()

    def passes(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR or record.thread != thread

    consoles = [each for each in logging.root.handlers if getattr(each, "stream", None) in (sys.stdout, sys.stderr)]
    for each in consoles:
        each.addFilter(passes)
    try:
        yield
    finally:
        for each in consoles:
            each.removeFilter(passes)


def definitions(opts: Mapping[str, Any]) -> Definitions:
    """Return the recipes and fleets in the pillar of the runner (or of ``immutable:pillar_id``)."""
    minion_id = spec.settings(opts).pillar_id or opts["id"]
    return spec.definitions(pillar(opts, minion_id, {**opts.get("grains", {}), "id": minion_id}))

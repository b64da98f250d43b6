"""Compile a pillar on the master, and read the definitions in it."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
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
    compiler.rend = rendering.Renderers(compiler.rend)
    with _quiet() as logged:
        compiled: dict[str, Any] = compiler.compile_pillar()
    if not compiled.get("_errors"):  # an external pillar that failed is logged, and left out
        for handler, record in logged:
            handler.handle(record)
    if errors := compiled.get("_errors"):
        raise SaltInvocationError(
            f"the pillar of {minion_id} does not compile; correct what Salt says, and repeat:\n"
            f"{rendering.messages(errors)}"
        )
    return compiled


@contextmanager
def _quiet() -> Iterator[list[tuple[logging.Handler, logging.LogRecord]]]:
    """Keep what Salt warns of in this thread off the terminal while the block runs; log files have it.

    Most errors are among the errors of the pillar, and Salt prints each with a traceback. Gives what was kept off.
    """
    thread, kept = threading.get_ident(), list[tuple[logging.Handler, logging.LogRecord]]()

    def keeping(handler: logging.Handler) -> Callable[[logging.LogRecord], bool]:
        def passes(record: logging.LogRecord) -> bool:
            mine = record.levelno >= logging.WARNING and record.thread == thread
            kept.extend([(handler, record)] if mine else [])
            return not mine

        return passes

    consoles = [each for each in logging.root.handlers if getattr(each, "stream", None) in (sys.stdout, sys.stderr)]
    filters = [(each, keeping(each)) for each in consoles]
    for each, passes in filters:
        each.addFilter(passes)
    try:
        yield kept
    finally:
        for each, passes in filters:
            each.removeFilter(passes)


def definitions(opts: Mapping[str, Any]) -> Definitions:
    """Return the recipes and fleets in the pillar of the runner (or of ``immutable:pillar_id``)."""
    minion_id = spec.settings(opts).pillar_id or opts["id"]
    return spec.definitions(pillar(opts, minion_id, {**opts.get("grains", {}), "id": minion_id}))

"""Check the custom code of a state tree that a bake uses: custom modules, templates and state files in Python.

What no key of a layer can see (see `purity`) is recorded in the trace.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, Protocol

from saltext.immutable.builder.states import purity

LANGUAGES = ("py", "mako", "genshi", "cheetah", "wempy")
"""Parts of the names of renderers that run Python."""
_CUSTOM_MODULE = re.compile("/extmods/|/extension_modules/")
_FROM_MASTER = re.compile("/minion/(?:cache/)?files/")


class Trace(Protocol):
    """The part of `trace.Trace` that is used here."""

    checked: set[str]

    def note(self, *what: Any) -> None:
        """Record an observation."""

    def unproven(self, reason: str) -> None:
        """Record that something cannot be proven, and where."""


def running_code() -> str | None:
    """Return the custom module or Python file of the tree that the current call runs in, or None."""
    frame = sys._getframe()
    while frame is not None:
        path = frame.f_code.co_filename
        if _CUSTOM_MODULE.search(path):
            return f"the custom module {os.path.basename(path).removesuffix('.py')}"
        if _FROM_MASTER.search(path) and "debug_info" not in frame.f_globals:  # no code that Jinja generated
            return os.path.basename(path)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def is_python_of_the_tree(code: Any) -> bool:
    """Return whether a code object comes from a file of the master. Code that Jinja generated does not count."""
    names = getattr(code, "co_names", ())
    return bool(_FROM_MASTER.search(getattr(code, "co_filename", ""))) and "jinja2.runtime" not in names


def check_call(trace: Trace, loader: Any, function: str) -> None:
    """Check an execution function that a template calls, and its code."""
    if reason := purity.unproven_call(function):
        trace.unproven(f"{reason} ({function})")
    check_function(trace, loader, function)


def check_function(trace: Trace, loader: Any, function: str) -> None:
    """Check the code of a function if it belongs to a custom module."""
    try:
        code = getattr(loader[function], "__code__", None) or loader[function].__wrapped__.__code__
    except (AttributeError, KeyError, TypeError):
        return
    if _CUSTOM_MODULE.search(code.co_filename):
        check_module(trace, code.co_filename)


def check_module(trace: Trace, path: str) -> None:
    """Check the file of a custom module, once, and the custom modules whose names are in it."""
    if path in trace.checked:
        return
    trace.checked.add(path)
    text = _text(path)
    for reason in purity.unproven_code(text):
        trace.note("unproven", f"the custom module {os.path.basename(path)} {reason}")
    for other in sorted(glob.glob(f"{os.path.dirname(os.path.dirname(path))}/*/*.py")):
        if any(re.search(rf"\b{re.escape(name)}\b", text) for name in _names(other)):
            check_module(trace, other)


def _names(path: str) -> Iterator[str]:
    """Yield the names under which a custom module can be called."""
    yield os.path.basename(path).removesuffix(".py")
    yield from re.findall(r"""^__virtualname__\s*=\s*['"](\w+)""", _text(path), re.MULTILINE)


def check_rendered(trace: Trace, path: str, default: str) -> None:
    """Check a file that is rendered, if its renderers run Python.

    These are named in its first line (``#!jinja|py``), otherwise in ``default``.
    """
    first = _text(path).partition("\n")[0]
    renderers = first if first.startswith("#!") else default
    if any(language in renderers for language in LANGUAGES):
        check_python(trace, path)


def check_python(trace: Trace, path: str) -> None:
    """Check a file that is, or contains, Python."""
    for reason in purity.unproven_code(_text(path)):
        trace.unproven(reason)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""

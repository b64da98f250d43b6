"""Judge the tree's own code that a bake uses: custom modules, templates and state files that are Python."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, Protocol

from saltext.immutable.builder.states import purity as unproven

LANGUAGES = ("py", "mako", "genshi", "cheetah", "wempy")
"""What runs Python, by what is in the names of renderers."""
_CUSTOM = re.compile("/extmods/|/extension_modules/")
_SERVED = re.compile("/minion/(?:cache/)?files/")


class Trace(Protocol):
    """Where it is written down, as `tracing` has it."""

    judged: set[str]

    def note(self, *what: Any) -> None:
        """Write an observation down."""

    def unproven(self, reason: str) -> None:
        """Write down that something cannot be proven."""


def at_work() -> str | None:
    """Return what is at work of the tree's own code, if any is: a custom module, or a file that is Python."""
    frame = sys._getframe()
    while frame is not None:
        place = frame.f_code.co_filename
        if _CUSTOM.search(place):
            return f"the custom module {os.path.basename(place).removesuffix('.py')}"
        if _SERVED.search(place) and "debug_info" not in frame.f_globals:  # which is what Jinja makes of its templates
            return os.path.basename(place)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def is_python_of_the_tree(code: Any) -> bool:
    """Tell whether code is that of a file which the master serves; Jinja makes code as well."""
    names = getattr(code, "co_names", ())
    return bool(_SERVED.search(getattr(code, "co_filename", ""))) and "jinja2.runtime" not in names


def call(trace: Trace, loader: Any, function: str) -> None:
    """Judge an execution function that a template uses."""
    if reason := unproven.of_call(function):
        trace.unproven(f"{reason} ({function})")
    custom(trace, loader, function)


def custom(trace: Trace, loader: Any, function: str) -> None:
    """Judge the code behind a function, if it is a custom module's."""
    try:
        code = getattr(loader[function], "__code__", None) or loader[function].__wrapped__.__code__
    except (AttributeError, KeyError, TypeError):
        return
    if _CUSTOM.search(code.co_filename):
        file(trace, code.co_filename)


def file(trace: Trace, place: str) -> None:
    """Judge a custom module that is used, and those that it names."""
    if place in trace.judged:
        return
    trace.judged.add(place)
    text = _text(place)
    for reason in unproven.of_code(text):
        trace.note("unproven", f"the custom module {os.path.basename(place)} {reason}")
    for other in sorted(glob.glob(f"{os.path.dirname(os.path.dirname(place))}/*/*.py")):
        if any(re.search(rf"\b{re.escape(name)}\b", text) for name in _names(other)):
            file(trace, other)


def _names(place: str) -> Iterator[str]:
    """Yield what a custom module is called."""
    yield os.path.basename(place).removesuffix(".py")
    yield from re.findall(r"""^__virtualname__\s*=\s*['"](\w+)""", _text(place), re.MULTILINE)


def shebang(trace: Trace, place: str, default: str) -> None:
    """Judge what is rendered, where its first line, or else the default, says that Python is in it."""
    first = _text(place).partition("\n")[0]
    renderers = first if first.startswith("#!") else default
    if any(language in renderers for language in LANGUAGES):
        python(trace, place)


def python(trace: Trace, place: str) -> None:
    """Judge a file that is Python, or has some in it."""
    for reason in unproven.of_code(_text(place)):
        trace.unproven(reason)


def _text(place: str) -> str:
    try:
        with open(place, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""

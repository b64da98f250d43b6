"""Errors of Salt's renderers as an operator reads them: once, with file and lines, without Salt's own code."""

from __future__ import annotations

import functools
import io
import re
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from saltext.immutable.text import shortened

_MOST_LINES, _LONGEST_LINE = 60, 300
_SLS = re.compile(r"Rendering SLS '(?:[^':]+:)?([^']+)' failed")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n((?:[ \t]+[^\n]*\n)*)([^\n]*)\n*")
_BETWEEN = re.compile(r"^(?:During handling of the above|The above) exception[^\n]*\n*", re.MULTILINE)
_FRAME = re.compile(r'File "([^"<]+)", line (\d+)')
_OF_PYTHON = re.compile(r"/(?:site|dist)-packages/|/lib/python3")
_CACHED = re.compile(r"(?<![^\s\"(])[^\s\"(]*/cache/salt/minion/(?:files/[^/\s]+/|extmods/(?=(\w+)/))")
_EXTMODS = "/extmods/"
_UNKNOWN_FILE = '"<unicode string>"'
_IMPORTED = re.compile(r"Encountered error loading (?:yaml|json|text)")


def messages(errors: Iterable[object]) -> str:
    """Return errors of Salt as `readable` does, each once: lines that a terminal only prints, and not too many."""
    found = dict.fromkeys(readable(str(error)) for error in errors)
    lines = [shortened(line, _LONGEST_LINE) for text in found for line in text.split("\n")]
    more = [f"... and {len(lines) - _MOST_LINES} more lines"] if len(lines) > _MOST_LINES else []
    return "\n".join([*lines[:_MOST_LINES], *more])


def readable(error: str) -> str:
    """Return one error of Salt without tracebacks, with the name of the SLS and paths as in ``salt://``.

    Of a traceback that says what the error is (it stands alone, or behind a colon) its last line stays, and the last
    line of the tree's own code; of another one only where it leads into a custom module.
    """
    name = _SLS.search(error)
    text = _BETWEEN.sub("", error)
    found = list(_TRACEBACK.finditer(text))
    if found and text[: found[0].start()].rstrip()[-1:] in ("", ":"):
        last = found[-1]
        before = _TRACEBACK.sub("", text[: last.start()]).rstrip()
        text = f"{before} {last[2]}{_where(last[1])}\n{text[last.end() :]}"
    text = _TRACEBACK.sub(_of_custom_module, text).strip()
    if name is not None:
        here = "the file that is imported" if _IMPORTED.search(text) else f"SLS {name[1]}"
        text = text.replace(_UNKNOWN_FILE, here)
    return _CACHED.sub(lambda found: f"salt://{'_' if found[1] else ''}", text)


def _of_custom_module(found: re.Match[str]) -> str:
    """Return the last line of a traceback that leads into a custom module, with its place; '' for others."""
    where = _where(found[1])
    return f"{found[2]}{where}\n" if _EXTMODS in where else ""


def _where(frames: str) -> str:
    """Return the last place of a traceback that is not in Python or in Salt, as a phrase in brackets."""
    own = [found for found in _FRAME.finditer(frames) if not _OF_PYTHON.search(found[1])]
    return f" ({own[-1][1]}, line {own[-1][2]})" if own else ""


class Renderers:
    """Salt's renderers by name, whose errors show the lines around.

    Salt leaves them out for YAML, where it has them not from libyaml, and for Python that it runs as text (pyobjects).
    """

    def __init__(self, renderers: Any) -> None:
        self._renderers = renderers

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return _with_lines(self._renderers[name])

    def __contains__(self, name: object) -> bool:
        return name in self._renderers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._renderers, name)


def _with_lines(render: Callable[..., Any]) -> Callable[..., Any]:
    from salt.exceptions import SaltRenderError

    @functools.wraps(render)
    def render_text(data: Any, *args: Any, **kwargs: Any) -> Any:
        text = data.read() if isinstance(data, io.StringIO) else data
        try:
            return render(io.StringIO(text) if isinstance(data, io.StringIO) else data, *args, **kwargs)
        except SaltRenderError as err:
            mark = getattr(err.__context__, "problem_mark", None)
            if err.buffer or mark is None or not isinstance(text, str):
                raise
            last = len(text.splitlines())  # an error at the end is behind it
            raise SaltRenderError(str(err), min(mark.line + 1, last), text) from err
        except Exception as err:
            frames = traceback.walk_tb(err.__traceback__)
            lines = [line for frame, line in frames if frame.f_code.co_filename == "<string>"]
            if not lines or not isinstance(text, str):
                raise
            raise SaltRenderError(f"{type(err).__name__}: {err}", lines[-1], text) from err

    return render_text

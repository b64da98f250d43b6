"""Errors of Salt's renderers as an operator reads them: once, with the name of the file, without Salt's own code."""

from __future__ import annotations

import re
from collections.abc import Iterable

from saltext.immutable.text import shortened

_MOST_LINES, _LONGEST_LINE = 60, 300
_SLS = re.compile(r"Rendering SLS '(?:[^':]+:)?([^']+)' failed")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n((?:[ \t]+[^\n]*\n)*)([^\n]*)\n*")
_BETWEEN = re.compile(r"^(?:During handling of the above|The above) exception[^\n]*\n*", re.MULTILINE)
_FRAME = re.compile(r'File "([^"<]+)", line (\d+)')
_OF_PYTHON = re.compile(r"/(?:site|dist)-packages/|/lib/python3")
_CACHED = re.compile(r"(?<![^\s\"(])[^\s\"(]*/cache/salt/minion/(?:files/[^/\s]+/|extmods/(?=(\w+)/))")
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
    line of the tree's own code.
    """
    name = _SLS.search(error)
    text = _BETWEEN.sub("", error)
    found = list(_TRACEBACK.finditer(text))
    if found and text[: found[0].start()].rstrip()[-1:] in ("", ":"):
        last = found[-1]
        before = _TRACEBACK.sub("", text[: last.start()]).rstrip()
        text = f"{before} {last[2]}{_where(last[1])}\n{text[last.end() :]}"
    text = _TRACEBACK.sub("", text).strip()
    if name is not None:
        here = "the file that is imported" if _IMPORTED.search(text) else f"SLS {name[1]}"
        text = text.replace(_UNKNOWN_FILE, here)
    return _CACHED.sub(lambda found: f"salt://{'_' if found[1] else ''}", text)


def _where(frames: str) -> str:
    """Return the last place of a traceback that is not in Python or in Salt, as a phrase in brackets."""
    own = [found for found in _FRAME.finditer(frames) if not _OF_PYTHON.search(found[1])]
    return f" ({own[-1][1]}, line {own[-1][2]})" if own else ""

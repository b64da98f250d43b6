"""Text that others wrote: machines, operators, programs."""

from __future__ import annotations

import reprlib

LONGEST = 2000
"""Characters of a text that are kept."""


def plain(text: str) -> str:
    """Return a text as any database takes it and a terminal only prints it: shortened, control characters escaped."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text[:LONGEST])


def shortened(text: str, most: int) -> str:
    """Return a text as one line that a terminal only prints; of a long one, beginning and end."""
    ends = text if len(text) <= 2 * most else text[:most] + text[-most:]
    shown = plain(ends).replace("\n", "\\n")
    return shown if len(shown) <= most else f"{shown[: most // 2]} ... {shown[-(most // 2) :]}"


SHOWN = 60
"""Characters of a foreign value that a message shows."""


def quoted(value: object) -> str:
    """Return a foreign value for a message: in quotes, shortened, without characters that a terminal acts on."""
    shown = repr(value[: 2 * SHOWN]) if isinstance(value, str) else _represented(value)
    return shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 3]}...{shown[-1] if isinstance(value, str) else ''}"


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 3, 2 * SHOWN
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxfrozenset = _SHORT.maxdict = 20


def _represented(value: object) -> str:
    """Return what ``repr`` says, of a large value only the beginning. Python writes no number of 5,000 digits."""
    try:
        return _SHORT.repr(value)
    except ValueError:
        return f"{type(value).__name__} too large to show"

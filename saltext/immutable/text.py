"""Text that others wrote: machines, operators, programs."""

from __future__ import annotations

LONGEST = 2000
"""Characters of a text that are kept."""


def plain(text: str) -> str:
    """Return a text as any database takes it and a terminal only prints it: shortened, control characters escaped."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text[:LONGEST])


SHOWN = 60
"""Characters of a foreign value that a message shows."""


def quoted(value: object) -> str:
    """Return a foreign value for a message: in quotes, shortened, without characters that a terminal acts on."""
    shown = repr(value[: 2 * SHOWN] if isinstance(value, str) else value)
    return shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 3]}...{shown[-1] if isinstance(value, str) else ''}"

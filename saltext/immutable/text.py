"""Text that others wrote: machines, operators, programs."""

from __future__ import annotations

LONGEST = 2000
"""Characters of a text that are kept."""


def plain(text: str) -> str:
    """Return a text as any database takes it and a terminal only prints it: shortened, control characters escaped."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text[:LONGEST])

"""Compare the public surface with what is written down, or write it down: ``--write``."""

from __future__ import annotations

import sys

from . import PARTS
from .files import WRITE, difference, write


def main(words: list[str]) -> int:
    """Return 1 where the code differs from what is written down."""
    found = {part: read() for part, read in PARTS.items()}
    if words == ["--write"]:
        for part, data in found.items():
            write(part, data)
        return 0
    differences = [text for part, data in found.items() if (text := difference(part, data))]
    print("\n".join([*differences, f"meant? {WRITE}"]) if differences else "the public surface is as written down")
    return int(bool(differences))


sys.exit(main(sys.argv[1:]))

"""Patterns of absolute paths, as a recipe's ``mutable`` has them."""

from __future__ import annotations

import re

_WILDCARDS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def expression(pattern: str) -> str:
    """Return a pattern as a regular expression: ``*`` and ``?`` stop at a slash, ``**`` does not."""
    return "".join(_WILDCARDS.get(part) or re.escape(part) for part in re.split(r"(\*\*|\*|\?)", pattern))

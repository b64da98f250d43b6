"""Patterns of absolute paths, as a recipe's ``mutable`` has them, and what the name of an environment may be.

Standard library only: the guard imports it before each call.
"""

from __future__ import annotations

import re

ENVIRONMENT = re.compile(r"(?![/-]|.*(^|/)\.\.(/|$))[^\s\0]+")
"""Of Salt's states or pillar. It becomes a folder of caches, and must not lead out of them."""
_WILDCARDS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def expression(pattern: str) -> str:
    """Return a pattern as a regular expression: ``*`` and ``?`` stop at a slash, ``**`` does not."""
    return "".join(_WILDCARDS.get(part) or re.escape(part) for part in re.split(r"(\*\*|\*|\?)", pattern))

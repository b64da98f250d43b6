"""Private keys in files of an image: all of its machines would share them. A bake warns of them, or refuses them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder.finish.search import Pattern
from saltext.immutable.builder.sources.minion import VENV

KIND = "private keys"
OURS = (f"{VENV[1:]}/",)
"""Salt and its Python packages are not searched: they name such paths, and have keys among their examples."""
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:\\n|\s)+(?:[A-Za-z-]+: [^\n]*\n)*\s*[A-Za-z0-9+/=]{16}"
)
PATTERN = Pattern((b"PRIVATE KEY",), _PRIVATE_KEY, OURS, in_programs=False)
"""libgnutls has keys in it, for tests of itself."""
WARNING = "holds a private key, and all machines of this image would share it; let a state of at_launch make it"


def refuse(recipe: str, paths: Sequence[str]) -> None:
    """Raise CommandExecutionError where an image has private keys; for a recipe with ``private_keys: refuse``.

    ``paths``: the files that hold one, in all layers of the image.
    """
    if paths:
        raise CommandExecutionError(
            f"{recipe}: the image holds private keys, which all of its machines would share: {listed(paths)}; let a "
            "state of at_launch make them, or set private_keys: warn in the recipe"
        )


def listed(paths: Sequence[str]) -> str:
    """Return the first five paths as text, and how many more there are."""
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return ", ".join(f"/{path}" for path in paths[:5]) + more

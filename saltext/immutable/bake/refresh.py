"""What a bake does about packages that have updates at the mirrors."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

from salt.exceptions import SaltInvocationError

Refresh = Literal["never", "updates", "always"]
"""``updates``: layers with such packages are built anew; ``always``: all layers are."""


def wanted(value: Any) -> Refresh:
    """Return what an argument means; True is ``updates``, as it was before there were words."""
    word = "updates" if value is True else value or "never"
    if word not in get_args(Refresh):
        raise SaltInvocationError(
            f"refresh: {value!r} is none of never, updates (build anew what has updates at the mirrors), always "
            "(build everything anew); write refresh=updates"
        )
    return cast(Refresh, word)

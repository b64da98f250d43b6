"""What a bake does about packages that have updates at the mirrors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from salt.exceptions import SaltInvocationError

Refresh = Literal["never", "updates", "always"]
"""``updates``: layers with such packages are built again; ``always``: all layers are."""


@dataclass(frozen=True)
class Updates:
    """The packages of a recipe's last image, as it has them and as the mirrors have them now."""

    installed: Mapping[str, str] = field(default_factory=dict)
    """By package: the version in the image."""
    candidates: Mapping[str, str] = field(default_factory=dict)
    """By package: the version at the mirrors."""

    def concern(self, packages: Mapping[str, str]) -> bool:
        """Tell whether the mirrors have another version of any of these packages."""
        return any(self.candidates.get(name, version) != version for name, version in packages.items())


def wanted(value: Any) -> Refresh:
    """Return what the argument ``refresh`` means; True means ``updates``. Raises SaltInvocationError for others."""
    word = "updates" if value is True else "never" if value in (False, None) else value
    if word not in get_args(Refresh):
        raise SaltInvocationError(
            f"refresh: {value!r} is not one of never, updates (build layers with updates at the mirrors again) and "
            "always (build every layer again); write refresh=updates"
        )
    return cast(Refresh, word)

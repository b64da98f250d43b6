"""What the pillar says, as frozen data: recipes and fleets. What the master config says: settings.

Durations are seconds. Paths are absolute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Debian:
    """A root made by mmdebstrap: ``from: {debian: bookworm, packages: [...]}``."""

    suite: str
    packages: tuple[str, ...] = ()
    components: tuple[str, ...] = ("main",)
    mirror: str | None = None
    """None: the mirrors that the builder's own apt uses."""


@dataclass(frozen=True)
class Parent:
    """Another recipe's image: ``from: {recipe: base}``."""

    recipe: str


@dataclass(frozen=True)
class Minion:
    """How Salt gets into the image: ``minion: {pip: salt}`` or ``{pip: 'salt==3008.3'}``."""

    pip: str = "salt"
    """A pip requirement; the bare word ``salt`` means the master's own version."""


@dataclass(frozen=True)
class Guard:
    """What a recipe adds to the guard's own tables: ``guard: {allow: [...], deny: [...]}``; globs of function names."""

    allow: tuple[str, ...] = ()
    """Refused by the tables, allowed on these machines."""
    deny: tuple[str, ...] = ()
    """Allowed by the tables, refused on these machines; wins over ``allow``."""
    dry_runs: bool = True
    """Whether states may run with ``test=True``."""
    allow_dangerous: bool = False
    """``allow`` may match functions that run anything they are given."""


@dataclass(frozen=True)
class Recipe:
    """What an image is made of."""

    name: str
    source: Debian | Parent
    bake_id: str
    """The minion id that the bake runs under. Default: ``<name>-bake``."""
    minion: Minion | None = None
    """Set exactly in the recipe that has no parent."""
    saltenv: str = "base"
    pillarenv: str | None = None
    grains: Mapping[str, Any] = field(default_factory=dict)
    states: Literal["highstate"] | tuple[str, ...] = ()
    read_only: bool = True
    bake_within: float = 3600.0
    """Seconds that its states may take."""
    guard: Guard = Guard()
    at_launch: tuple[str, ...] = ()
    """SLS that each machine applies once a boot, before it is ready."""
    writable: tuple[str, ...] = ()
    """Directories besides /var that its machines may write to."""
    mutable: tuple[str, ...] = ()
    """Paths (globs) that change by design: no drift."""
    secrets: tuple[str, ...] = ()
    """Pillar paths (globs, ``db:password``) whose values must not reach the image."""


@dataclass(frozen=True)
class Amount:
    """A number of machines, or a share of the fleet: ``2`` or ``25%``."""

    value: int
    percent: bool = False

    def up(self, size: int) -> int:
        """Machines of ``size``, rounded up: 25 % of 6 is 2 (surge, steps)."""
        return -(-self.value * size // 100) if self.percent else self.value

    def down(self, size: int) -> int:
        """Machines of ``size``, rounded down: 25 % of 6 is 1 (unavailable)."""
        return self.value * size // 100 if self.percent else self.value

    def __str__(self) -> str:
        return f"{self.value}%" if self.percent else str(self.value)


@dataclass(frozen=True)
class Strategy:
    """How a fleet goes from one generation to the next."""

    max_surge: Amount = Amount(25, percent=True)
    max_unavailable: Amount = Amount(0)
    ready_within: float = 600.0
    progress_within: float = 1200.0
    """Default: twice ``ready_within``."""
    max_failures: int = 0
    on_failure: Literal["rollback", "pause"] = "rollback"


@dataclass(frozen=True)
class FunctionCheck:
    """A Salt function whose result must be true: ``{fun: service.status, args: [nginx]}``."""

    fun: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HttpCheck:
    """A URL that must answer 2xx or 3xx: ``{http: 'http://{address}/healthz'}``."""

    url: str
    """``{address}`` and ``{minion_id}`` are filled in."""
    timeout: float = 5.0


@dataclass(frozen=True)
class ProviderSpec:
    """Where machines run. ``settings`` belong to the provider, which checks them itself."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fleet:
    """Identical machines that should all run one image."""

    name: str
    recipe: str
    size: int
    minion_id: str
    """Holds ``{token}`` once."""
    provider: ProviderSpec
    channel: str = "stable"
    strategy: Strategy = Strategy()
    health: tuple[FunctionCheck | HttpCheck, ...] = ()
    allow_outage: bool = False


@dataclass(frozen=True)
class Definitions:
    """All that one pillar defines; every reference in it resolves."""

    recipes: Mapping[str, Recipe]
    fleets: Mapping[str, Fleet]

    def chain(self, name: str) -> list[Recipe]:
        """Return the recipes that ``name`` is built from, the root first, ``name`` last."""
        recipe = self.recipes[name]
        above = self.chain(recipe.source.recipe) if isinstance(recipe.source, Parent) else []
        return [*above, recipe]


@dataclass(frozen=True)
class Network:
    """The bridge that machines of this host live on."""

    bridge: str = "immutable0"
    subnet: str = "10.117.0.0/24"
    """The first address is the bridge's own; machines get the others."""


@dataclass(frozen=True)
class Settings:
    """The master config's ``immutable:``; on a builder, its minion config's."""

    root: Path = Path("/var/lib/immutable")
    """Layers, images, machines and caches of this host."""
    store: str = "sqlite:////var/lib/immutable/store.sqlite"
    """An SQLAlchemy URL. Default: ``store.sqlite`` below ``root``."""
    builder: str | None = None
    """Minion id of the host that bakes and runs machines; None: the master's own host."""
    pillar_id: str | None = None
    """Whose pillar holds the definitions; None: the runner's ``__opts__['id']``."""
    master: str | None = None
    """Where machines reach the master; None: the bridge's address, for a master on the same host."""
    network: Network = Network()

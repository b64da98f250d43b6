"""What the pillar says, as frozen data: recipes and fleets. What the master config says: settings.

Durations are seconds. Paths are absolute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
class Tarball:
    """A root in a tar archive: ``from: {tarball: /srv/root.tar.zst}``, or a URL."""

    location: str
    sha256: str | None = None
    """Of the archive; a URL needs it. None: of the file as it is when it is baked."""


@dataclass(frozen=True)
class Directory:
    """A root that lies in a directory of the builder: ``from: {directory: /srv/root}``."""

    path: str


@dataclass(frozen=True)
class Parent:
    """Another recipe's image: ``from: {recipe: base}``."""

    recipe: str


Source = Debian | Tarball | Directory | Parent


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
class Slim:
    """What is taken out of the layers of a recipe as no machine needs it to run: ``slim: {docs: keep}``."""

    docs: Literal["keep", "drop"] = "drop"
    """Licences always stay."""
    man: Literal["keep", "drop"] = "drop"
    info: Literal["keep", "drop"] = "drop"
    locales: Literal["keep"] | tuple[str, ...] = ("en",)
    """The languages whose translations stay."""
    tests: Literal["keep", "drop"] = "drop"
    """Those that Salt's own Python packages bring along."""
    bytecode: Literal["keep", "drop"] = "keep"
    """Without it images are smaller, and programs in Python start slower."""


@dataclass(frozen=True)
class ImageTest:
    """One test of an image, or all that saltcheck finds for an SLS."""

    name: str
    sls: str | None = None
    """Of which saltcheck's files are run; '': of each that the recipe applies; None: it is one test, ``check``."""
    check: Mapping[str, Any] = field(default_factory=dict)
    """In the words of `salt.modules.saltcheck`: module_and_function, args, kwargs, assertion, expected_return ..."""


@dataclass(frozen=True)
class RecipeTests:
    """What has to hold of an image."""

    inside: tuple[ImageTest, ...] = ()
    """Run in the machine that bakes, after the states."""
    booted: tuple[ImageTest, ...] = ()
    """Run on a machine that was launched from the finished image."""


@dataclass(frozen=True)
class Recipe:
    """What an image is made of."""

    name: str
    source: Source
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
    assume_stable: bool = False
    """What its states take from outside (commands, the internet, the mine) counts as unchanged."""
    keep: int | None = None
    """Of its newest images ``image.prune`` keeps so many."""
    keep_for: float | None = None
    """Seconds for which ``image.prune`` keeps each of its images. With neither it keeps all."""
    bake_in: Literal["machine", "chroot"] = "machine"
    """chroot: its states are applied where no init runs; quicker, and of some states nothing is sure."""
    slim: Slim | Literal[False] | None = None
    """None: as its parent; in a recipe without one, the default."""
    tests: RecipeTests = RecipeTests()
    private_keys: Literal["warn", "refuse"] = "warn"
    """What is done where files of the image hold private keys."""


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

    def exceeded(self, part: int, whole: int) -> bool:
        """Tell whether ``part`` of ``whole`` is more: 25 % of 6 is exceeded by 2, not by 1."""
        return part * 100 > self.value * whole if self.percent else part > self.value

    def __str__(self) -> str:
        return f"{self.value}%" if self.percent else str(self.value)


@dataclass(frozen=True)
class Strategy:
    """How a fleet goes from one generation to the next."""

    max_surge: Amount = Amount(25, percent=True)
    max_unavailable: Amount = Amount(0)
    steps: tuple[Amount, ...] = ()
    """Machines on the new generation, ascending; the last is all. Empty: all at once."""
    soak: float = 0.0
    """After each step: how long the new machines must stay healthy before the next one."""
    approve: bool = False
    """After each step but the last, and before a blue-green switch: wait for ``fleet.approve``."""
    blue_green: bool = False
    """Launch a whole second fleet, then move the traffic at once."""
    ready_within: float = 600.0
    min_ready: float = 0.0
    """A new machine counts once it has been healthy for so long."""
    unhealthy_for: float = 10.0
    """A new machine that was ready has failed once it has been unhealthy for so long."""
    progress_within: float = 1200.0
    """Default: twice ``ready_within``, and what ``min_ready`` and ``drain_within`` add to it."""
    max_failures: Amount = Amount(0)
    """Failed machines that are borne; as a share: of the machines to replace."""
    on_failure: Literal["rollback", "pause"] = "rollback"
    drain_within: float = 30.0
    """Seconds after which a machine that was taken out of the traffic goes, whoever still talks to it."""
    keep_old: float = 0.0
    """Seconds for which drained old machines stay, so that a rollback is moving the traffic back."""
    skip_matching: bool = True
    """Machines that are of the wanted generation already stay. False: every machine is replaced."""
    protected: Literal["wait", "skip"] = "wait"
    """What a rollout does about a protected machine in its way: wait until it is not, or leave it."""
    fast_rollback: int = 3
    """A rollback over so many generations at most skips steps and soak."""


@dataclass(frozen=True)
class Window:
    """When a fleet may be changed: from each moment that ``cron`` names, for ``duration``.

    Whether cron and timezone can be understood is judged where they are used: what cannot is closed.
    """

    cron: str
    duration: float
    timezone: str = "UTC"
    freeze: bool = False
    """The contrary: when it must not be changed, whatever other windows say."""


@dataclass(frozen=True)
class Budgets:
    """How much may be under way at once. None: as much as the strategy allows."""

    launches: Amount | None = None
    """Machines that are launched and not ready yet."""
    disruptions: Amount | None = None
    """Machines that have served and are on their way out."""


@dataclass(frozen=True)
class TrafficSpec:
    """Who sends visitors to the machines. ``settings`` belong to the adapter, which checks them itself."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


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
    traffic: TrafficSpec | None = None
    """None: a machine serves as soon as it is ready, and until it goes."""
    max_age: float | None = None
    """Seconds after which a machine is replaced."""
    windows: tuple[Window, ...] = ()
    """When it may be changed; none: always."""
    budgets: Budgets = Budgets()
    sick_limit: Amount = Amount(20, percent=True)
    """With more sick machines than this (rounded up) ``fleet.reconcile`` replaces none and alarms."""
    unreachable_for: float = 600.0
    """A machine that runs but does not answer is replaced after so many seconds."""
    orphan_grace: float = 3600.0
    """Keys and machines that nobody wants are removed so many seconds after they were first seen."""
    revoked: Literal["keep", "replace"] = "keep"
    """What ``fleet.reconcile`` does about a revoked image: nothing, or a roll to what the channel names now."""


@dataclass(frozen=True)
class Definitions:
    """All that one pillar defines; every reference in it resolves."""

    recipes: Mapping[str, Recipe]
    fleets: Mapping[str, Fleet]

    def chain(self, name: str) -> list[Recipe]:
        """Return the recipes that ``name`` is built from, the root first, ``name`` last; each slims as its parent
        unless it says otherwise.
        """
        recipe = self.recipes[name]
        above = self.chain(recipe.source.recipe) if isinstance(recipe.source, Parent) else []
        return [*above, replace(recipe, slim=above[-1].slim) if above and recipe.slim is None else recipe]


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
    windows: tuple[Window, ...] = ()
    """When any fleet may be changed; the most restrictive of these and the fleet's own counts."""
    budgets: Budgets = Budgets()
    """How much may be under way in all fleets together: numbers, no shares."""
    signing_key: Path | None = None
    """The Ed25519 key (PEM) that signs images; None: one that is made below ``root`` on first use."""
    trusted_keys: tuple[Path, ...] = ()
    """Public keys (PEM) of others whose signatures count as our own does."""
    cache: Literal["use", "only"] = "use"
    """only: a bake fetches nothing that is not in the builder's cache."""

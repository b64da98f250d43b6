"""The definitions as frozen data: recipes and fleets of the pillar, settings of the master config.

Durations are seconds. Paths are absolute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from saltext.immutable.spec.origins import Parent, Source


@dataclass(frozen=True)
class Minion:
    """How Salt is installed in the image: ``minion: {pip: salt}`` or ``{pip: 'salt==3008.3'}``."""

    pip: str = "salt"
    """A pip requirement; the bare word ``salt`` means the master's own version."""


@dataclass(frozen=True)
class Guard:
    """What a recipe adds to the tables of the guard: ``guard: {allow: [...], deny: [...]}``, globs of functions."""

    allow: tuple[str, ...] = ()
    """Functions that the tables refuse and these machines allow."""
    deny: tuple[str, ...] = ()
    """Functions that the tables allow and these machines refuse; wins over ``allow``."""
    dry_runs: bool = True
    """Whether states may run with ``test=True``."""
    returners: tuple[str, ...] = ()
    """Names of Salt's returners that jobs may name (``salt --return``), beside the answer to the master."""
    allow_dangerous: bool = False
    """Whether ``allow`` may match functions that run any command or code."""


@dataclass(frozen=True)
class Slim:
    """Which files are removed from the layers of a recipe because no machine needs them: ``slim: {docs: keep}``."""

    docs: Literal["keep", "drop"] = "drop"
    """Licences are always kept."""
    man: Literal["keep", "drop"] = "drop"
    info: Literal["keep", "drop"] = "drop"
    locales: Literal["keep"] | tuple[str, ...] = ("en",)
    """The languages whose translations are kept."""
    tests: Literal["keep", "drop"] = "drop"
    """The tests in Salt's own Python packages."""
    bytecode: Literal["keep", "drop"] = "keep"
    """Without it images are smaller, and Python programs start slower."""


@dataclass(frozen=True)
class ImageTest:
    """One test of an image, or all tests that saltcheck finds for an SLS."""

    name: str
    sls: str | None = None
    """The SLS whose saltcheck files run; '': those of each SLS of the recipe; None: this is one test, ``check``."""
    check: Mapping[str, Any] = field(default_factory=dict)
    """As for `salt.modules.saltcheck`: module_and_function, args, kwargs, assertion, expected_return ..."""


NOTED: Literal["noted"] = "noted"


@dataclass(frozen=True)
class VirtualMachine:
    """The virtual machine in which the states of a recipe are applied, and its tests ``vm`` run."""

    memory: int = 1 << 30
    """Bytes."""
    cpus: int = 2
    vmlinuz: str | None = None
    """Path of its kernel on the builder; None: that of the image."""
    initrd: str | None = None
    """Path of its initial RAM disk on the builder, with ``vmlinuz``."""


@dataclass(frozen=True)
class RecipeTests:
    """The tests that an image has to pass."""

    inside: tuple[ImageTest, ...] = ()
    """Run in the machine of the bake, after the states."""
    booted: tuple[ImageTest, ...] = ()
    """Run on a machine that was launched from the finished image."""
    vm: tuple[ImageTest, ...] = ()
    """Run in a virtual machine that boots from the disk of the finished image."""
    idempotent: bool | Literal["noted"] = False
    """Whether the states, applied again to the finished layer, must change nothing; NOTED: those are remembered."""

    @property
    def of_image(self) -> tuple[ImageTest, ...]:
        """The tests that run on a machine of the finished image."""
        return (*self.booted, *self.vm)


@dataclass(frozen=True)
class Recipe:
    """How an image is made."""

    name: str
    source: Source
    bake_id: str
    """The minion id that the bake runs under. Default: ``<name>-bake``."""
    minion: Minion | None = None
    """Set if and only if the recipe has no parent."""
    saltenv: str = "base"
    pillarenv: str | None = None
    grains: Mapping[str, Any] = field(default_factory=dict)
    states: Literal["highstate"] | tuple[str, ...] = ()
    read_only: bool = True
    bake_within: float = 3600.0
    """Seconds that the states may take in a bake."""
    guard: Guard = Guard()
    at_boot: tuple[str, ...] = ()
    """Units that states want running and that a bake enables without starting them."""
    bake_identity: tuple[str, ...] = ()
    """Paths (globs) that may hold the bake_id, host name or address of the bake: nobody is warned of them."""
    at_launch: tuple[str, ...] = ()
    """SLS files that each machine applies once per boot, before it is ready."""
    writable: tuple[str, ...] = ()
    """Directories besides /var that its machines may write to."""
    exec: tuple[str, ...] = ()
    """Folders where machines write, in which programs run anyway."""
    limits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Unit -> ``memory`` (bytes) and ``tasks``, which its processes may not go over."""
    mutable: tuple[str, ...] = ()
    """Paths (globs) that change by design, so that their changes are not drift."""
    secrets: tuple[str, ...] = ()
    """Pillar paths (globs, ``db:password``) whose values must not be in the image."""
    assume_stable: bool = False
    """Whether inputs from outside the tree (commands, the internet, the mine) count as unchanged."""
    keep: int | None = None
    """How many of its newest images ``image.prune`` keeps."""
    keep_for: float | None = None
    """Seconds for which ``image.prune`` keeps each of its images. Without both keys it keeps all."""
    bake_in: Literal["machine", "chroot", "vm"] = "machine"
    """chroot: the states run where no init runs. That is quicker, but the results of some states are not certain. vm:
    they run in a virtual machine, which has a kernel of its own."""
    vm: VirtualMachine = VirtualMachine()
    slim: Slim | Literal[False] | None = None
    """None: as the parent has it; without a parent, the default."""
    tests: RecipeTests = RecipeTests()
    private_keys: Literal["warn", "refuse"] = "warn"
    """What a bake does if files of the image hold private keys."""

    @property
    def above(self) -> str | None:
        """The recipe that it is built from, or whose channel names the image that it is built from."""
        source = self.source
        return source.recipe if isinstance(source, Parent) else getattr(source, "follows", None)

    @property
    def kernel_of_builder(self) -> dict[str, str] | None:
        """The files of the builder that its virtual machine boots: vmlinuz and initrd; None: those of the image."""
        if self.bake_in != "vm" or self.vm.vmlinuz is None or self.vm.initrd is None:
            return None
        return {"vmlinuz": self.vm.vmlinuz, "initrd": self.vm.initrd}


@dataclass(frozen=True)
class Amount:
    """A number of machines, or a share of the fleet: ``2`` or ``25%``."""

    value: int
    percent: bool = False

    def up(self, size: int) -> int:
        """Return the number of machines of ``size``, rounded up: 25 % of 6 is 2 (surge, steps)."""
        return -(-self.value * size // 100) if self.percent else self.value

    def down(self, size: int) -> int:
        """Return the number of machines of ``size``, rounded down: 25 % of 6 is 1 (unavailable)."""
        return self.value * size // 100 if self.percent else self.value

    def exceeded(self, part: int, whole: int) -> bool:
        """Tell whether ``part`` of ``whole`` is more than this amount: 25 % of 6 is exceeded by 2, not by 1."""
        return part * 100 > self.value * whole if self.percent else part > self.value

    def __str__(self) -> str:
        return f"{self.value}%" if self.percent else str(self.value)


@dataclass(frozen=True)
class Strategy:
    """How a fleet is rolled from one generation to the next."""

    max_surge: Amount = Amount(25, percent=True)
    max_unavailable: Amount = Amount(0)
    steps: tuple[Amount, ...] = ()
    """How many machines run the new generation after each step, ascending; the last step is all. Empty: one step."""
    soak: float = 0.0
    """Seconds that the new machines must stay healthy after each step, before the next one."""
    approve: bool = False
    """Whether to wait for ``fleet.approve`` after each step but the last, and before a blue-green switch."""
    blue_green: bool = False
    """Launch a whole second fleet, then switch the traffic at once."""
    ready_within: float = 600.0
    """Seconds after which a new machine that is not ready has failed."""
    min_ready: float = 0.0
    """Seconds that a new machine must be healthy before it counts."""
    unhealthy_for: float = 10.0
    """Seconds after which a new machine that was ready and is unhealthy has failed."""
    progress_within: float = 1200.0
    """Seconds without progress after which a rollout failed. Default: 2 * ready_within + min_ready + drain_within."""
    max_failures: Amount = Amount(0)
    """How many failed machines a rollout tolerates; a percentage is of the machines to replace."""
    on_failure: Literal["rollback", "pause"] = "rollback"
    drain_within: float = 30.0
    """Seconds after which a drained machine is destroyed even if it still has sessions."""
    keep_old: float = 0.0
    """Seconds for which drained old machines are kept, so that a rollback only has to move the traffic back."""
    skip_matching: bool = True
    """Whether machines that run the target generation already are kept. False: every machine is replaced."""
    protected: Literal["wait", "skip"] = "wait"
    """What a rollout does about a protected machine that it would replace: wait, or leave it."""
    fast_rollback: int = 3
    """A rollback over at most so many generations skips steps and soak."""


@dataclass(frozen=True)
class Window:
    """When a fleet may be changed: from each time that ``cron`` names, for ``duration`` seconds.

    cron and timezone are parsed where they are used; a window with a wrong one is closed.
    """

    cron: str
    duration: float
    timezone: str = "UTC"
    freeze: bool = False
    """The opposite: when the fleet must not be changed, even if other windows are open."""


@dataclass(frozen=True)
class Budgets:
    """How many machines may be launched and disrupted at once. None: as many as the strategy allows."""

    launches: Amount | None = None
    """Machines that are launched and not ready yet."""
    disruptions: Amount | None = None
    """Machines that have served and are being removed."""


@dataclass(frozen=True)
class TrafficSpec:
    """Which load balancer sends traffic to the machines. ``settings`` belong to the adapter, which checks them."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FunctionCheck:
    """A Salt function whose result must be true: ``{fun: service.status, args: [nginx]}``."""

    fun: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


STATES_CHECK = FunctionCheck("immutable.services")
"""The check that follows from the image: the services that its states declare running do run."""


@dataclass(frozen=True)
class HttpCheck:
    """A URL that must answer 2xx or 3xx: ``{http: 'http://{address}/healthz'}``."""

    url: str
    """``{address}`` and ``{minion_id}`` are replaced by those of the machine."""
    timeout: float = 5.0


@dataclass(frozen=True)
class ProviderSpec:
    """Where machines run. ``settings`` belong to the provider, which checks them."""

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
    """The checks that the pillar names."""
    check_states: bool = True
    """Whether the services that the states of the image declare running are checked as well."""
    allow_outage: bool = False
    traffic: TrafficSpec | None = None
    """None: a machine serves from the time when it is ready until it is destroyed."""
    max_age: float | None = None
    """Seconds after which a machine is replaced."""
    windows: tuple[Window, ...] = ()
    """When the fleet may be changed; empty: always."""
    budgets: Budgets = Budgets()
    sick_limit: Amount = Amount(20, percent=True)
    """If more machines than this (rounded up) are sick, ``fleet.reconcile`` replaces none and fires an alarm."""
    unreachable_for: float = 600.0
    """Seconds after which a machine that runs but does not answer is replaced."""
    orphan_grace: float = 3600.0
    """Seconds from first seeing an orphan (a key or a machine that no fleet needs) until it is removed."""
    revoked: Literal["keep", "replace"] = "keep"
    """What ``fleet.reconcile`` does about a revoked image: nothing, or a roll to the image of the channel."""

    @property
    def checks(self) -> tuple[FunctionCheck | HttpCheck, ...]:
        """All checks that make a machine healthy."""
        return (STATES_CHECK, *self.health) if self.check_states else self.health


@dataclass(frozen=True)
class Definitions:
    """All recipes and fleets of one pillar; every reference between them resolves."""

    recipes: Mapping[str, Recipe]
    fleets: Mapping[str, Fleet]

    def chain(self, name: str) -> list[Recipe]:
        """Return the recipe ``name`` and those that it is built from, the root first; ``slim`` is inherited."""
        recipe = self.recipes[name]
        above = self.chain(recipe.source.recipe) if isinstance(recipe.source, Parent) else []
        return [*above, replace(recipe, slim=above[-1].slim) if above and recipe.slim is None else recipe]

    def ancestors(self, name: str) -> set[str]:
        """Return the recipes whose bakes change what ``name`` is built from: its parents, and those it follows."""
        found: set[str] = set()
        while (above := self.recipes[name].above) in self.recipes and above not in found:
            name = str(above)
            found.add(name)
        return found


@dataclass(frozen=True)
class Network:
    """The bridge that the machines of this host are connected to."""

    bridge: str = "immutable0"
    subnet: str = "10.117.0.0/24"
    """The first address is the bridge's; machines get the others."""


@dataclass(frozen=True)
class Settings:
    """``immutable:`` in the master config or, on a builder, the minion config."""

    root: Path = Path("/var/lib/immutable")
    """Layers, images, machines and caches of this host."""
    store: str = "sqlite:////var/lib/immutable/store.sqlite"
    """An SQLAlchemy URL. Default: ``store.sqlite`` below ``root``."""
    builder: str | None = None
    """Minion id of the host that bakes and runs machines; None: the master's own host."""
    pillar_id: str | None = None
    """The minion id whose pillar holds the definitions; None: the runner's ``__opts__['id']``."""
    master: str | None = None
    """The address of the master for machines; None: that of the bridge, for a master on the same host."""
    network: Network = Network()
    windows: tuple[Window, ...] = ()
    """When any fleet may be changed; the most restrictive of these and the fleet's own counts."""
    budgets: Budgets = Budgets()
    """How many machines of all fleets may be launched and disrupted at once: numbers, no percentages."""
    signing_key: Path | None = None
    """The Ed25519 key (PEM) that signs images; None: a key below ``root``, made on first use."""
    trusted_keys: tuple[Path, ...] = ()
    """Public keys (PEM) whose signatures are accepted besides our own."""
    cache: Literal["use", "only"] = "use"
    """only: a bake fetches nothing that is not in the builder's cache."""

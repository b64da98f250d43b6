"""Read the recipes of the pillar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from saltext.immutable.guard import policy, refused_functions
from saltext.immutable.spec import reading, sources, writable_paths
from saltext.immutable.spec.model import Guard, Minion, Recipe, VirtualMachine
from saltext.immutable.spec.origins import Debian, Parent, ParentImage, Source
from saltext.immutable.spec.section import Section
from saltext.immutable.spec.slim import slim
from saltext.immutable.spec.sources import matching
from saltext.immutable.spec.tests import tests
from saltext.immutable.spec.unit_limits import unit_limits
from saltext.immutable.text import plain, quoted

_GLOB = r"([A-Za-z0-9_*?-]|\[!?[A-Za-z0-9_-]+\])+"
_RETURNER = r"[a-z][a-z0-9_]*"
_UNIT = r"[A-Za-z0-9:_.@\\-]{1,200}"
_FUNCTION = rf"{_GLOB}\.{_GLOB}"
_DANGEROUS = "a caller can write files, run commands or reach other hosts with it"
_PILLAR_PATH = r"[^:]+(:[^:]+)*"


def recipe(name: str, read: Section) -> Recipe:
    """Read one recipe. Whether its parent exists is checked later, when all recipes are known."""
    source = sources.source(read)
    states: Literal["highstate"] | tuple[str, ...] = read.take("states", _states, ())
    found = Recipe(
        name=name,
        source=source,
        bake_id=read.take("bake_id", reading.minion_id, f"{name}-bake"),
        minion=_minion(read, source),
        saltenv=read.take("saltenv", reading.environment, "base"),
        pillarenv=read.take("pillarenv", reading.environment, None),
        grains=read.take("grains", reading.data_mapping, {}),
        states=states,
        read_only=read.take("read_only", reading.flag, True),
        bake_within=read.take("bake_within", reading.duration, Recipe.bake_within),
        guard=_guard(read.inside("guard")),
        at_boot=read.take("at_boot", _at_boot, ()),
        bake_identity=read.take("bake_identity", _bake_identity, ()),
        at_launch=read.take("at_launch", _sls, ()),
        writable=read.take("writable", writable_paths.writable, ()),
        exec=read.take("exec", writable_paths.exec_folders, ()),
        limits=read.take("limits", unit_limits, {}),
        mutable=read.take("mutable", writable_paths.mutable, ()),
        secrets=read.take("secrets", _pillar_paths, ()),
        assume_stable=read.take("assume_stable", reading.flag, Recipe.assume_stable),
        keep=read.take("keep", _keep, None),
        keep_for=read.take("keep_for", reading.duration, None),
        bake_in=read.take("bake_in", reading.either("machine", "chroot", "vm"), "machine"),
        vm=_vm(read.inside("vm"), read.inside("kernel")),
        slim=slim(read),
        tests=tests(read.inside("tests"), states),
        private_keys=read.take("private_keys", reading.either("warn", "refuse"), Recipe.private_keys),
    )
    _check_vm(read, found)
    read.close()
    return found


def _check_vm(read: Section, found: Recipe) -> None:
    """Report settings of a virtual machine that no machine would have."""
    in_vm = found.bake_in == "vm"
    if read.has("kernel") and not in_vm:
        read.problem("kernel", "only states that run in a virtual machine run on it; write bake_in: vm, or take it out")
    if read.has("vm") and not in_vm and not found.tests.vm:
        read.problem("vm", "neither states nor tests run in a virtual machine; write bake_in: vm, or take it out")
    if found.tests.vm and not found.read_only:
        read.problem("tests:vm", "they run on a disk, which needs a root that is read-only; take out read_only: false")


def _vm(read: Section, kernel: Section) -> VirtualMachine:
    found = VirtualMachine(
        memory=read.take("memory", reading.size("256M", "1024G"), VirtualMachine.memory),
        cpus=read.take("cpus", reading.whole(1, 256), VirtualMachine.cpus),
        vmlinuz=kernel.take("vmlinuz", reading.absolute_path, None),
        initrd=kernel.take("initrd", reading.absolute_path, None),
    )
    read.close()
    kernel.close()
    if (found.vmlinuz is None) != (found.initrd is None):
        missing = "vmlinuz" if found.vmlinuz is None else "initrd"
        kernel.problem(missing, "a kernel needs both vmlinuz and initrd; name the other file of the builder, too")
    return found


def adopted(name: str, read: Section) -> Recipe:
    """Read ``guard`` and ``mutable`` of a machine that was not baked, as a recipe with nothing else."""
    found = Recipe(
        name=name,
        source=Debian(""),
        bake_id=name,
        read_only=False,
        guard=_guard(read.inside("guard")),
        mutable=read.take("mutable", writable_paths.mutable, ()),
    )
    read.close()
    return found


def _minion(read: Section, source: Source) -> Minion | None:
    given = read.has("minion")
    if not isinstance(source, Parent | ParentImage):
        section = read.inside("minion")
        minion = Minion(section.take("pip", _requirement, Minion().pip))
        section.close()
        return minion
    if given:
        read.problem("minion", "Salt is installed only in the recipe that has no parent; set it there")
    return None


def _requirement(value: object) -> str:
    found = reading.text(value)
    if found.startswith("-"):
        raise ValueError(f"{quoted(found)} is an option of pip, not a requirement; write salt==3008.3")
    return found


def _guard(section: Section) -> Guard:
    found = Guard(
        allow=section.take("allow", _functions, ()),
        deny=section.take("deny", _functions, ()),
        dry_runs=section.take("dry_runs", reading.flag, True),
        returners=section.take("returners", _returners, ()),
        allow_dangerous=section.take("allow_dangerous", reading.flag, False),
    )
    section.close()
    if not found.allow_dangerous and (dangerous := refused_functions.dangerous(found.allow)):
        section.problem(
            "allow", f"{_some(dangerous)}: {_DANGEROUS}; take it out, or write allow_dangerous: true beside it"
        )
    if needed := sorted(policy.ALWAYS.intersection(found.deny)):
        section.problem("deny", f"{needed[0]}: without it the machines cannot be managed; take it out")
    return found


def _some(words: Sequence[str], most: int = 5) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def _at_boot(value: object) -> tuple[str, ...]:
    return tuple(matching(_UNIT, word, "a unit; write auditd or auditd.service") for word in reading.words(value))


def _bake_identity(value: object) -> tuple[str, ...]:
    """Read ``{/etc/issue.net: ok}``."""
    for path, answer in reading.mapping(value).items():
        if not path.startswith("/"):
            raise ValueError(f"{quoted(path)} is not an absolute path; write {{/etc/issue.net: ok}}")
        if answer != "ok":
            raise ValueError(f"{quoted(path)} must be ok, or left out; write {{{quoted(path)}: ok}}")
    return tuple(reading.mapping(value))


def _functions(value: object) -> tuple[str, ...]:
    return tuple(
        matching(_FUNCTION, word, "a function; write service.stop or service.*") for word in reading.words(value)
    )


def _returners(value: object) -> tuple[str, ...]:
    what = "the name of a returner; write mysql"
    return tuple(matching(_RETURNER, word, what) for word in reading.words(value))


def _pillar_paths(value: object) -> tuple[str, ...]:
    what = "a pillar path; write db:password or tls:*:key"
    return tuple(matching(_PILLAR_PATH, word, what) for word in reading.words(value))


def _keep(value: object) -> int:
    found = reading.count(value)
    if not found:
        raise ValueError("must be 1 or more; leave it out to keep every image, or write keep_for: 90d")
    return found


def _states(value: object) -> Literal["highstate"] | tuple[str, ...]:
    if value == "highstate":
        return "highstate"
    if isinstance(value, str):
        raise ValueError(f"must be highstate or a list of SLS, not {quoted(value)}; write [{plain(str(value))[:80]}]")
    return _sls(value)


def _sls(value: object) -> tuple[str, ...]:
    return tuple(map(reading.sls, reading.sequence(value)))


def wrong_parents(recipes: Mapping[str, Recipe]) -> Iterator[tuple[str, str, str]]:
    """Yield ``(recipe, key, sentence)`` for each parent that is missing and each circle of parents.

    A recipe of which only images are left may be a parent; only the store knows them.
    """
    for name, found in recipes.items():
        key = "image" if isinstance(found.source, ParentImage) else "recipe"
        if isinstance(found.source, Parent) and found.source.recipe not in recipes:
            parent = found.source.recipe
            yield name, key, f"no recipe {quoted(parent)}; {reading.nearest(parent, recipes)}"
        elif circle := _circle(recipes, name):
            one = " (one image, base@3f2a9c1d04be, is no circle)" if key == "image" else ""
            yield name, key, f"its parents form a circle, {circle}; give one of them another source{one}"


def _circle(recipes: Mapping[str, Recipe], start: str) -> str:
    path = [start]
    while (above := recipes[path[-1]].above) is not None and above in recipes:
        path.append(above)
        if above == start:
            return " -> ".join(path)
        if above in path[:-1]:
            break
    return ""


def shared_bake_ids(recipes: Mapping[str, Recipe]) -> Iterator[tuple[str, str]]:
    """Yield ``(recipe, sentence)`` for each bake id that an earlier recipe has already."""
    owners: dict[str, str] = {}
    for name, found in recipes.items():
        owner = owners.setdefault(found.bake_id, name)
        if owner != name:
            yield name, f"recipe {quoted(owner)} has the bake id {quoted(found.bake_id)} too; give each recipe its own"

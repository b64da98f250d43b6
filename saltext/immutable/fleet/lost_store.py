"""``fleet.adopt_store``: write the store again after the store was lost, or went back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet import lost_images
from saltext.immutable.fleet.books.ledger import Generation
from saltext.immutable.fleet.books.unknown_machines import add_way_back
from saltext.immutable.fleet.decide.generations import current_generation
from saltext.immutable.fleet.operations import Operations
from saltext.immutable.providers import Instance
from saltext.immutable.store import Image

Running = Mapping[str, Sequence[Instance]]
"""Fleet to its machines that run."""


def adopt(
    operations: Operations,
    name: str,
    installation: str | None = None,
    test: bool = False,
    builder: lost_images.Builder | None = None,
) -> dict[str, Any]:
    """Write back what the store does not know: machines, and images of the builder with their channels.

    ``name``: a fleet of the pillar, or ``all``; ``installation``: the id to take over, where machines of several are
    found; ``builder`` None: read no images. Returns ``installation``, ``fleets`` (fleet to minion ids), ``images``, and
    ``channels`` (channel to the name of its image). Raises ``CommandExecutionError`` if it is not clear what to take
    over, or if the builder does not answer, ``Held`` if another process works on a fleet.
    """
    names = sorted(operations.definitions.fleets) if name == "all" else [operations.find(name).name]
    foreign = {one: operations.access.foreign(operations.definitions.fleets[one]) for one in names}
    taken = _chosen(operations, {one.installation for many in foreign.values() for one in many}, installation)
    mine = {one: [each for each in many if each.installation == taken] for one, many in foreign.items()}
    running = {one: mine[one] or list(operations.instances(one).values()) for one in names}
    images = _Images(operations, running, builder, None if name == "all" else operations.find(name).recipe)
    if taken is not None and not test:
        operations.store.adopt(taken)
    if taken is not None and test:
        machines = {one: sorted(each.minion_id for each in many) for one, many in mine.items()}
    else:
        machines = {one: sorted(operations.write_back(one, test).reasons) for one in names}
    if not test:  # after the machines, which another process may work on: a second run does all that is left
        images.write()
        images.write_channels()
        for one in names:
            images.write_way_back(one)
    known = {"images": list(lost_images.described(images.found, images.good)), "channels": images.channels()}
    return {"installation": taken, "fleets": machines, **known, "result": None if test else True}


class _Images:
    """The images of the builder, and what they are to the fleets. ``recipe``: read no other; None: all."""

    def __init__(
        self, operations: Operations, running: Running, builder: lost_images.Builder | None, recipe: str | None
    ) -> None:
        self._operations, self._store = operations, operations.store
        before = self._store.images()
        self._running = {name: _current_image(machines) for name, machines in running.items()}
        self.found = lost_images.Found()
        if builder is not None:
            known, wanted = {one.digest for one in before}, None if recipe is None else {recipe}
            self.found = lost_images.read(builder, known, wanted)
        run = {one.image for machines in running.values() for one in machines}
        self.good = lost_images.good(self._store, operations.definitions, [*before, *self.found.images], run)
        self._channels = {} if builder is None else self._planned()

    def _planned(self) -> dict[tuple[str, str], Image]:
        """Return what channels will name: what their fleet runs if the store did not know that, else the newest."""
        new = {one.digest for one in self.found.images}
        planned: dict[tuple[str, str], Image] = {}
        fleets = [self._operations.definitions.fleets[name] for name in self._running]
        wanted = [(one.recipe, one.channel, self._running[one.name]) for one in fleets]
        wanted += [(recipe, "stable", None) for recipe in sorted({one.recipe for one in self.found.images})]
        for recipe, channel, runs in wanted:
            of_recipe = [one for one in self.good if one.recipe == recipe]
            image = next((one for one in of_recipe if one.digest == runs), of_recipe[0] if of_recipe else None)
            lost = self._store.channel(recipe, channel) is None or (runs in new and image and image.digest == runs)
            if image is not None and lost:
                planned.setdefault((recipe, channel), image)
        return planned

    def channels(self) -> dict[str, str]:
        """Return the channels that are written, and the names of their images."""
        return {f"{recipe}:{channel}": image.name for (recipe, channel), image in self._channels.items()}

    def write(self) -> None:
        """Write the images."""
        lost_images.write(self._store, self.found)

    def write_channels(self) -> None:
        """Write the channels."""
        why = "read from the builder by fleet.adopt_store"
        for (recipe, channel), image in self._channels.items():
            who = self._operations.user
            self._store.set_channel(recipe, channel, image.digest, what="promote", reason=why, who=who)

    def write_way_back(self, name: str) -> None:
        """Write the generation before the current one of a fleet whose history was lost: of the next older image."""
        operations, ledger = self._operations, self._operations.ledger(name)
        fleet, lineage, generations = operations.definitions.fleets[name], ledger.lineage(), ledger.generations()
        if len(lineage) != 1 or lineage[0] - 1 in {0, *generations}:
            return
        current = next((one for one in self.good if one.digest == generations[lineage[0]].image), None)
        older = [one for one in self.good if current and one.recipe == current.recipe and one.created < current.created]
        if older:
            before = Generation(name, lineage[0] - 1, older[0].digest, fleet.provider, older[0].created, fleet.traffic)
            with operations.lease(name) as lease:
                add_way_back(ledger, lease, before)


def _current_image(machines: Sequence[Instance]) -> str | None:
    """Return the digest of the image that most of the machines run; None if there are none."""
    current = current_generation({one.minion_id: one.generation for one in machines if one.running})
    return next((one.image for one in machines if one.generation == current), None)


def _chosen(operations: Operations, tags: set[str], installation: str | None) -> str | None:
    """Return the installation id to take over, or None if there is none."""
    if installation is not None and installation not in tags:
        known = ", ".join(sorted(tags)) or "none"
        raise SaltInvocationError(
            f"installation: no machine with a key on this master is tagged with {installation}; there are: {known}"
        )
    if not tags:
        return None
    machines = sum(len(operations.ledger(one).records()) for one in operations.names())
    if machines:
        raise CommandExecutionError(
            f"the store has {machines} machines of its own, and machines of another installation run "
            f"({', '.join(sorted(tags))}): only a store without machines can take them over; destroy the machines that "
            "it launched (`salt-run fleet.destroy <fleet>`), or put the right store back"
        )
    if installation is None and len(tags) > 1:
        raise CommandExecutionError(
            f"machines of several installations run: {', '.join(sorted(tags))}; name one with installation=ID"
        )
    return installation or next(iter(tags))

"""``fleet.adopt_store``: write the store again after the store was lost, or went back."""

from __future__ import annotations

from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.fleet.operations import Operations


def adopt(operations: Operations, name: str, installation: str | None = None, test: bool = False) -> dict[str, Any]:
    """Write machines back that the store does not know; return ``installation`` and ``fleets`` (fleet to minion ids).

    ``name``: a fleet of the pillar, or ``all``; ``installation``: the id to take over, where machines of several are
    found. Raises ``CommandExecutionError`` if it is not clear which, ``Held`` if another process works on a fleet.
    """
    names = sorted(operations.definitions.fleets) if name == "all" else [operations.find(name).name]
    foreign = {one: _foreign(operations, one) for one in names}
    taken = _chosen(operations, {tag for tags in foreign.values() for tag in tags.values()}, installation)
    if taken is not None and test:
        mine = {one: sorted(key for key, tag in tags.items() if tag == taken) for one, tags in foreign.items()}
        return {"installation": taken, "fleets": mine, "result": None}
    if taken is not None:
        operations.store.adopt(taken)
    found = {one: sorted(operations.write_back(one, test).reasons) for one in names}
    return {"installation": taken, "fleets": found, "result": None if test else True}


def _foreign(operations: Operations, name: str) -> dict[str, str]:
    """Return minion id to installation id of the machines that a lost store had launched."""
    found = operations.access.foreign(operations.definitions.fleets[name])
    return {one.minion_id: one.installation for one in found}


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

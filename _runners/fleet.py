"""
Fleets of identical machines: rolled to an image, rolled back, rebuilt, destroyed.

.. code-block:: bash

    salt-run fleet.plan web
    salt-run fleet.roll web
    salt-run fleet.rollback web
    salt-run fleet.destroy web test=True

A command that fails or is interrupted exits non-zero and says why; the same command carries on.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, contextmanager

try:
    from saltext.immutable import minions, spec
    from saltext.immutable.bake import bake as baking
    from saltext.immutable.fleet import operations, report
    from saltext.immutable.runner import shown, telling
    from saltext.immutable.store import Store

    MISSING = None
except ImportError as err:
    MISSING = f"the master needs: pip install 'saltext-immutable[master]' ({err})"

__virtualname__ = "fleet"


def __virtual__():
    return (False, MISSING) if MISSING else __virtualname__


@contextmanager
def _operations(name):
    """Give the commands everything they need (and what tells of progress), and take it back."""
    with ExitStack() as undo:
        say = undo.enter_context(telling(__opts__))
        store = undo.enter_context(closing(Store.open(spec.settings(__opts__).store)))
        salt = undo.enter_context(closing(minions.Minions(__opts__)))

        def tell(entry):
            who = f"{entry.minion_id}: " if entry.minion_id else ""
            data = {"fleet": name, "minion_id": entry.minion_id, "reason": entry.reason, "at": entry.at}
            last_line = entry.reason.rstrip().rpartition("\n")[2]
            say(f"{entry.what} {who}{last_line}", f"{name}/{entry.what.replace(' ', '-')}", **data)

        yield (
            operations.Operations(
                store,
                minions.definitions(__opts__),
                salt,
                operations.loader(__opts__),
                tell,
                user=globals().get("__user__"),
                jid=globals().get("__jid__"),
            ),
            say,
        )


def plan(name):
    """
    Tell what ``fleet.roll`` would do now, if all goes well: each launch and each victim with its reason.

    Returns fleet, verdict (``done``, ``roll`` or ``continue``), reason, the generation that runs, the image
    that would run, changes, actions, and warnings about the master's config.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.plan web
    """
    with _operations(name) as (fleet, _):
        told = report.foretold(fleet.foresee(name, "roll"))
    return shown(__opts__, {**told, "warnings": report.warnings(__opts__)})


def roll(name, image=None, test=False):
    """
    Bring a fleet to the image of its channel, never with fewer healthy machines than its strategy allows.

    An interrupted roll is carried on first. When new machines fail, they go and the old ones stay.

    image
        Another image than the channel's: ``web@3f2a9c1d04be``, ``web:candidate`` or a digest.

    test
        Only name what would be launched and destroyed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.roll web
        salt-run fleet.roll web test=True
    """
    with _operations(name) as (fleet, _):
        if test:
            return shown(__opts__, report.foretold(fleet.foresee(name, "roll", image=image)))
        return shown(__opts__, report.ended(fleet, name, fleet.roll(name, image)))


def rollback(name, generation=None, test=False):
    """
    Bring a fleet back to the last good generation before the current one, without baking.

    generation
        The number of another generation (see ``fleet.history``).

    test
        Only name what would be launched and destroyed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.rollback web
        salt-run fleet.rollback web generation=2
    """
    with _operations(name) as (fleet, _):
        if test:
            return shown(__opts__, report.foretold(fleet.foresee(name, "rollback", generation=generation)))
        return shown(__opts__, report.ended(fleet, name, fleet.rollback(name, generation)))


def destroy(name, test=False):
    """
    Destroy all machines of a fleet and delete their keys; its generations and history stay.

    test
        Only name the victims.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.destroy web test=True
        salt-run fleet.destroy web
    """
    with _operations(name) as (fleet, _):
        if test:
            return shown(__opts__, report.foretold(fleet.foresee(name, "destroy")))
        return shown(__opts__, report.ended(fleet, name, fleet.destroy(name)))


def rebuild(name, test=False):
    """
    Bake the fleet's recipe with today's package updates, then roll to the image: the monthly job.

    test
        Only tell which layers would be built, and what a roll to the present image would do.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.rebuild web
    """
    with _operations(name) as (fleet, say):
        what = fleet.definition(name)
        baked = baking.bake(what.recipe, __opts__, refresh=True, channel=what.channel, test=test, say=say)
        if test:
            return shown(__opts__, {"bake": baked, "roll": report.foretold(fleet.foresee(name, "roll"))})
        return shown(__opts__, {"bake": baked, "roll": report.ended(fleet, name, fleet.roll(name))})


def status(name):
    """
    Return a fleet's generation, image, machines and last rollout, and who works on it at the moment.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.status web
    """
    with _operations(name) as (fleet, _):
        return shown(__opts__, report.status(fleet, name, time.time()))


def history(name):
    """
    Return a fleet's generations and rollouts, the newest first.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.history web
    """
    with _operations(name) as (fleet, _):
        return shown(__opts__, report.history(fleet, name))

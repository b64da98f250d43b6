"""
Fleets of identical machines: rolled to an image, rolled back, rebuilt, destroyed.

.. code-block:: bash

    salt-run fleet.plan web
    salt-run fleet.roll web
    salt-run fleet.rollback web
    salt-run fleet.drift web
    salt-run fleet.destroy web test=True

A command that fails or is interrupted exits non-zero and says why; the same command carries on.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, contextmanager

try:
    from saltext.immutable import minions, spec
    from saltext.immutable.bake import bake as baking
    from saltext.immutable.fleet import care, operations, relaunch, report, survey
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


def relaunch_phase(name, test=False):
    """
    Run the launch phase (the recipe's ``at_launch``) of every machine again: for secrets that have changed.

    As many machines at a time as ``max_unavailable`` allows, at least one; the next begin when those are healthy
    again. Ends with the first failure beyond ``max_failures``. Who was interrupted begins anew.

    test
        Only name the order.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.relaunch_phase web
    """
    with _operations(name) as (fleet, say):
        return shown(__opts__, relaunch.relaunch(fleet, say, name, test))


def drift(name, full=False, taint=False, minion=None):
    """
    Tell what on a fleet's machines is no longer as their image says; ``all`` looks at every fleet.

    Each machine with drift is told of as event ``immutable/drift/<minion id>``. Exits with 1 when anything has
    drifted or a machine did not answer: such a one is unknown, not clean.

    full
        Read all content, not only that of files whose metadata has changed.

    taint
        Taint what has drifted, so that the next roll replaces it.

    minion
        Look at this machine only.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.drift web
        salt-run fleet.drift all taint=True
    """
    with _operations(name) as (fleet, say):
        found = survey.survey(fleet, say, name, full=full, taint=taint, minion=minion)
    if found["retcode"]:
        __context__["retcode"] = found["retcode"]
    return shown(__opts__, found)


def taint(minion_id, reason=None, kind="hand", test=False):
    """
    Let the next roll replace a machine that is no longer what its image says.

    It serves until a newcomer is healthy. A machine that no fleet launched needs a key on this master.

    reason
        Why, for whoever reads the journal.

    kind
        ``drift``: because of what ``fleet.drift`` wrote down about it. This is for reactors: what an event
        says is not believed, since any minion can fire one.

    test
        Only tell what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.taint web-6f1c0d2a93b47e58.example.com reason='changed nginx.conf by hand'
    """
    with _operations(None) as (fleet, say):
        return shown(__opts__, care.Care(fleet, say).taint(minion_id, reason, kind, test))


def untaint(minion_id, reason=None, test=False):
    """
    Take back that a machine has to be replaced. One that was opened by ``fleet.break_glass`` stays tainted.

    reason
        Why, for whoever reads the journal.

    test
        Only tell what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.untaint web-6f1c0d2a93b47e58.example.com reason='looked at it: a false alarm'
    """
    with _operations(None) as (fleet, say):
        return shown(__opts__, care.Care(fleet, say).untaint(minion_id, reason, test))


def break_glass(minion_id, reason=None, ttl="15m", test=False):
    """
    Open one sealed machine for a while; from that moment it is tainted for ever.

    The machine takes a token that this master signs for its present boot, once. Who, when and why are written down
    and fired as ``immutable/break_glass/<minion id>`` before it is open.

    reason
        Why, for whoever reads the journal.

    ttl
        For how long; at most ``4h``. A reboot ends it too.

    test
        Only tell what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.break_glass web-6f1c0d2a93b47e58.example.com reason='core dump for case 4711' ttl=30m
    """
    with _operations(None) as (fleet, say):
        return shown(__opts__, care.Care(fleet, say).break_glass(__opts__, minion_id, reason, ttl, test))


def end_break_glass(minion_id):
    """
    Close a machine that ``fleet.break_glass`` opened before its time is over. It stays tainted.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.end_break_glass web-6f1c0d2a93b47e58.example.com
    """
    with _operations(None) as (fleet, say):
        return shown(__opts__, care.Care(fleet, say).end_break_glass(minion_id))


def status(name):
    """
    Return a fleet's generation, image, machines (and which are tainted) and last rollout, and who works on it.

    ``all`` returns every fleet, and the tainted machines that no fleet launched.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.status web
    """
    with _operations(name) as (fleet, _):
        if name == "all":
            return shown(__opts__, report.status_of_all(fleet, time.time()))
        return shown(__opts__, report.status(fleet, name, time.time()))


def history(name):
    """
    Return a fleet's generations and rollouts, and what else was done to its machines, the newest first.

    ``all`` returns every fleet, and what was done to machines that no fleet launched.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.history web
    """
    with _operations(name) as (fleet, _):
        if name == "all":
            return shown(__opts__, report.history_of_all(fleet))
        return shown(__opts__, report.history(fleet, name))

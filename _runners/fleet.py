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
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import partial

try:
    from saltext.immutable import minions, spec
    from saltext.immutable.bake import bake as baking
    from saltext.immutable.fleet import drift as survey
    from saltext.immutable.fleet import interventions, operations, relaunch
    from saltext.immutable.fleet import reconcile as upkeep
    from saltext.immutable.fleet.orphans import Orphans
    from saltext.immutable.fleet.show import proposal, report, tables, timeline
    from saltext.immutable.runner import output, reporting
    from saltext.immutable.store import Store

    MISSING = None
except ImportError as err:
    MISSING = f"the master needs: pip install 'saltext-immutable[master]' ({err})"

__virtualname__ = "fleet"


def __virtual__():
    return (False, MISSING) if MISSING else __virtualname__


@contextmanager
def _operations(name, stopped=None, like=None):
    """
    Give the commands everything they need (and what tells of progress), and take it back.

    ``like``: operations of another thread, whose store and definitions are shared; ``stopped`` tells whether that one
    was told to stop.
    """
    with ExitStack() as undo:
        say = undo.enter_context(reporting(__opts__))
        settings = spec.settings(__opts__)
        store = like.store if like else undo.enter_context(closing(Store.open(settings.store)))
        salt = undo.enter_context(closing(minions.Minions(__opts__)))

        def tell(entry):
            who = f"{entry.minion_id}: " if entry.minion_id else ""
            data = {"fleet": name, "minion_id": entry.minion_id, "reason": entry.reason, "at": entry.at}
            last_line = entry.reason.rstrip().rpartition("\n")[2]
            say(f"{entry.what} {who}{last_line}", f"{name}/{entry.what.replace(' ', '-')}", **data)

        yield (
            operations.Operations(
                store,
                like.definitions if like else minions.definitions(__opts__),
                salt,
                operations.loader(__opts__),
                tell,
                user=globals().get("__user__"),
                jid=globals().get("__jid__"),
                settings=settings,
                route=operations.router(__opts__),
                hear=(lambda: nullcontext(stopped)) if stopped else None,
            ),
            say,
        )


def plan(name, image=None):
    """
    Tell what ``fleet.roll`` would do now, if all goes well: each launch and each victim with its reason.

    Returns fleet, verdict (``done``, ``roll`` or ``continue``), reason, the generation that runs, the image
    that would run, changes, actions, difference (how that image differs from the one that runs), plan (an id:
    ``fleet.roll web plan=ID`` does exactly this, or nothing), and warnings about the master's config.

    image
        Another image than the channel's, as for ``fleet.roll``.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.plan web
    """
    with _operations(name) as (fleet, _):
        told = proposal.propose(fleet, name, image)
    return output(__opts__, {**told, "warnings": report.warnings(__opts__)}, tables.plan)


def roll(name, image=None, test=False, plan=None, now=False):
    """
    Bring a fleet to the image of its channel, never with fewer healthy machines than its strategy allows.

    An interrupted roll is carried on first. When new machines fail, they go and the old ones stay. Where an operator
    paused a rollout nothing is begun.

    image
        Another image than the channel's: ``web@3f2a9c1d04be``, ``web:candidate`` or a digest.

    test
        Only name what would be launched and destroyed.

    plan
        The id of a plan that ``fleet.plan`` showed: exactly that is done, with that plan's image, or nothing, and each
        difference is named. A plan is good for one roll.

    now
        Also outside the fleet's windows.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.roll web
        salt-run fleet.roll web test=True
        salt-run fleet.roll web plan=p1a2b3c4d
    """
    with _operations(name) as (fleet, _):
        if test:
            asked = fleet.planned(name, plan, image)[1] if plan else fleet.foresee(name, "roll", image=image)
            return output(__opts__, report.describe_forecast(asked), tables.plan)
        return output(__opts__, report.describe_result(fleet, name, fleet.roll(name, image, plan=plan, now=now)))


def rollback(name, generation=None, reason="", test=False):
    """
    Bring a fleet back to the last good generation before the current one, without baking.

    A roll that is under way or paused turns back, whoever drives it. Machines that ``keep_old`` kept serve again first.

    generation
        The number of another generation (see ``fleet.history``).

    reason
        Why, for whoever reads the journal.

    test
        Only name what would be launched and destroyed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.rollback web
        salt-run fleet.rollback web generation=2
    """
    with _operations(name) as (fleet, _):
        if test:
            return output(
                __opts__, report.describe_forecast(fleet.foresee(name, "rollback", generation=generation)), tables.plan
            )
        return output(__opts__, report.describe_result(fleet, name, fleet.rollback(name, generation, reason)))


def _steered(name, what, reason, test):
    """Give an order to the rollout of a fleet that is under way or paused."""
    with _operations(name) as (fleet, _):
        if test:
            return output(__opts__, report.describe_forecast(fleet.foresee_order(name, what)), tables.plan)
        return output(__opts__, report.describe_result(fleet, name, fleet.steer(name, what, reason)))


def pause(name, reason="", test=False):
    """
    Stop a fleet's rollout where it is, whoever drives it: calls under way end, nothing more is begun.

    Nothing goes on, by schedule or by ``fleet.roll``, before ``fleet.resume``, ``fleet.rollback`` or ``fleet.abort``.

    reason
        Why, for whoever reads the journal.

    test
        Only tell what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.pause web reason='the database is slow'
    """
    return _steered(name, "pause", reason, test)


def resume(name, now=False, test=False):
    """
    Go on with a rollout that was paused or interrupted; failures that paused it are forgiven.

    now
        Also outside the fleet's windows.

    test
        Only name what would be launched and destroyed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.resume web
    """
    with _operations(name) as (fleet, _):
        if test:
            return output(__opts__, report.describe_forecast(fleet.foresee_order(name, None)), tables.plan)
        return output(__opts__, report.describe_result(fleet, name, fleet.resume(name, now)))


def abort(name, reason="", test=False):
    """
    End a fleet's rollout where it is, whoever drives it: what serves stays, newcomers that do not serve yet go.

    The fleet may run machines of two generations afterwards; ``fleet.roll`` and ``fleet.rollback`` mend that.

    reason
        Why, for whoever reads the journal.

    test
        Only name what would be destroyed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.abort web reason='wrong channel'
    """
    return _steered(name, "abort", reason, test)


def approve(name, reason="", test=False):
    """
    Let a rollout that waits for approval take its next step (or move the traffic), whoever drives it.

    reason
        Why, for whoever reads the journal.

    test
        Only tell what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.approve web reason='the graphs look good'
    """
    return _steered(name, "approve", reason, test)


def scale(name, size, test=False):
    """
    Set how many machines a fleet has, in place of the pillar's size until that is changed.

    A rollout that is under way takes it up; a paused one does when it is resumed.

    test
        Only name what would be launched and destroyed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.scale web 5
    """
    with _operations(name) as (fleet, _):
        if test:
            return output(__opts__, report.describe_forecast(fleet.foresee(name, "scale", size=size)), tables.plan)
        return output(__opts__, report.describe_result(fleet, name, fleet.scale(name, size)))


def replace(minion_id, reason="an operator replaces it", test=False):
    """
    Let a newcomer take the place of one machine, of the generation that the fleet runs.

    reason
        Why, for whoever reads the journal.

    test
        Only tell what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.replace web-6f1c0d2a93b47e58.example.com reason='its disk makes noises'
    """
    with _operations(None) as (fleet, say):
        name = fleet.fleet_of(minion_id)
        if test:
            return output(__opts__, interventions.Care(fleet, say).taint(minion_id, reason, test=True))
        return output(__opts__, report.describe_result(fleet, name, fleet.replace(minion_id, reason)))


def protect(minion_id, reason=None, test=False):
    """
    Let no rollout take a machine away while it is well; ``protected`` in the strategy says whether they wait.

    reason
        Why, for whoever reads the journal.

    test
        Only tell what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.protect web-6f1c0d2a93b47e58.example.com reason='a core dump is being taken'
    """
    with _operations(None) as (fleet, say):
        return output(__opts__, interventions.Care(fleet, say).protect(minion_id, reason, test))


def unprotect(minion_id, reason=None, test=False):
    """
    Let rollouts take a machine away again.

    reason
        Why, for whoever reads the journal.

    test
        Only tell what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.unprotect web-6f1c0d2a93b47e58.example.com
    """
    with _operations(None) as (fleet, say):
        return output(__opts__, interventions.Care(fleet, say).unprotect(minion_id, reason, test))


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
            return output(__opts__, report.describe_forecast(fleet.foresee(name, "destroy")), tables.plan)
        return output(__opts__, report.describe_result(fleet, name, fleet.destroy(name)))


def rebuild(name, test=False, refresh="updates"):
    """
    Bake the fleet's recipe with today's package updates, then roll to the image: the monthly job.

    test
        Only tell which layers would be built, and what a roll to the present image would do.

    refresh
        ``updates``: build anew each layer whose packages have updates at the mirrors. ``always``: every layer.
        ``never``: only what has changed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.rebuild web
    """
    with _operations(name) as (fleet, say):
        what = fleet.definition(name)
        baked = baking.bake(what.recipe, __opts__, refresh=refresh, channel=what.channel, test=test, progress=say)
        if test:
            return output(__opts__, {"bake": baked, "roll": report.describe_forecast(fleet.foresee(name, "roll"))})
        return output(__opts__, {"bake": baked, "roll": report.describe_result(fleet, name, fleet.roll(name))})


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
        return output(__opts__, relaunch.relaunch(fleet, say, name, test))


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
    return output(__opts__, found)


def reconcile(name="all", orphans=True, test=False):
    """
    Keep a fleet, or ``all``, as it should be: made for the master's schedule, every few minutes.

    Carries on what was interrupted; replaces machines that are dead, that do not answer or are not healthy for
    ``unreachable_for``, that are tainted or too old; corrects the size; collects keys and machines that nobody wants.
    With more sick machines than ``sick_limit``, or when nobody answers this master, nothing is replaced: that is told
    of as event ``immutable/<fleet>/alarm``. Exits with 1 where a fleet alarmed or failed.

    orphans
        False: leave keys and machines that are in no book alone. The first look only reports them.

    test
        Only tell what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.reconcile web
        salt-run fleet.reconcile all test=True
    """
    with _operations(None) as (fleet, say):
        collect = Orphans(fleet, operations.loader(__opts__), say).collect if orphans else None
        found = upkeep.upkeep(fleet, name, partial(_operations, like=fleet), collect, test)
    if found["retcode"]:
        __context__["retcode"] = found["retcode"]
    return output(__opts__, found)


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
        return output(__opts__, interventions.Care(fleet, say).taint(minion_id, reason, kind, test))


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
        return output(__opts__, interventions.Care(fleet, say).untaint(minion_id, reason, test))


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
        return output(__opts__, interventions.Care(fleet, say).break_glass(__opts__, minion_id, reason, ttl, test))


def end_break_glass(minion_id):
    """
    Close a machine that ``fleet.break_glass`` opened before its time is over. It stays tainted.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.end_break_glass web-6f1c0d2a93b47e58.example.com
    """
    with _operations(None) as (fleet, say):
        return output(__opts__, interventions.Care(fleet, say).end_break_glass(minion_id))


def status(name):
    """
    Return a fleet's generation, image, size, machines and last rollout, what it waits for, and who works on it.

    Of each machine: generation, image, phase, health and visitors as far as they are known, address, age (s), why
    it is tainted or protected, and for how long it is kept. ``all`` returns every fleet, and the tainted machines that
    no fleet launched. To people it is a table; ``--out=json`` gives the data.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.status web
    """
    with _operations(name) as (fleet, _):
        if name == "all":
            return output(__opts__, report.status_of_all(fleet, time.time()), tables.status)
        return output(__opts__, report.status(fleet, name, time.time()), tables.status)


def show(rollout, fleet=None):
    """
    Return one rollout with its journal: what was done to which machine, when (in seconds since it began) and why.

    rollout
        Its number; ``fleet.history`` and ``fleet.status`` show it.

    fleet
        The fleet that it has to be of.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.show 12
        salt-run fleet.show 12 web --out=json
    """
    with _operations(fleet) as (work, _):
        return output(__opts__, timeline.show(work, rollout, fleet), tables.rollout)


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
            return output(__opts__, report.history_of_all(fleet))
        return output(__opts__, report.history(fleet, name))

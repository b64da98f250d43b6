"""
Fleets of identical machines: rolled to an image, rolled back, rebuilt, destroyed.

.. code-block:: bash

    salt-run fleet.plan web
    salt-run fleet.roll web
    salt-run fleet.rollback web
    salt-run fleet.drift web
    salt-run fleet.destroy web test=True

A command that fails or is interrupted exits non-zero and says why. The same command, given again, continues.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import partial

try:
    from saltext.immutable import arguments, minions, spec
    from saltext.immutable.bake import bake as bake_module
    from saltext.immutable.builder.local import LOCAL
    from saltext.immutable.command_line import Count, Duration, MinionId, Name, Number, Reference, Refresh, TaintKind
    from saltext.immutable.fleet import drift as fleet_drift
    from saltext.immutable.fleet import lost_images, lost_store, operations, preflight, relaunch
    from saltext.immutable.fleet import reconcile as fleet_reconcile
    from saltext.immutable.fleet.interventions import Interventions
    from saltext.immutable.fleet.orphans import Orphans
    from saltext.immutable.fleet.show import proposal, report, tables, timeline
    from saltext.immutable.images import sign
    from saltext.immutable.runner import output, refusal, reporting, warned
    from saltext.immutable.store import Store
    from saltext.immutable.worker import Worker

    MISSING = None
except ImportError as err:
    MISSING = f"the master needs: pip install 'saltext-immutable[master]' ({err})"

__virtualname__ = "fleet"


def __virtual__():
    return (False, MISSING) if MISSING else __virtualname__


@contextmanager
def _operations(stopped=None, like=None):
    """
    Open store, Salt and event bus; give the operations on fleets, and what prints progress and fires events.

    ``like``: operations of another thread, whose store and definitions are shared; ``stopped``: tells whether that
    thread was told to stop.
    """
    with ExitStack() as undo:
        notify = undo.enter_context(reporting(__opts__))
        settings = spec.settings(__opts__)
        store = like.store if like else undo.enter_context(closing(Store.open(settings.store)))
        salt = undo.enter_context(closing(minions.Minions(__opts__)))

        def report_entry(fleet, entry):
            who = f"{entry.minion_id}: " if entry.minion_id else ""
            data = {"fleet": fleet, "minion_id": entry.minion_id, "reason": entry.reason, "at": entry.at}
            last_line = entry.reason.rstrip().rpartition("\n")[2]
            notify(f"{entry.what} {who}{last_line}", f"{fleet}/{entry.what.replace(' ', '-')}", **data)

        yield (
            operations.Operations(
                store,
                like.definitions if like else preflight.checked(minions.definitions(__opts__)),
                salt,
                operations.loader(__opts__),
                report_entry,
                user=globals().get("__user__"),
                jid=globals().get("__jid__"),
                settings=settings,
                route=operations.router(__opts__),
                stop_signals=(lambda: nullcontext(stopped)) if stopped else None,
            ),
            notify,
        )


@contextmanager
def _command(name=None, minion_id=None, rollout=None):
    """
    Open the operations for a command, and say first what an operator must know of its fleet.

    Gives the operations, what prints progress and fires events, and what makes the answer of data (and of a formatter):
    it puts the same warnings into it. The fleet is ``name`` (or ``all``), or that of ``minion_id`` or ``rollout``; all
    fleets if the store does not know these.
    """
    with _operations() as (fleet, notify):
        if minion_id is not None:
            name = fleet.taints.fleet_of(minion_id)
        elif rollout is not None:
            name = timeline.fleet_of(fleet, rollout) or name
        warnings = warned(__opts__, partial(fleet.warnings, name or "all"))

        def answer(data, formatter=None):
            each = dict.fromkeys([*warnings, *data.get("warnings", ())])
            return output(__opts__, {**data, "warnings": list(each)}, formatter)

        yield fleet, notify, answer


def plan(name: Name, image: Reference | None = None):
    """
    Return what ``fleet.roll`` would do now if nothing fails: each launch and each destroyed machine, with its reason.

    Returns fleet, verdict (``done``, ``roll`` or ``continue``), reason, the current generation, the image that would
    run, changes, actions, difference (how that image differs from the current one), plan (an id: ``fleet.roll web
    plan=ID`` does exactly this, or nothing), and warnings: about the master's config, and windows that
    cannot be understood and are therefore never open.

    image
        Another image than the channel's, as for ``fleet.roll``.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.plan web
    """
    with _command(name) as (fleet, _, answer):
        proposed = proposal.propose(fleet, name, image)
        return answer({**proposed, "warnings": [*report.warnings(__opts__), *proposed["warnings"]]}, tables.plan)


def roll(name: Name, image: Reference | None = None, test: bool = False, plan: str | None = None, now: bool = False):
    """
    Bring a fleet to the image of its channel, never with fewer healthy machines than its strategy allows.

    An interrupted roll is continued first. If new machines fail, they are destroyed and the old ones stay. If an
    operator paused a rollout, nothing is begun.

    image
        Another image than the channel's: ``web@3f2a9c1d04be``, ``web:candidate`` or a digest.

    test
        Only return what would be launched and destroyed.

    plan
        The id of a plan that ``fleet.plan`` showed. Exactly that is done, with that plan's image; or, if anything has
        changed since, nothing is done and each difference is named. A plan is good for one roll.

    now
        Also outside the fleet's windows.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.roll web
        salt-run fleet.roll web test=True
        salt-run fleet.roll web plan=p1a2b3c4d
    """
    with _command(name) as (fleet, _, answer):
        if test:
            forecast = fleet.check_plan(name, plan, image)[1] if plan else fleet.forecast(name, "roll", image=image)
            return answer(report.describe_forecast(forecast), tables.plan)
        return answer(report.describe_result(fleet, name, fleet.roll(name, image, plan=plan, now=now)))


def rollback(name: Name, generation: Number | None = None, reason: str = "", test: bool = False):
    """
    Bring a fleet back to the last good generation before the current one, without baking.

    A running or paused roll turns back, whichever process drives it. Machines that ``keep_old`` kept serve again first.

    generation
        The number of another generation (see ``fleet.history``).

    reason
        Why, for the journal.

    test
        Only return what would be launched and destroyed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.rollback web
        salt-run fleet.rollback web generation=2
    """
    with _command(name) as (fleet, _, answer):
        if test:
            forecast = fleet.forecast(name, "rollback", generation=generation)
            return answer(report.describe_forecast(forecast), tables.plan)
        return answer(report.describe_result(fleet, name, fleet.rollback(name, generation, reason)))


def _give_order(name, what, reason, test):
    """Give an order to the running or paused rollout of a fleet."""
    with _command(name) as (fleet, _, answer):
        if test:
            return answer(report.describe_forecast(fleet.forecast_order(name, what)), tables.plan)
        return answer(report.describe_result(fleet, name, fleet.give_order(name, what, reason)))


def pause(name: Name, reason: str = "", test: bool = False):
    """
    Pause a fleet's rollout, whichever process drives it: running calls end, and nothing more is begun.

    Neither the schedule nor ``fleet.roll`` continues it: only ``fleet.resume``, ``fleet.rollback`` or ``fleet.abort``.

    reason
        Why, for the journal.

    test
        Only return what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.pause web reason='the database is slow'
    """
    return _give_order(name, "pause", reason, test)


def resume(name: Name, now: bool = False, test: bool = False):
    """
    Continue a paused or interrupted rollout; failures that paused it do not count any more.

    now
        Also outside the fleet's windows.

    test
        Only return what would be launched and destroyed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.resume web
    """
    with _command(name) as (fleet, _, answer):
        if test:
            return answer(report.describe_forecast(fleet.forecast_order(name, None)), tables.plan)
        return answer(report.describe_result(fleet, name, fleet.resume(name, now)))


def abort(name: Name, reason: str = "", test: bool = False):
    """
    End a fleet's rollout, whichever process drives it: machines that serve stay, new ones that do not are destroyed.

    The fleet may have machines of two generations afterwards; ``fleet.roll`` and ``fleet.rollback`` correct that.

    reason
        Why, for the journal.

    test
        Only return what would be destroyed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.abort web reason='wrong channel'
    """
    return _give_order(name, "abort", reason, test)


def approve(name: Name, reason: str = "", test: bool = False):
    """
    Let a rollout that waits for approval take its next step (or switch the traffic), whichever process drives it.

    reason
        Why, for the journal.

    test
        Only return what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.approve web reason='the graphs look good'
    """
    return _give_order(name, "approve", reason, test)


def scale(name: Name, size: Count, test: bool = False):
    """
    Set how many machines a fleet has. This size replaces the pillar's until the pillar's is changed.

    A running rollout applies it; a paused one applies it when it is resumed.

    test
        Only return what would be launched and destroyed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.scale web 5
    """
    with _command(name) as (fleet, _, answer):
        if test:
            return answer(report.describe_forecast(fleet.forecast(name, "scale", size=size)), tables.plan)
        return answer(report.describe_result(fleet, name, fleet.scale(name, size)))


def replace(minion_id: MinionId, reason: str = "an operator replaces it", test: bool = False):
    """
    Replace one machine by a new one of the fleet's current generation.

    reason
        Why, for the journal.

    test
        Only return what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.replace web-6f1c0d2a93b47e58.example.com reason='its disk makes noises'
    """
    with _command(minion_id=minion_id) as (fleet, notify, answer):
        name = fleet.fleet_of(minion_id)
        if test:
            return answer(Interventions(fleet, notify).taint(minion_id, reason, test=True))
        return answer(report.describe_result(fleet, name, fleet.replace(minion_id, reason)))


def protect(minion_id: MinionId, reason: str | None = None, test: bool = False):
    """
    Protect a machine: no rollout removes it while it is healthy. ``protected`` in the strategy says whether they wait.

    reason
        Why, for the journal.

    test
        Only return what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.protect web-6f1c0d2a93b47e58.example.com reason='a core dump is being taken'
    """
    with _command(minion_id=minion_id) as (fleet, notify, answer):
        return answer(Interventions(fleet, notify).protect(minion_id, reason, test))


def unprotect(minion_id: MinionId, reason: str | None = None, test: bool = False):
    """
    End the protection of a machine.

    reason
        Why, for the journal.

    test
        Only return what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.unprotect web-6f1c0d2a93b47e58.example.com
    """
    with _command(minion_id=minion_id) as (fleet, notify, answer):
        return answer(Interventions(fleet, notify).unprotect(minion_id, reason, test))


def destroy(name: Name, test: bool = False):
    """
    Destroy all machines of a fleet and delete their keys; its generations and history stay.

    test
        Only return which machines would be destroyed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.destroy web test=True
        salt-run fleet.destroy web
    """
    with _command(name) as (fleet, _, answer):
        if test:
            return answer(report.describe_forecast(fleet.forecast(name, "destroy")), tables.plan)
        return answer(report.describe_result(fleet, name, fleet.destroy(name)))


def rebuild(name: Name, test: bool = False, refresh: Refresh = "updates"):
    """
    Bake the fleet's recipe with today's package updates, then roll to the image: the monthly job.

    test
        Only return which layers would be built, and what a roll to the present image would do.

    refresh
        ``updates``: also build each layer whose packages have updates at the mirrors. ``always``: build every layer.
        ``never``: only layers whose inputs have changed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.rebuild web
    """
    with _command(name) as (fleet, notify, answer):
        definition = fleet.definition(name)
        fleet.require_store(name)  # a bake would take long, and the roll would refuse
        options = {"refresh": refresh, "channel": definition.channel, "test": test}
        baked = bake_module.bake(definition.recipe, __opts__, **options, progress=notify)
        if test:
            return answer({"bake": baked, "roll": report.describe_forecast(fleet.forecast(name, "roll"))})
        return answer({"bake": baked, "roll": report.describe_result(fleet, name, fleet.roll(name))})


def relaunch_phase(name: Name, test: bool = False):
    """
    Run the launch phase (the recipe's ``at_launch``) of every machine again: for secrets that have changed.

    As many machines at a time as ``max_unavailable`` allows, at least one; the next ones begin when those are healthy
    again. Ends with the first failure beyond ``max_failures``. After an interruption it starts again with all machines.

    test
        Only return the order of the machines.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.relaunch_phase web
    """
    with _command(name) as (fleet, notify, answer):
        return answer(relaunch.relaunch(fleet, notify, name, test))


def drift(name: Name, full: bool = False, taint: bool = False, minion: MinionId | None = None):
    """
    Return what differs on a fleet's machines from their image (drift); ``all`` checks every fleet.

    Each machine with drift fires the event ``immutable/drift/<minion id>``. Exits with 1 if a machine has drift or did
    not answer: such a machine is unknown, not clean.

    full
        Read the content of all files, not only of those whose metadata has changed.

    taint
        Taint the machines with drift, so that the next roll replaces them.

    minion
        Check this machine only.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.drift web
        salt-run fleet.drift all taint=True
    """
    with _command(name) as (fleet, notify, answer):
        found = fleet_drift.check(fleet, notify, name, full=full, taint=taint, minion=minion)
    if found["retcode"]:
        __context__["retcode"] = found["retcode"]
    return answer(found)


def reconcile(name: Name = "all", orphans: bool = True, test: bool = False):
    """
    Keep a fleet, or ``all``, as the pillar defines it. For the master's schedule, every few minutes.

    Continues interrupted rollouts; replaces machines that are dead, that do not answer or are not healthy for
    ``unreachable_for``, that are tainted or too old; corrects the size; removes orphans (keys and machines that no
    fleet needs). If more machines than ``sick_limit`` are sick, or if no machine answers this master, nothing is
    replaced and the event ``immutable/<fleet>/alarm`` is fired. Exits with 1 if a fleet has an alarm or failed.

    orphans
        False: leave orphans alone. They are only reported when they are first seen.

    test
        Only return what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.reconcile web
        salt-run fleet.reconcile all test=True
    """
    with _command(name) as (fleet, notify, answer):
        collect = Orphans(fleet, operations.loader(__opts__), notify).collect if orphans else None
        found = fleet_reconcile.reconcile(fleet, name, partial(_operations, like=fleet), collect, test)
    if found["retcode"]:
        __context__["retcode"] = found["retcode"]
    return answer(found)


def adopt_store(name: Name = "all", installation: str | None = None, test: bool = False):
    """
    Write machines and images into the store that it does not know: it was lost, or a backup of it was put back.

    The tags of the machines tell fleet, generation and image. Machines of a store that was lost have another
    installation id; they are taken over if this master accepted their keys. Images are read from the builder and
    verified as for a launch. Returns installation (the id that is taken over, or None), fleets (fleet to minion ids),
    images (digest, image, written, and reason: why it is left out, or may not be rolled yet), and channels (channel to
    the image that it names now).

    name
        One fleet of the pillar, or ``all``.

    installation
        The id to take over, where machines of several are found.

    test
        Only return what would be written.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.adopt_store test=True
        salt-run fleet.adopt_store
    """
    with _command(name) as (fleet, _, _):
        settings = spec.settings(__opts__)
        builder = lost_images.Builder(Worker(__opts__, settings, "image", LOCAL), sign.trusted(settings))
        return output(__opts__, lost_store.adopt(fleet, name, installation, test, builder))


def taint(minion_id: MinionId, reason: str | None = None, kind: TaintKind = "hand", test: bool = False):
    """
    Taint a machine: it no longer matches its image, and the next roll replaces it.

    It serves until a new machine is healthy. A machine that no fleet launched needs a key on this master.

    reason
        Why, for the journal.

    kind
        ``drift``: because of the drift that ``fleet.drift`` recorded for it. This is for reactors: the content of an
        event is not trusted, since any minion can fire one.

    test
        Only return what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.taint web-6f1c0d2a93b47e58.example.com reason='changed nginx.conf by hand'
    """
    with _command(minion_id=minion_id) as (fleet, notify, answer):
        return answer(Interventions(fleet, notify).taint(minion_id, reason, kind, test))


def untaint(minion_id: MinionId, reason: str | None = None, test: bool = False):
    """
    Remove the taints of a machine. A machine that was opened by ``fleet.break_glass`` stays tainted.

    reason
        Why, for the journal.

    test
        Only return what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.untaint web-6f1c0d2a93b47e58.example.com reason='looked at it: a false alarm'
    """
    with _command(minion_id=minion_id) as (fleet, notify, answer):
        return answer(Interventions(fleet, notify).untaint(minion_id, reason, test))


def break_glass(minion_id: MinionId, reason: str | None = None, ttl: Duration = "15m", test: bool = False):
    """
    Open one sealed machine for a while; from then on it is tainted permanently.

    The machine accepts a token that this master signs for its present boot, once. Before it is open, who, when and why
    are recorded and fired as ``immutable/break_glass/<minion id>``.

    reason
        Why, for the journal.

    ttl
        For how long, at most ``4h``. A reboot ends it too.

    test
        Only return what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.break_glass web-6f1c0d2a93b47e58.example.com reason='core dump for case 4711' ttl=30m
    """
    with _command(minion_id=minion_id) as (fleet, notify, answer):
        return answer(Interventions(fleet, notify).break_glass(__opts__, minion_id, reason, ttl, test))


def end_break_glass(minion_id: MinionId):
    """
    Close a machine that ``fleet.break_glass`` opened, before the time is over. It stays tainted.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.end_break_glass web-6f1c0d2a93b47e58.example.com
    """
    with _command(minion_id=minion_id) as (fleet, notify, answer):
        return answer(Interventions(fleet, notify).end_break_glass(minion_id))


def status(name: Name):
    """
    Return a fleet's generation, image, size, machines and last rollout, what it waits for, and the process that
    works on it.

    Of each machine: generation, image, phase, health and traffic as far as they are known, address, age (s), why it is
    tainted or protected, and for how long it is kept. ``all`` returns every fleet, and the tainted machines that no
    fleet launched. At a terminal it is a table; ``--out=json`` gives the data.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.status web
    """
    with _command(name) as (fleet, _, answer):
        if name == "all":
            return answer(report.status_of_all(fleet, time.time()), tables.status)
        return answer(report.status(fleet, name, time.time()), tables.status)


def show(rollout: Number, fleet: Name | None = None):
    """
    Return one rollout with its journal: what was done to which machine, when (in seconds since it began) and why.

    rollout
        Its number, as ``fleet.history`` and ``fleet.status`` show it.

    fleet
        The fleet of the rollout: another one is an error.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.show 12
        salt-run fleet.show 12 web --out=json
    """
    with _command(fleet, rollout=rollout) as (work, _, answer):
        return answer(timeline.show(work, rollout, fleet), tables.rollout)


def history(name: Name):
    """
    Return a fleet's generations, rollouts, orders and audit log (what else was done to its machines), the newest first.

    ``all`` returns every fleet, and the audit log of machines that no fleet launched.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.history web
    """
    with _command(name) as (fleet, _, answer):
        if name == "all":
            return answer(report.history_of_all(fleet))
        return answer(report.history(fleet, name))


def _fleets():
    return sorted(minions.definitions(__opts__).fleets)


if MISSING is None:
    arguments.check_all(globals(), refusal, {"name": _fleets})

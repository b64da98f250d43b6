"""Functions of one machine about its image: status, drift, launch phase, sealing and break-glass."""

from __future__ import annotations

import os
import sys

import salt.loader
from salt.exceptions import CommandExecutionError

try:
    from saltext.immutable import adoption, arguments, systemd
    from saltext.immutable.guard import answers as guard_answers
    from saltext.immutable.guard import break_glass as guard_break_glass
    from saltext.immutable.guard import launch as guard_launch
    from saltext.immutable.guard import seal as guard_seal
    from saltext.immutable.guard import status as guard_status

    DAMAGE = None
except Exception as err:  # on a sealed machine whose library is damaged, immutable.status must still work
    DAMAGE = f"{type(err).__name__}: {err}"

__virtualname__ = "immutable"


def __virtual__():
    if DAMAGE is None or os.path.lexists("/etc/immutable/seal.json"):
        return __virtualname__
    return (
        False,
        f"the library saltext.immutable is missing; pip install saltext-immutable where this minion runs ({DAMAGE})",
    )


def status():
    """Return which image this machine runs, and what is wrong with its seal.

    Keys: ``sealed``, ``problems`` (sentences; empty if there are none) and, on a sealed machine whose seal
    can be read, ``image``, ``digest``, ``recipe``, ``read_only``, ``adopted``, ``created`` (seconds since the epoch),
    ``salt``, ``pack``, ``policy`` (what the recipe fixed), ``fleet``, ``generation``, ``installation``,
    ``launched`` (True if its launch phase succeeded, False if not yet; a text says why it failed),
    ``stopped_jobs`` (scheduled jobs that do not run: name to function), ``glass`` (None, or who opened it by
    break-glass, the reason, and seconds_left), and ``counts`` since the boot (refused, operated, changed: function to
    number).

    CLI Example:

    .. code-block:: bash

        salt 'web-*' immutable.status
    """
    if DAMAGE is not None:
        return {"sealed": True, "problems": [f"saltext.immutable is damaged ({DAMAGE}); replace this machine"]}
    return guard_status.status(__opts__, __pillar__)


def services():
    """Return how the services are that the states of the image declare running: unit to state.

    A state is ``active``, ``not applicable: ...`` (its conditions ask for hardware or rights that this machine does
    not have), or what is wrong. With one that is wrong a machine is not healthy, unless its fleet has
    ``health: {states: false}``.

    CLI Example:

    .. code-block:: bash

        salt 'web-*' immutable.services
    """
    found = guard_seal.required("only images have services that their states declared")
    return systemd.states(found.policy.get("running", []))


def answer(nonce: str, asked: str, **kwargs):
    """
    Answer several questions of the master in one job, with a proof that no other minion can make.

    The commands on fleets call it. Each question passes the guard as if it were a job.

    nonce
        A text that the proof is bound to.

    asked
        JSON: a list of ``[function, args, kwargs]``.

    Returns answers (JSON: for each question ``return`` and ``retcode``, or ``error``) and proof: the signature of this
    minion's key over nonce, id, questions and answers.

    CLI Example:

    .. code-block:: bash

        salt web-1.example.com immutable.answer nonce=3f2a asked='[["test.ping", [], {}]]'
    """
    if DAMAGE is not None:
        raise CommandExecutionError(f"saltext.immutable is damaged ({DAMAGE}); replace this machine")
    data = {name: kwargs.get(f"__pub_{name}") for name in ("user", "jid")}
    return guard_answers.answer(__opts__, data, _call, __context__, nonce, asked)


def seal(guard: dict | None = None, mutable: list | None = None, test: bool = False):
    """
    Seal this minion as it is: from now on it refuses what would change it.

    For a minion that was not baked (adoption). It takes effect at once. What is on it now becomes the manifest that
    ``immutable.drift`` compares with. Its scheduled jobs stop; a systemd timer updates its mine instead.

    guard
        As in a recipe: ``{allow: [...], deny: [...], dry_runs: true, returners: [], allow_dangerous: false}``.

    mutable
        Paths (globs) that change by design, besides the usual ones.

    test
        Only return whether it can be sealed, and which jobs that would stop.

    Returns changed, image, digest and stopped_jobs.

    CLI Example:

    .. code-block:: bash

        salt pet.example.com immutable.seal test=True
        salt pet.example.com immutable.seal mutable='[/srv/uploads]'
    """
    given = {name: value for name, value in (("guard", guard), ("mutable", mutable)) if value is not None}
    policy = adoption.policy(given)
    now = guard_status.status(__opts__, __pillar__)
    stopped = guard_status.stopped_jobs(__opts__, __pillar__)
    result = {"changed": True, "image": None, "digest": None, "stopped_jobs": stopped}
    if now["sealed"]:
        if not now.get("adopted") or now["policy"] != policy:
            raise CommandExecutionError(
                f"this machine is sealed already, with another policy ({now.get('image', 'its seal is damaged')})"
            )
        return {**result, "changed": False, "image": now["image"], "digest": now["digest"]}
    if obstacles := adoption.obstacles(__opts__, _executor()):
        raise CommandExecutionError("this minion cannot be sealed: " + "; ".join(obstacles))
    if test:
        return result
    found = adoption.seal_minion(__opts__, policy, _call)
    return {**result, "image": found.name, "digest": found.image}


def unseal():
    """
    Undo ``immutable.seal``. Open the machine by break-glass first. A machine that runs an image is never unsealed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.break_glass pet.example.com reason='back to highstate'
        salt pet.example.com immutable.unseal
    """
    now = guard_status.status(__opts__, __pillar__)
    if not now["sealed"]:
        return {"changed": False}
    if not now.get("adopted"):
        raise CommandExecutionError("this machine runs an image, which is never unsealed: replace the machine instead")
    adoption.unseal_minion(__opts__, _call)
    return {"changed": True}


def break_glass_challenge(ttl: float):
    """
    Return what the master must sign to open this machine for ``ttl`` seconds; ``fleet.break_glass`` calls it.

    Returns machine, nonce, boot_id, until, and what break-glass opens and cannot open.

    CLI Example:

    .. code-block:: bash

        salt web-1.example.com immutable.break_glass_challenge 900
    """
    return guard_break_glass.challenge(ttl)


def break_glass(token: str):
    """
    Open this machine with a token that the master signed for its last challenge; ``fleet.break_glass`` sends it.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.break_glass web-1.example.com reason='the disk is full' ttl=15m
    """
    granted = guard_break_glass.apply_token(__opts__, token)
    left = guard_break_glass.seconds_left(granted)
    return {"who": granted.who, "reason": granted.reason, "seconds_left": round(left)}


def end_break_glass():
    """
    Close this machine before its break-glass token expires. It stays tainted.

    CLI Example:

    .. code-block:: bash

        salt web-1.example.com immutable.end_break_glass
    """
    return {"changed": guard_break_glass.end()}


def launch():
    """
    Run the launch phase of this machine again: apply the SLS files that its recipe names as ``at_launch``.

    Use it after a secret has changed. A machine without ``at_launch`` does nothing.

    Returns ok, sls, failed (always empty: if states failed, the call fails and names them) and seconds.

    CLI Example:

    .. code-block:: bash

        salt 'web-*' immutable.launch
    """
    now = guard_status.status(__opts__, __pillar__)
    if "policy" not in now:
        raise CommandExecutionError("; ".join(now["problems"]) or "this host runs no image, so it has no launch phase")
    done = guard_launch.rerun(now["policy"])
    if not done["ok"]:
        raise CommandExecutionError(guard_launch.explain(done["failed"]))
    return done


def drift(digest: str | None = None, full: bool = False):
    """
    Return the drift of this machine: what differs from its image. Files, packages, services, users, mounts, processes
    and logins are compared.

    digest
        Of the image that this machine should run, as the master knows it. It proves the manifests that the machine is
        compared with. Default: the digest in the machine's own seal, which proves nothing.

    full
        Read the content of every file, also of those whose size and time have not changed.

    Returns drift (a list of kind, what, detail, owner and layer), counts (by kind), proven, files, seconds and image.

    CLI Example:

    .. code-block:: bash

        salt 'web-*' immutable.drift
        salt 'web-*' immutable.drift digest=3f2a9c1d04be... full=True
    """
    from saltext.immutable.drift import check

    return check(digest, full)


def preview():
    """
    Return as drift what the states of this machine's image would change on it, each with its state id.

    The states run with ``test=True``. Their Jinja and their ``unless`` run commands even so.

    Returns drift (a list of kind, what, detail, sls ...), counts, states, seconds and left_out: how many states would
    change something as the bake already knew (what they left to the boot, and what ``tests: {idempotent: noted}`` of
    the recipe found).

    CLI Example:

    .. code-block:: bash

        salt 'web-*' immutable.preview
    """
    from saltext.immutable.drift import preview as preview_states

    return preview_states(_call)


def _executor():
    """Return the file of the executor that this minion calls functions with."""
    loaded = salt.loader.executors(__opts__, __salt__)["direct_call.execute"]
    return sys.modules[loaded.__module__].__file__


def _call(fun, *args, **kwargs):
    return __salt__[fun](*args, **kwargs)



if DAMAGE is None:
    arguments.check_all(globals(), CommandExecutionError)

"""What is known and done on one machine about its image: what it runs, what drifted, how it is sealed and opened."""

from __future__ import annotations

import os
import sys

import salt.loader
from salt.exceptions import CommandExecutionError

try:
    from saltext.immutable import adoption
    from saltext.immutable.guard import break_glass as breaking
    from saltext.immutable.guard import launch as launching
    from saltext.immutable.guard import status as standing

    DAMAGE = None
except Exception as err:  # a sealed machine whose library is damaged must still be able to say so
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
    """Return what this machine says about its image, and what is wrong with that.

    Keys: ``sealed``, ``problems`` (sentences; empty when all is well) and, on a sealed machine whose seal
    can be read, ``image``, ``digest``, ``recipe``, ``read_only``, ``adopted``, ``created`` (seconds since the epoch),
    ``salt``, ``pack``, ``policy`` (what the recipe fixed), ``fleet``, ``generation``, ``installation``,
    ``launched`` (whether what it applies at launch is applied; a text is why that failed),
    ``stopped_jobs`` (scheduled jobs that do not run: name to function), ``glass`` (None, or who broke it, why, and
    seconds_left), and ``counts`` since the boot (refused, operated, changed: function to number).

    CLI Example:

    .. code-block:: bash

        salt 'web-*' immutable.status
    """
    if DAMAGE is not None:
        return {"sealed": True, "problems": [f"saltext.immutable is damaged ({DAMAGE}); replace this machine"]}
    return standing.status(__opts__, __pillar__)


def seal(guard=None, mutable=None, test=False):
    """
    Seal this minion as it is: from now on it refuses what would change it.

    For a minion that was not baked (adoption). It takes effect at once. What is on it now becomes the manifest that
    ``immutable.drift`` compares with; its scheduled jobs stop, and its mine is kept alive by a systemd timer.

    guard
        As in a recipe: ``{allow: [...], deny: [...], dry_runs: true, allow_dangerous: false}``.

    mutable
        Paths (globs) that change by design, besides the usual ones.

    test
        Only tell whether it can be sealed, and what that would stop.

    Returns changed, image, digest and stopped_jobs.

    CLI Example:

    .. code-block:: bash

        salt pet.example.com immutable.seal test=True
        salt pet.example.com immutable.seal mutable='[/srv/uploads]'
    """
    given = {name: value for name, value in (("guard", guard), ("mutable", mutable)) if value is not None}
    policy = adoption.policy(given)
    now = standing.status(__opts__, __pillar__)
    told = {"changed": True, "image": None, "digest": None, "stopped_jobs": standing.stopped_jobs(__opts__, __pillar__)}
    if now["sealed"]:
        if not now.get("adopted") or now["policy"] != policy:
            raise CommandExecutionError(f"this machine is sealed already ({now.get('image', 'its seal is damaged')})")
        return {**told, "changed": False, "image": now["image"], "digest": now["digest"]}
    if obstacles := adoption.obstacles(__opts__, _executor()):
        raise CommandExecutionError("this minion cannot be sealed: " + "; ".join(obstacles))
    if test:
        return told
    found = adoption.seal_minion(__opts__, policy, _call)
    return {**told, "image": found.name, "digest": found.image}


def unseal():
    """
    Undo ``immutable.seal``. The glass has to be broken first; a machine that runs an image is never unsealed.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.break_glass pet.example.com reason='back to highstate'
        salt pet.example.com immutable.unseal
    """
    now = standing.status(__opts__, __pillar__)
    if not now["sealed"]:
        return {"changed": False}
    if not now.get("adopted"):
        raise CommandExecutionError("this machine runs an image, which is never unsealed: replace the machine instead")
    adoption.unseal_minion(__opts__, _call)
    return {"changed": True}


def break_glass_challenge(ttl):
    """
    Return what the master must sign to open this machine for ``ttl`` seconds; ``fleet.break_glass`` asks for it.

    Returns machine, nonce, boot_id, until, and what breaking the glass opens and cannot open.

    CLI Example:

    .. code-block:: bash

        salt web-1.example.com immutable.break_glass_challenge 900
    """
    try:
        seconds = float(ttl)
    except (TypeError, ValueError) as err:
        raise CommandExecutionError(f"ttl: {ttl!r} is no number of seconds") from err
    return breaking.challenge(seconds)


def break_glass(token):
    """
    Open this machine with what the master signed for its last challenge; ``fleet.break_glass`` sends it.

    CLI Example:

    .. code-block:: bash

        salt-run fleet.break_glass web-1.example.com reason='the disk is full' ttl=15m
    """
    granted = breaking.break_glass(__opts__, token)
    return {"who": granted.who, "reason": granted.reason, "seconds_left": round(breaking.seconds_left(granted))}


def end_break_glass():
    """
    Close this machine again before the time is over. It stays tainted.

    CLI Example:

    .. code-block:: bash

        salt web-1.example.com immutable.end_break_glass
    """
    return {"changed": breaking.end()}


def launch():
    """
    Run the launch phase of this machine once more: the state files that its recipe names as ``at_launch``.

    So a machine gets a secret that changed. A machine without such state files has nothing to do.

    Returns ok, sls, failed (none, or this fails with them) and seconds.

    CLI Example:

    .. code-block:: bash

        salt 'web-*' immutable.launch
    """
    now = standing.status(__opts__, __pillar__)
    if "policy" not in now:
        raise CommandExecutionError("; ".join(now["problems"]) or "this host runs no image, so it has no launch phase")
    done = launching.again(now["policy"])
    if not done["ok"]:
        raise CommandExecutionError(launching.explain(done["failed"]))
    return done


def drift(digest=None, full=False):
    """
    Return what on this machine is not as its image says: files, packages, services, users, mounts, processes, logins.

    digest
        Of the image that this machine should run, as the master knows it: then a machine cannot prove itself right
        with a manifest of its own. Default: what its own seal names, which proves nothing.

    full
        Read the content of every file, also of those whose size and time are as they were.

    Returns drift (a list of kind, what, detail, owner and layer), counts (by kind), proven, files, seconds and image.

    CLI Example:

    .. code-block:: bash

        salt 'web-*' immutable.drift
        salt 'web-*' immutable.drift digest=3f2a9c1d04be... full=True
    """
    from saltext.immutable import drift as drifting

    return drifting.check(digest, full)


def preview():
    """
    Return what the states of this machine's image would change on it, as drift: each with its state id.

    They run with ``test=True``, and their Jinja and ``unless`` run commands.

    Returns drift (a list of kind, what, detail, sls ...), counts, states and seconds.

    CLI Example:

    .. code-block:: bash

        salt 'web-*' immutable.preview
    """
    from saltext.immutable import drift as drifting

    return drifting.preview(_call)


def _executor():
    """Return the file through which this minion calls functions."""
    loaded = salt.loader.executors(__opts__, __salt__)["direct_call.execute"]
    return sys.modules[loaded.__module__].__file__


def _call(fun, *args, **kwargs):
    return __salt__[fun](*args, **kwargs)


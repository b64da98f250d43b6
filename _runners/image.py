"""
Images: baked from recipes of the pillar, listed, shown, promoted, revoked, deleted.

.. code-block:: bash

    salt-run image.bake web
    salt-run image.list
    salt-run image.show web:stable
    salt-run image.promote web:candidate channel=stable
    salt-run image.revoke web@3f2a9c1d04be reason='openssl 3.0.11'
    salt-run image.prune test=True
    salt-run image.diff web:stable web:candidate
    salt-run image.verify web:stable
    salt-run image.export web:stable format=oci target=/srv/web.oci.tar
"""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from functools import partial

try:
    from saltext.immutable import arguments, minions, spec
    from saltext.immutable.bake import image_tests, parallel, signatures
    from saltext.immutable.bake.commands import catalog
    from saltext.immutable.bake.commands import export as exporting
    from saltext.immutable.bake.commands import junit as junit_reports
    from saltext.immutable.bake.commands import outdated as updates_of_images
    from saltext.immutable.bake.commands import prune as pruning
    from saltext.immutable.bake.commands import shell as shells
    from saltext.immutable.bake.commands.attestations import evidence
    from saltext.immutable.bake.commands.channels import Channels
    from saltext.immutable.bake.commands.revoke import Revocations
    from saltext.immutable.bake.commands.why import explain
    from saltext.immutable.command_line import Cache, Duration, FilePath, Name, Names, Reference, Refresh
    from saltext.immutable.images import sign as signing
    from saltext.immutable.runner import output, refusal, reporting, warned
    from saltext.immutable.store import Store

    MISSING = None
except ImportError as err:
    MISSING = f"the master needs: pip install 'saltext-immutable[master]' ({err})"

__virtualname__ = "image"
__func_alias__ = {"list_": "list"}


def __virtual__():
    return (False, MISSING) if MISSING else __virtualname__


@contextmanager
def _command():
    """
    Say first if the store is older than the builder; give what prints progress, and what makes the answer of data.
    """
    with reporting(__opts__) as progress:
        warnings = warned(__opts__, partial(catalog.warnings, dict(__opts__)))
        yield progress, lambda data: output(__opts__, {**data, "warnings": warnings})


def bake(
    name: Names,
    channel: Name = "stable",
    refresh: Refresh = False,
    test: bool = False,
    cache: Cache | None = None,
    junit: FilePath | None = None,
    again: bool = False,
    keep_failed: Duration | None = None,
):
    """
    Bake a recipe: each layer that is not there yet is built; then the channel names the new image.

    name
        The recipe, as the pillar has it under ``immutable:recipes``. Several, ``base,web,shop`` or a list: parents come
        first, independent ones are baked at the same time; what fails stops only what is built from it. Then the answer
        has ``recipes`` (each with what follows here, or ``error``) and ``failed``, and salt-run ends with 1 for that.

    channel
        The name that shall point to the image; fleets follow ``stable`` unless they say otherwise.

    refresh
        ``updates`` (or True): also build again each layer whose packages have updates at the mirrors. ``always``: build
        every layer again. ``never``: only what has changed.

    test
        Only tell which layers would be built.

    cache
        ``only``: nothing is fetched, and what is not in the builder's cache is an error. ``use``: what is missing is
        fetched. Default: what the master config says (``immutable: cache``), else ``use``.

    junit
        A file of this host, an absolute path, for what came of the tests, as JUnit XML; also where the bake fails.

    again
        The states, applied a second time to what was baked, must change nothing; those that would are named, and fail
        the bake. ``tests: {idempotent: true}`` of a recipe asks for that each time.

    keep_failed
        If states fail, keep their machine for so long (``1h``) before the bake ends. Meanwhile
        ``image.shell web@failed`` enters it, and ``salt-call state.sls_id ID SLS`` there applies one state again.

    Returns image, digest, changed, cached, channel, seconds, packages, each layer with what it took, and warnings: each
    file that holds a value of the pillar which the recipe marks as secret.

    CLI Example:

    .. code-block:: bash

        salt-run image.bake web
        salt-run image.bake web,shop,mail test=True
        salt-run image.bake web keep_failed=1h
    """
    with _command() as (progress, _):
        how = {"refresh": refresh, "channel": channel, "test": test, "user": globals().get("__user__")}
        how |= {"cache": cache, "again": again, "keep_failed": keep_failed}
        with junit_reports.reported(__opts__, name, junit):
            return output(__opts__, parallel.bake(name, __opts__, progress=progress, **how))


def list_(recipe: Name | None = None):
    """
    List the images, the newest first: recipe, digest, age, size, channels.

    CLI Example:

    .. code-block:: bash

        salt-run image.list
        salt-run image.list web --out=json
    """
    with _command():
        return output(__opts__, catalog.table(spec.settings(__opts__), recipe, time.time()))


def show(image: Reference):
    """
    Show one image: its layers, how long each took, versions, channels, and the policy of its machines.

    ``policy`` holds what the recipe and its parents fixed: ``guard`` (allow, deny, dry_runs, returners), ``at_launch``,
    ``writable``, ``mutable``, ``states``. ``dangerous`` in it names the allowed functions that run any command, write
    any file or call any function.

    image
        ``web:stable``, ``web@3f2a9c1d04be``, or a digest (or the beginning of one).

    CLI Example:

    .. code-block:: bash

        salt-run image.show web:stable
    """
    with _command() as (_, answer):
        return answer(catalog.show(spec.settings(__opts__), image))


def why(name: Name, updates: bool = False):
    """
    Tell what has changed since the last bake of a recipe, what no key can see, and what the next bake would build.

    name
        The recipe.

    updates
        Also ask the mirrors which packages have updates.

    Returns image (the newest), last (what it was made from that the one before was not: also which states),
    changed (since then: files, grains, paths of the pillar without their values, settings, layers below, packages),
    unproven (by recipe: what is built at each bake unless it says ``assume_stable``), and builds (layers).

    CLI Example:

    .. code-block:: bash

        salt-run image.why web
        salt-run image.why web updates=True
    """
    with _command() as (progress, _):
        return output(__opts__, explain(__opts__, name, updates=updates, progress=progress))


def outdated(name: Reference | None = None):
    """
    List the images that channels name whose packages have updates at the mirrors, security updates marked.

    name
        A recipe, ``web:stable``, ``web@3f2a9c1d04be``, or a digest (or the beginning of one); nothing: all.

    CLI Example:

    .. code-block:: bash

        salt-run image.outdated
        salt-run image.outdated web
    """
    with _command() as (progress, _):
        return output(__opts__, updates_of_images.outdated(__opts__, name, progress=progress))


def tests(image: Reference, junit: FilePath | None = None):
    """
    Show what came of the tests of an image, or of the last bake of a recipe, whether it gave an image or not.

    image
        ``web:stable``, ``web@3f2a9c1d04be``, a digest (or the beginning of one); or a recipe.

    junit
        A file of this host, an absolute path, that is written as JUnit XML.

    Returns name, passed and failed (how many), and results: name, phase, recipe, passed, seconds and message of each.

    CLI Example:

    .. code-block:: bash

        salt-run image.tests web
        salt-run image.tests web:stable junit=/srv/reports/web.xml
    """
    with _command(), closing(Store.open(spec.settings(__opts__).store)) as store:
        found = image_tests.find(store, image)
        if junit:
            junit_reports.write(junit, found["name"], found["results"])
        return output(__opts__, found)


@contextmanager
def _of_store(kind):
    """
    Give what a command does with images (``kind``), with the user that Salt knows, and what makes the answer of data.
    """
    with _command() as (progress, answer), closing(Store.open(spec.settings(__opts__).store)) as store:
        yield kind(store, progress, globals().get("__user__")), answer


def promote(image: Reference, channel: Name = "stable", reason: str = "", test: bool = False):
    """
    Let a channel name an image. Fleets that follow the channel go there with their next roll.

    A revoked image is refused, and one that nobody signed whom this master trusts.

    image
        ``web:candidate``, ``web@3f2a9c1d04be``, or a digest (or the beginning of one).

    channel
        The name that shall point to the image.

    reason
        Why, for whoever reads the history.

    test
        Only tell what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run image.promote web:candidate channel=stable reason='a week without a complaint'
    """
    with _of_store(Channels) as (images, answer):
        trusted = signing.trusted(spec.settings(__opts__))
        signatures.require(images.store, images.store.usable(image), trusted)
        return answer(images.promote(image, channel, reason, test))


def channels(recipe: Name):
    """
    Show the channels of a recipe, and who moved them when, from where, to where, and why: the newest first.

    CLI Example:

    .. code-block:: bash

        salt-run image.channels web
    """
    with _of_store(Channels) as (images, answer):
        return answer(images.channels(recipe))


def rollback(recipe: Name, channel: Name = "stable", reason: str = "", test: bool = False):
    """
    Let a channel name again what it named before; images that were revoked or deleted meanwhile are left out.

    Machines stay as they are: ``fleet.roll`` brings a fleet to what its channel names, ``fleet.rollback`` needs no
    channel.

    channel
        The channel that goes back.

    reason
        Why, for whoever reads the history.

    test
        Only tell what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run image.rollback web channel=stable reason='the shop is slow'
    """
    with _of_store(Channels) as (images, answer):
        return answer(images.rollback(recipe, channel, reason, test))


def revoke(image: Reference, reason: str | None = None, cascade: bool = False, test: bool = False):
    """
    Let an image never be rolled again, nor promoted, nor built on.

    Machines that run it go on: the answer names the fleets, and the channels that name it. Where a fleet says
    ``revoked: replace``, ``fleet.reconcile`` rolls it to what its channel names as soon as that is another image.

    image
        ``web@3f2a9c1d04be``, a channel, or a digest (or the beginning of one).

    reason
        Why; each command that meets the image says it.

    cascade
        Also revoke the images whose layers begin with those of this one. Without it they are only named.

    test
        Only tell what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run image.revoke base@3f2a9c1d04be reason='openssl 3.0.11' cascade=True
    """
    with _of_store(Revocations) as (images, answer):
        return answer(images.revoke(image, reason, cascade, test))


def unrevoke(image: Reference, reason: str | None = None, test: bool = False):
    """
    Take back that an image was revoked. Those that were revoked with it are named, and stay revoked.

    reason
        Why; the store keeps it.

    test
        Only tell what would be done.

    CLI Example:

    .. code-block:: bash

        salt-run image.unrevoke web@3f2a9c1d04be reason='it was the load balancer'
    """
    with _of_store(Revocations) as (images, answer):
        return answer(images.unrevoke(image, reason, test))


def prune(recipe: Name | None = None, test: bool = False):
    """
    Delete the images that their recipes keep no longer (``keep``, ``keep_for``), then what nothing needs any more.

    That is: layers, keys, downloads for suites and recipes that are no more, and what killed bakes left. What a
    channel, a machine, a mount, or a generation needs that a fleet runs or could go back to, stays. It is refused while
    a bake is under way.

    recipe
        Delete images of this one only.

    test
        Only tell what would go, and why each other image stays.

    CLI Example:

    .. code-block:: bash

        salt-run image.prune test=True
        salt-run image.prune web
    """
    with _command() as (progress, answer):
        return answer(pruning.prune(__opts__, recipe, progress, test=test, who=globals().get("__user__")))


def verify(image: Reference):
    """
    Read all of an image, and fail unless every file of it is as it was signed.

    A launch and a bake do the same, but read a layer only when the builder first uses it after a boot, and again once
    anything in it was touched. ``verity`` in the answer says of how many files the kernel checks each read (fs-verity).

    image
        ``web:stable``, ``web@3f2a9c1d04be``, or a digest (or the beginning of one).

    CLI Example:

    .. code-block:: bash

        salt-run image.verify web:stable
    """
    with _command(), evidence(__opts__) as known:
        return output(__opts__, known.verify(image))


def export(image: Reference, format: str, target: FilePath, force: bool = False, test: bool = False):
    """
    Write an image to a file of the builder, for machines that no fleet launches.

    image
        ``web:stable``, ``web@3f2a9c1d04be``, or a digest (or the beginning of one); not a revoked one.

    format
        ``tar`` (all files, zstd), ``squashfs``, ``oci`` (each layer as one; ``docker load`` and ``podman load`` read
        it), or a disk that boots by UEFI, ``raw`` or ``qcow2``. Two exports of one image are the same bytes.

    target
        The file on the builder, an absolute path. It is there as a whole or not at all, for root alone.

    force
        Replace the target if it is there.

    test
        Only tell what would be written, and whether there is room.

    Returns image, format, target, content (bytes of all files), free (bytes), and of the file bytes and sha256.

    CLI Example:

    .. code-block:: bash

        salt-run image.export web:stable format=oci target=/srv/web.oci.tar
        salt-run image.export web:stable format=squashfs target=/srv/web.squashfs test=True
        salt-run image.export web:stable format=raw target=/srv/web.raw
    """
    with _command() as (progress, _):
        how = {"force": force, "test": test, "progress": progress}
        return output(__opts__, exporting.export(__opts__, image, format, target, **how))


def shell(image: Reference, command: str | None = None, boot: bool = False):
    """
    Open a shell of root in a throw-away copy of an image: what is changed there vanishes when the shell ends.

    For whoever sits at the builder's terminal; with ``command`` it needs none, and works for a builder elsewhere, too.

    image
        ``web:stable``, ``web@3f2a9c1d04be``, or a digest (or the beginning of one); also one that failed its tests.
        ``web@failed``: the machine that ``image.bake web keep_failed=1h`` keeps.

    command
        Run this line of shell in place of it, and return retcode, stdout and stderr.

    boot
        Let the services of the image run. Its minion never does.

    CLI Example:

    .. code-block:: bash

        salt-run image.shell web:stable
        salt-run image.shell web@3f2a9c1d04be command='nginx -T' boot=True
    """
    with _command():
        return output(__opts__, shells.shell(__opts__, image, command, boot))


def sign(image: Reference):
    """
    Sign an image that has no signature: one that was baked before images were signed.

    Its layers are compared with its digest first. Nothing proves any more that its seal is the one that was baked: who
    signs vouches for it. In doubt, bake again.

    image
        ``web@3f2a9c1d04be``, a channel, or a digest (or the beginning of one).

    CLI Example:

    .. code-block:: bash

        salt-run image.sign web@3f2a9c1d04be
    """
    with _command(), evidence(__opts__) as known:
        return output(__opts__, known.sign(image))


def sbom(image: Reference):
    """
    Return the bill of materials of an image (CycloneDX 1.6): its Debian packages and Python distributions.

    image
        ``web:stable``, ``web@3f2a9c1d04be``, or a digest (or the beginning of one).

    CLI Example:

    .. code-block:: bash

        salt-run image.sbom web:stable --out=json > web.cdx.json
    """
    with _command(), evidence(__opts__) as known:
        return output(__opts__, known.sbom(image))


def provenance(image: Reference):
    """
    Return where an image comes from (in-toto, SLSA provenance 1): of what it was made, by whom, where and when.

    image
        ``web:stable``, ``web@3f2a9c1d04be``, or a digest (or the beginning of one).

    CLI Example:

    .. code-block:: bash

        salt-run image.provenance web:stable --out=json
    """
    with _command(), evidence(__opts__) as known:
        return output(__opts__, known.provenance(image))


def diff(old: Reference, new: Reference):
    """
    Tell how two images differ: packages, state files, pillar, settings, size; inside, their files and services.

    Of files the 200 largest changes of each kind are named, with how many bytes they are more or less.

    old, new
        ``web:stable``, ``web@3f2a9c1d04be``, or a digest (or the beginning of one).

    CLI Example:

    .. code-block:: bash

        salt-run image.diff web:stable web:candidate
    """
    from saltext.immutable.fleet.show.proposal import image_difference  # only this function needs fleets

    with _command(), evidence(__opts__) as known:
        before, after = known.store.image(old), known.store.image(new)
        told = image_difference(known.store, before.digest, after.digest)
        return output(__opts__, told if told["same"] else {**told, "inside": known.inside(before, after)})


def delete(image: Reference, with_channels: bool = False, test: bool = False):
    """
    Delete an image and those of its layers that nothing else needs.

    It is refused while a channel, a generation of a fleet or a machine needs the image.

    with_channels
        Also take away the channels that name it.

    test
        Only tell whether it could be deleted.

    CLI Example:

    .. code-block:: bash

        salt-run image.delete web@3f2a9c1d04be test=True
    """
    with _command() as (_, answer):
        who = globals().get("__user__")
        return answer(catalog.delete(__opts__, image, with_channels=with_channels, test=test, who=who))


def _recipes():
    return sorted(minions.definitions(__opts__).recipes)


if MISSING is None:
    arguments.check_all(globals(), refusal, {"name": _recipes, "recipe": _recipes})

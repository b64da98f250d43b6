"""What a builder does, in plain data: called by the master in-process, or as a Salt job through `_modules/image.py`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors, updates
from saltext.immutable.builder.finish import leftovers, scrub, secrets, slim
from saltext.immutable.builder.finish.search import search
from saltext.immutable.builder.image_tests import run
from saltext.immutable.builder.phases import phase, recorded
from saltext.immutable.builder.sandbox import workshop
from saltext.immutable.builder.sources import debian, minion, roots
from saltext.immutable.builder.states import salt_call
from saltext.immutable.guard.seal import SEAL_PATH
from saltext.immutable.host import Host, remove, sync_directory, write
from saltext.immutable.images import layers, manifest, proof, verify
from saltext.immutable.machines import images, overlay
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.cgroup import Cgroup


def find_layer(host: Host, key: str) -> dict[str, Any] | None:
    """Return the layer that ``key`` led to last, or None."""
    found = layers.find(host, key)
    return asdict(found) if found else None


def keep_layer(
    host: Host, key: str, digest: str, warnings: Sequence[str] = (), about: Mapping[str, Any] | None = None
) -> None:
    """Let ``key`` lead to a layer from now on, with what is to be said of it, and of the stack up to it."""
    layers.keep(host, key, digest, warnings, about)


def make_key(host: Host, bake_id: str) -> str:
    """Make the key pair of a bake, and return the public half (PEM); the other never leaves this host."""
    host.prepare()
    return salt_call.make_key(host, bake_id)


def debian_layer(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Make the root layer of a Debian or Ubuntu image; ``order``: what, suite, packages, components, mirror."""
    with recorded() as seconds, _work(host) as place:
        with phase("packages"):
            debian.build(host, place, processes(host, place), order)
        packages = debian.installed(place / "fs/var/lib/dpkg/status")
        return _commit(host, place, seconds, order, packages=packages)


def root_content(host: Host, order: Mapping[str, Any]) -> str:
    """Return the hash of a root that somebody else made, as it is now; ``order``: tarball or directory, its path."""
    return roots.content(host, order)


def root_layer(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Make the lowest layer of a root that somebody else made; ``order``: what, tarball or directory, sha256."""
    with recorded() as seconds, _work(host) as place:
        with phase("root"):
            warnings = roots.build(host, place, processes(host, place), order)
        packages = roots.packages(place / "fs")
        layer = _commit(host, place, seconds, order, packages=packages)
        return {**layer, "warnings": [*warnings, *layer["warnings"]]}


def minion_layer(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Add Salt and this pack; ``order``: what, below, requirement, version, bridge, subnet."""
    with recorded() as seconds, _on(host, order["below"]) as (place, lower):
        with phase("minion"):
            grains = minion.build(host, place, order, lower)
            minion.finish(place / "fs")
        packages = _packages(host, order["below"])
        return _commit(host, place, seconds, order, packages=packages, grains=grains)


def state_layer(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Apply states in a booted machine; ``order``: what, below, and what `states.prepare` and `states.apply` name."""
    with ExitStack() as undo:
        # A job whose master was killed may still be at work under this id; it ends within its own time.
        undo.enter_context(host.lock(f"bake-{order['bake_id']}", wait=order["within"]))
        undo.callback(remove, host.pki / order["bake_id"])
        seconds = undo.enter_context(recorded())
        place, lower = undo.enter_context(_on(host, order["below"]))
        machines.destroy(host, order["bake_id"])  # left by a bake that was killed
        with ExitStack() as running:
            with phase("prepare"):
                mirrors.prefetch()
                machine = running.enter_context(machines.temporary(host, salt_call.prepare(host, place, order, lower)))
                if machine.boot:
                    machines.wait_booted(machine)
                grains = salt_call.sync(machine, order) if order["sync"] else order["grains"]
                marked = secrets.known(machine, order)
            with phase("states"), secrets.concealed(marked):
                sls, doubts = salt_call.apply(machine, order)
            with phase("inside tests"):
                tested = run.inside(machine, order, marked)
                trace = salt_call.trace(machine)
            if not all(each["passed"] for each in tested):
                return {"tests": tested}
            if machine.boot:
                with phase("stop"):
                    salt_call.stop(machine)
        status = place / "fs/var/lib/dpkg/status"
        packages = debian.installed(status) if status.is_file() else _packages(host, order["below"])
        salt_call.finish(place / "fs")
        about: dict[str, Any] = {"packages": packages, "grains": grains, "sls": sls, "tests": tested}
        about["address"] = machine.address
        layer = _commit(host, place, seconds, order, marked, **about)
        return {**layer, "warnings": [*layer["warnings"], *doubts], "trace": trace}


_Told = TypeVar("_Told")


def candidates(host: Host, order: Mapping[str, Any]) -> dict[str, str]:
    """Return today's version of each package of a stack; ``order``: below, bridge, subnet."""
    return _asked(host, order, updates.candidates)


def pending_updates(host: Host, order: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the packages of a stack that have updates, as `updates.pending` tells them; ``order`` as above."""
    return _asked(host, order, updates.pending)


def _asked(host: Host, order: Mapping[str, Any], ask: Callable[..., dict[str, _Told]]) -> dict[str, _Told]:
    """Ask the mirrors from a machine of a stack of layers."""
    with ExitStack() as undo:
        place, lower = undo.enter_context(_on(host, order["below"]))
        order_ = workshop(place, order, lower, files=mirrors.lend_apt(place))
        machine = undo.enter_context(machines.temporary(host, order_))
        return ask(machine, _packages(host, order["below"]))


def _packages(host: Host, below: Sequence[str]) -> dict[str, str]:
    """Return the Debian packages of a stack of layers."""
    return debian.installed(overlay.top_file(host.l, layers.lower(list(below)), "var/lib/dpkg/status"))


def make_image(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Make an image of finished layers; ``order``: recipe, layers, read_only, grains, policy, salt, pack.
    Idempotent. Return what is to be signed, ``above``, and ``proof`` where it was signed already.

    Seal and grains are a layer of their own above the others, so the seal can name the digest that it is not part of.
    """
    digest = manifest.image_digest(order)
    images.require_layers(host, order["layers"])
    _require_directories(host, order)
    about = images.file(host, digest)
    if not about.exists():
        verify.require_layers(host, order["layers"])
        seal = {name: order[name] for name in ("recipe", "read_only", "policy", "salt", "pack")}
        seal |= {"image": digest, "created": time.time()}
        with host.workspace() as work:
            tree = work / "image/seal"
            for path, text in {SEAL_PATH: json.dumps(seal, indent=1), **proof.above(order)}.items():
                place = tree / path.lstrip("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                write(place, text)
            proof.add(host, tree, order)
            proof.like_below(host, tree, order["layers"])
            write(work / "image" / about.name, json.dumps({**order, **seal}))
            remove(about.parent)  # what a kill left, before images came in one step
            (work / "image").rename(about.parent)
            sync_directory(host.images)
    layers.link(host, images.seal_link(digest), f"../images/{digest}/seal")
    return find_image(host, digest)


def find_image(host: Host, digest: str) -> dict[str, Any]:
    """Return what an image is made of, with ``above``: what is to be signed, and ``proof`` where it is."""
    return {**images.read(host, digest), "above": verify.above(host, digest), "proof": verify.proof(host, digest)}


def has_image(host: Host, digest: str) -> bool:
    """Tell whether an image is on this host, with its seal, all of its layers and what vouches for it."""
    if not images.file(host, digest).exists() or not (host.l / images.seal_link(digest)).exists():
        return False
    layers_ = images.read(host, digest)["layers"]
    there = all((host.layers / layer / "layer.json").exists() for layer in layers_)
    return there and verify.proof(host, digest) is not None


def keep_proof(host: Host, digest: str, proof: Mapping[str, Any]) -> None:
    """Put beside an image what vouches for it: its signature, and where it comes from."""
    verify.keep_proof(host, digest, proof)


def verify_image(host: Host, digest: str, trusted: Sequence[str]) -> dict[str, Any]:
    """Read all of an image; raise unless it is as one of ``trusted`` signed it."""
    return verify.image(host, digest, trusted)


def _require_directories(host: Host, order: Mapping[str, Any]) -> None:
    """Raise unless the image has each directory that its machines may write to: they could not mount it."""
    stack = layers.lower(order["layers"])
    for path in order["policy"]["writable"]:
        if not path.startswith("/var/") and not overlay.has_directory(host.l, stack, path):
            raise CommandExecutionError(
                f"writable: {path} is no directory of this image of {order['recipe']}; let its states make it "
                "(file.directory), and name it by no link"
            )


def local_images(host: Host) -> dict[str, dict[str, Any]]:
    """Return the images whose layers are on this host, by digest."""
    return images.every(host)


def drop_image(host: Host, digest: str, test: bool = False) -> list[str]:
    """Remove an image and those of its layers that nothing else needs, and return their digests.

    With ``test`` only raise if machines run it.
    """
    about, seal = images.file(host, digest), images.seal_link(digest)
    users = [each.minion_id for each in machines.machines(host) if seal in each.lower]
    if users:
        raise CommandExecutionError(f"machines run this image: {', '.join(users)}")
    if test or not about.exists():
        return []
    stack = images.read(host, digest)["layers"]
    with host.lock("layers"):
        (host.l / seal).unlink(missing_ok=True)
        host.set_aside(about.parent)
    return layers.drop(host, stack)


def sweep(host: Host) -> list[str]:
    """Remove what killed bakes left: machines, then workspaces. Return their names."""
    host.prepare()
    places = host.abandoned()
    for place in places:
        _end_processes(host, place)
        for each in machines.machines(host):
            if any(Path(shown).is_relative_to(place) for shown in (each.upper, *each.binds.values()) if shown):
                machines.destroy(host, each.minion_id)
        remove(place)
    return [place.name for place in places]


@contextmanager
def _work(host: Host) -> Iterator[Path]:
    sweep(host)
    with host.workspace() as place:
        try:
            yield place
        finally:
            _end_processes(host, place)


def processes(host: Host, place: Path) -> Cgroup:
    """Return the cgroup of what works in a workspace outside of any machine: so that it can be found and ended."""
    return Cgroup(f"{host.tag}-work-{place.name}")


def _end_processes(host: Host, place: Path) -> None:
    processes(host, place).kill()
    processes(host, place).remove()


@contextmanager
def _on(host: Host, below: list[str]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Give a workspace whose ``fs`` is the difference to the layers ``below``."""
    with _work(host) as place:
        verify.require_layers(host, below)
        (place / "fs").mkdir(mode=0o755)
        mirrors.lend_resolver(place / "fs")
        yield place, layers.lower(below)


def _commit(
    host: Host,
    place: Path,
    phases: dict[str, float],
    order: Mapping[str, Any],
    marked: Sequence[secrets.Secret] = (),
    address: str | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Make the workspace a layer, without what does not belong in one; return it with its warnings.

    ``phases``: what took how long so far, as `recorded` gives it. ``marked``: what must not be in it. ``address``: of
    the machine that made it.
    """
    tree, lower = place / "fs", [host.l / name for name in layers.lower(list(order.get("below", ())))]
    with phase("slim"):
        slimmed = slim.slim(tree, order.get("slim"), lower)
    with phase("scrub"):
        scrub.scrub(tree)
        mirrors.take_resolver_back(tree)
    with phase("search"):
        found = search(tree, {**secrets.looks(marked), **leftovers.looks(order.get("bake_id"), address)})
        leftovers.refuse(tree, found)
        warnings = [*secrets.warnings(found, marked), *leftovers.warnings(found)]
    about["private_keys"] = found.get(leftovers.KEYS, [])
    about |= {"what": order["what"], "slim": slimmed, "phases": dict(phases), "seconds": round(sum(phases.values()), 3)}
    with phase("commit"):
        layer = layers.commit(host, place, **about)
    return asdict(replace(layer, phases=dict(phases), warnings=warnings))

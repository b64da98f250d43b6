"""The commands of a builder. Arguments and answers are plain data.

The master calls them in its own process if it is the builder, otherwise as Salt jobs through `_modules/image.py`. An
``order`` is a mapping; each docstring names its keys.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import mirrors, updates
from saltext.immutable.builder.finish import leftovers, private_keys, scrub, secrets, slim
from saltext.immutable.builder.finish.search import search
from saltext.immutable.builder.image_tests import run
from saltext.immutable.builder.phases import phase, timed
from saltext.immutable.builder.sandbox import sandbox
from saltext.immutable.builder.sources import debian, minion, roots
from saltext.immutable.builder.states import kept, state_run
from saltext.immutable.drift.running.services import programs
from saltext.immutable.guard.seal import SEAL_PATH
from saltext.immutable.host import Host, remove, sync_directory, write
from saltext.immutable.images import compare, layers, manifest, seal_layer, verify, writable_places
from saltext.immutable.machines import images, overlay
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.cgroup import Cgroup


def find_layer(host: Host, key: str) -> dict[str, Any] | None:
    """Return the layer that was built last for ``key``, or None. Of a damaged one, ``digest`` and ``damaged``: why."""
    digest = layers.digest_of(host, key)
    if digest and (wrong := layers.damage(host, digest)):
        return {"digest": digest, "damaged": wrong}
    found = layers.find(host, key)
    return asdict(found) if found else None


def keep_layer(
    host: Host, key: str, digest: str, warnings: Sequence[str] = (), about: Mapping[str, Any] | None = None
) -> None:
    """Record that ``key`` leads to the layer ``digest``.

    ``warnings``: sentences for the operator. ``about``: metadata that depends on the layers below, too.
    """
    layers.set_key(host, key, digest, warnings, about)


def make_key(host: Host, bake_id: str, master_key: str) -> str:
    """Make the key pair of a bake and return its public half (PEM). The private half never leaves this host."""
    host.prepare()
    return state_run.make_key(host, bake_id, master_key)


def debian_layer(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Make the root layer of a Debian or Ubuntu image. ``order``: what, suite, packages, components, mirror."""
    with timed() as seconds, _workspace(host) as workspace:
        with phase("packages"):
            debian.build(host, workspace, workspace_cgroup(host, workspace), order)
        packages = debian.installed(workspace / "fs/var/lib/dpkg/status")
        return _commit(host, workspace, seconds, order, packages=packages)


def root_content(host: Host, order: Mapping[str, Any]) -> str:
    """Return the hash of an existing root as it is now. ``order``: the path as tarball or directory."""
    return roots.content(host, order)


def root_layer(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Make the lowest layer from an existing root. ``order``: what, the path as tarball or directory, sha256."""
    with timed() as seconds, _workspace(host) as workspace:
        with phase("root"):
            warnings = roots.build(host, workspace, workspace_cgroup(host, workspace), order)
        packages = roots.packages(workspace / "fs")
        layer = _commit(host, workspace, seconds, order, packages=packages)
        return {**layer, "warnings": [*warnings, *layer["warnings"]]}


def minion_layer(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Install Salt and this pack. ``order``: what, below, requirement, version, bridge, subnet."""
    with timed() as seconds, _workspace_on(host, order["below"]) as (workspace, lower):
        with phase("minion"):
            grains = minion.build(host, workspace, order, lower)
            minion.finish(workspace / "fs")
        packages = _packages(host, order["below"])
        return _commit(host, workspace, seconds, order, packages=packages, grains=grains)


def state_layer(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Apply states in a machine and return the layer of what they changed, or only the tests if one of them failed.

    ``order``: what, below, and the keys that `state_run.prepare` and `state_run.apply` name.
    """
    with ExitStack() as undo:
        # A job whose master was killed may still run under this id; it ends within its own time limit.
        undo.enter_context(host.lock(f"bake-{order['bake_id']}", wait=order["within"]))
        undo.callback(remove, host.pki / order["bake_id"])
        seconds = undo.enter_context(timed())
        workspace, lower = undo.enter_context(_workspace_on(host, order["below"]))
        machines.destroy(host, order["bake_id"])  # left by a bake that was killed
        with ExitStack() as running:
            with phase("prepare"):
                mirrors.prefetch()
                description = state_run.prepare(host, workspace, order, lower)
                machine = running.enter_context(machines.temporary(host, description))
                if machine.boot:
                    machines.wait_booted(machine)
                grains = state_run.sync(machine, order) if order["sync"] else order["grains"]
                secret_values = secrets.read(machine, order)
            with phase("states"), secrets.redacted(secret_values), kept.if_failed(machine, order, secret_values):
                sls, chroot_warnings = state_run.apply(machine, order)
            with phase("inside tests"):
                lines = state_run.trace(machine)
                deferred = state_run.deferred(machine, lines)
                services, idle = state_run.services(machine, lines, order.get("running", ()))
                results = run.run_inside(machine, order, secret_values)
                trace = state_run.trace(machine)
            if not all(result["passed"] for result in results):
                return {"tests": results}
            if machine.boot:
                with phase("stop"):
                    state_run.stop(machine)
        status = workspace / "fs/var/lib/dpkg/status"
        packages = debian.installed(status) if status.is_file() else _packages(host, order["below"])
        state_run.finish(workspace / "fs")
        about: dict[str, Any] = {"packages": packages, "grains": grains, "sls": sls, "tests": results}
        about |= {"deferred": deferred, "services": services, "address": machine.address}
        layer = _commit(host, workspace, seconds, order, secret_values, writers=state_run.writers(lines), **about)
        layer["warnings"] = [*layer["warnings"], *chroot_warnings, *idle]
        return {**layer, "trace": trace}


def apply_again(host: Host, order: Mapping[str, Any]) -> dict[str, str]:
    """Apply states to the layers that they made, as a dry run; return those that would change something.

    Returned: name -> comment. ``order``: as for `state_layer`, but ``below`` has the layer of the states too, and
    ``left`` the names of the states that left something to the boot.
    """
    with ExitStack() as undo:
        undo.enter_context(host.lock(f"bake-{order['bake_id']}", wait=order["within"]))
        undo.callback(remove, host.pki / order["bake_id"])
        workspace, lower = undo.enter_context(_workspace_on(host, order["below"]))
        machines.destroy(host, order["bake_id"])  # left by a bake that was killed
        machine = undo.enter_context(machines.temporary(host, state_run.prepare(host, workspace, order, lower)))
        if machine.boot:
            machines.wait_booted(machine)
        if order["sync"]:
            state_run.sync(machine, order)
        secret_values = secrets.read(machine, order)
        with secrets.redacted(secret_values):
            found = state_run.apply_again(machine, order, order["left"])
        return dict([secrets.redact(text, secret_values) for text in each] for each in found.items())


_Answer = TypeVar("_Answer")
_ID = re.compile(rb'"[gu]id":(\d+)')


def candidates(host: Host, order: Mapping[str, Any]) -> dict[str, str]:
    """Return the version of each package of a stack that apt would install today. ``order``: below, bridge, subnet."""
    return _query_apt(host, order, updates.candidates)


def pending_updates(host: Host, order: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the packages of a stack that have updates, as `updates.pending` does. ``order`` as in `candidates`."""
    return _query_apt(host, order, updates.pending)


def _query_apt(host: Host, order: Mapping[str, Any], query: Callable[..., dict[str, _Answer]]) -> dict[str, _Answer]:
    """Call ``query`` with a machine that runs on a stack of layers, and the packages of that stack."""
    with ExitStack() as undo:
        workspace, lower = undo.enter_context(_workspace_on(host, order["below"]))
        description = sandbox(workspace, order, lower, files=mirrors.apt_config(workspace))
        machine = undo.enter_context(machines.temporary(host, description))
        return query(machine, _packages(host, order["below"]))


def _packages(host: Host, below: Sequence[str]) -> dict[str, str]:
    """Return the Debian packages of a stack of layers: name:arch -> version."""
    return debian.installed(overlay.top_file(host.l, layers.short_names(list(below)), "var/lib/dpkg/status"))


def make_image(host: Host, order: Mapping[str, Any], trusted: Sequence[str] = ()) -> dict[str, Any]:
    """Make an image from finished layers and return it as `find_image` does. Idempotent.

    One that is damaged, or has an invalid signature of a key that is ``trusted``, is set aside and made again.

    ``order``: recipe, layers, read_only, grains, policy, salt, pack. Seal and grains are a layer of their own on top of
    the others, so the seal can hold the digest of the image without being part of it. Raises CommandExecutionError
    where a layer is missing or damaged, and where a writable directory of the policy is not in the image.
    """
    digest = manifest.image_digest(order)
    images.require_layers(host, order["layers"])
    _require_directories(host, order)
    about = images.metadata_file(host, digest)
    damaged = about.parent.exists() and verify.damage_of_image(host, digest, trusted)
    if damaged or not about.exists():
        verify.require_layers(host, order["layers"])
        seal = {name: order[name] for name in ("recipe", "read_only", "policy", "salt", "pack")}
        seal |= {"image": digest, "created": time.time()}
        with host.workspace() as work:
            tree = work / "image/seal"
            for path, text in {SEAL_PATH: json.dumps(seal, indent=1), **seal_layer.derived_files(order)}.items():
                file = tree / path.lstrip("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                write(file, text)
            seal_layer.add_manifests(host, tree, order)
            seal_layer.copy_folder_metadata(host, tree, order["layers"])
            texts = list(compare.manifests(host, order["layers"]))
            known = {"warnings": _stopped_programs(host, order, texts), "highest_id": _highest_id(texts)}
            write(work / "image" / about.name, json.dumps({**order, **seal, **known}))
            if about.parent.exists():
                images.set_aside(host, about.parent)  # machines may run on its seal
            (work / "image").rename(about.parent)
            sync_directory(host.images)
    layers.make_link(host, images.seal_link(digest), images.seal_target(digest))
    return find_image(host, digest)


def find_image(host: Host, digest: str) -> dict[str, Any]:
    """Return the metadata of an image.

    It also has ``above``, the manifest of the seal layer, and ``proof``: signature and provenance, or None.
    """
    seal = verify.seal_manifest(host, digest)
    return {**images.read(host, digest), "above": seal, "proof": verify.read_proof(host, digest)}


def has_image(host: Host, digest: str, trusted: Sequence[str] | None = None) -> bool:
    """Return whether an image is on this host with its seal and all of its layers, undamaged, and signed.

    ``trusted``: the public keys (base64) whose signatures count; None: the signature is not verified.
    """
    try:
        verify.require(host, digest, trusted)
        return (host.l / images.seal_link(digest)).exists() and verify.read_proof(host, digest) is not None
    except CommandExecutionError:
        return False


def keep_proof(host: Host, digest: str, proof: Mapping[str, Any]) -> None:
    """Store the signature and the provenance of an image beside it."""
    verify.keep_proof(host, digest, proof)


def verify_image(host: Host, digest: str, trusted: Sequence[str]) -> dict[str, Any]:
    """Read an image in full.

    Raises CommandExecutionError unless it is as one of the public keys ``trusted`` signed it.
    """
    return verify.image(host, digest, trusted)


def _require_directories(host: Host, order: Mapping[str, Any]) -> None:
    """Raise where a directory of the policy is not in the image: machines could not mount it."""
    stack = layers.short_names(order["layers"])
    for path in writable_places.folders(order["policy"]):
        if overlay.top_directory(host.l, stack, path) is None:
            key = "writable" if path in order["policy"]["writable"] else "exec"
            raise CommandExecutionError(
                f"{key}: {path} is no directory of the image, or lies behind a symbolic link; let a state of recipe "
                f"{order['recipe']} make it (file.directory)"
            )


def _highest_id(manifests: Sequence[bytes]) -> int:
    """Return the highest id of a user or a group that a file of these manifests belongs to."""
    return max((int(found) for text in manifests for found in set(_ID.findall(text))), default=0)


def _stopped_programs(host: Host, order: Mapping[str, Any], manifests: Sequence[bytes]) -> list[str]:
    """Return a sentence for each program of an image that its machines would not run."""
    if not writable_places.are_restricted(order["policy"], order["read_only"]):
        return []
    files = compare.files_in(manifests, writable_places.concerned(order["policy"]))
    stack = layers.short_names(order["layers"])
    found = []
    for path in writable_places.unit_files(files):
        if file := overlay.top_file(host.l, stack, path):
            found += [(file.name, program) for program in programs(file.read_text(errors="replace"))]
    return writable_places.warnings(order["policy"], files, found)


def local_images(host: Host) -> dict[str, dict[str, Any]]:
    """Return the metadata of all images of this host, by digest."""
    return images.by_digest(host)


def drop_image(host: Host, digest: str, test: bool = False) -> list[str]:
    """Remove an image and those of its layers that nothing else needs; return the digests of these layers.

    ``test``: remove nothing. Raises CommandExecutionError while machines run the image.
    """
    about, seal = images.metadata_file(host, digest), images.seal_link(digest)
    users = [each.minion_id for each in machines.machines(host) if seal in each.lower]
    if users:
        raise CommandExecutionError(
            f"image {digest[:12]} is in use: machines run it: {', '.join(users)}; roll their fleet to another one first"
        )
    if test or not about.exists():
        return []
    stack = images.by_digest(host).get(digest, {"layers": []})["layers"]  # of one that cannot be read, prune finds them
    with host.lock("layers"):
        (host.l / seal).unlink(missing_ok=True)
        host.set_aside(about.parent)
    return layers.drop(host, stack)


def sweep(host: Host) -> list[str]:
    """Mend short links, and remove what killed bakes left: processes, machines, workspaces.

    Returns the names of the workspaces.
    """
    host.prepare()
    layers.mend_links(host)
    workspaces = host.abandoned()
    for workspace in workspaces:
        _end_processes(host, workspace)
        for machine in machines.machines(host):
            if any(Path(path).is_relative_to(workspace) for path in (machine.upper, *machine.binds.values()) if path):
                machines.destroy(host, machine.minion_id)
        remove(workspace)
    return [workspace.name for workspace in workspaces]


@contextmanager
def _workspace(host: Host) -> Iterator[Path]:
    """Give a workspace, after a `sweep`; at the end kill the processes of its cgroup."""
    sweep(host)
    with host.workspace() as workspace:
        try:
            yield workspace
        finally:
            _end_processes(host, workspace)


def workspace_cgroup(host: Host, workspace: Path) -> Cgroup:
    """Return the cgroup of processes that work in a workspace outside of any machine, so that they can be killed."""
    return Cgroup(f"{host.tag}-work-{workspace.name}")


def _end_processes(host: Host, workspace: Path) -> None:
    workspace_cgroup(host, workspace).kill()
    workspace_cgroup(host, workspace).remove()


@contextmanager
def _workspace_on(host: Host, below: list[str]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Give a workspace whose folder ``fs`` takes changes to the layers ``below``, and the short names of these."""
    with _workspace(host) as workspace:
        verify.require_layers(host, below)
        (workspace / "fs").mkdir(mode=0o755)
        mirrors.write_resolv_conf(workspace / "fs")
        yield workspace, layers.short_names(below)


def _commit(
    host: Host,
    workspace: Path,
    phases: dict[str, float],
    order: Mapping[str, Any],
    secret_values: Sequence[secrets.Secret] = (),
    address: str | None = None,
    writers: Mapping[str, str] = MappingProxyType({}),
    **about: Any,
) -> dict[str, Any]:
    """Slim, scrub and search the tree of a workspace, then commit it as a layer; return the layer.

    ``order``: what, and what `layers.commit`, `slim` and `leftovers` take: instead_of, slim, bake_id, bake_identity.
    ``phases``: seconds of each phase so far, as `timed` gives them. ``secret_values``: warn of files that hold one.
    ``address``: that of the machine in which the states ran. ``writers``: path to state of the files that states wrote.
    ``about``: metadata of the layer.
    """
    tree, lower = workspace / "fs", [host.l / name for name in layers.short_names(list(order.get("below", ())))]
    with phase("slim"):
        slimmed = slim.slim(tree, order.get("slim"), lower)
    with phase("scrub"):
        scrub.scrub(tree)
        mirrors.remove_resolv_conf(tree)
    with phase("search"):
        found = search(tree, {**secrets.patterns(secret_values), **leftovers.patterns(order.get("bake_id"), address)})
        leftovers.refuse(tree, found)
        warnings = [*secrets.warnings(found, secret_values)]
        warnings += leftovers.warnings(found, writers, order.get("bake_identity", ()))
    about["private_keys"] = found.get(private_keys.KIND, [])
    about |= {"what": order["what"], "slim": slimmed, "phases": dict(phases), "seconds": round(sum(phases.values()), 3)}
    with phase("commit"):
        layer = layers.commit(host, workspace, order.get("instead_of", ()), **about)
    return asdict(replace(layer, phases=dict(phases), warnings=warnings))

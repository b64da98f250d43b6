"""The commands of a builder. Arguments and answers are plain data.

The master calls them in its own process if it is the builder, otherwise as Salt jobs through `_modules/image.py`. An
``order`` is a mapping; each docstring names its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from saltext.immutable import rpm
from saltext.immutable.builder import mirrors, phases, updates
from saltext.immutable.builder.finish import leftovers, private_keys, scrub, secrets, slim
from saltext.immutable.builder.finish.search import search
from saltext.immutable.builder.image_tests import run
from saltext.immutable.builder.phases import phase, timed
from saltext.immutable.builder.sandbox import sandbox
from saltext.immutable.builder.sources import debian, disk, minion, oci, roots
from saltext.immutable.builder.states import keep_failed, state_run
from saltext.immutable.builder.vm import bake as vm_bake
from saltext.immutable.builder.vm import disks
from saltext.immutable.host import Host, remove
from saltext.immutable.images import layers, verify
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines import overlay, qemu
from saltext.immutable.machines.cgroup import Cgroup
from saltext.immutable.machines.description import Machine

_BOOTS_WITHIN, _VM_BOOTS_WITHIN = 120.0, 600.0
_STOPS_WITHIN, _EMULATED_STOPS_WITHIN = 90.0, 900.0
"""Seconds. Without KVM a machine with a kernel of its own boots in minutes, and takes ten times as long for all."""


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
    """Return the hash of an existing root as it is now. ``order``: the path as tarball, directory or disk."""
    return disk.content(order) if "disk" in order else roots.content(host, order)


def root_layer(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Make the lowest layer from an existing root.

    ``order``: what, the path as tarball, directory or disk, sha256, of a disk also partition.
    """
    source = disk if "disk" in order else roots
    with timed() as seconds, _workspace(host) as workspace:
        with phase("root"):
            warnings = source.build(host, workspace, workspace_cgroup(host, workspace), order)
        packages = roots.packages(rpm.within(workspace / "fs"))
        layer = _commit(host, workspace, seconds, order, packages=packages)
        return {**layer, "warnings": [*warnings, *layer["warnings"]]}


def oci_content(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an OCI image has now: ``image`` and ``layers``. ``order``: oci, insecure, offline."""
    host.prepare()
    return oci.content(host, order)


def oci_layer(host: Host, order: Mapping[str, Any]) -> dict[str, Any]:
    """Make a layer from one of an OCI image. ``order``: what, below, oci, insecure, image, layers, number."""
    with timed() as seconds, _workspace(host) as workspace:
        verify.require_layers(host, order["below"])
        lower = layers.short_names(order["below"])
        with phase("root"):
            warnings = oci.build(host, workspace, workspace_cgroup(host, workspace), order, lower)
        packages = _packages_with(host, workspace, order["below"])
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

    ``order``: what, below, and the keys that `state_run.prepare` and `state_run.apply` name. The layer has ``pinned``:
    whether the machine that bakes asked for the tree under the names of ``pins``.
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
                machine = running.enter_context(_launched(host, workspace, order, lower))
                order = _with_pins(machine, order)
                grains = state_run.sync(machine, order) if order["sync"] else order["grains"]
                secret_values = secrets.read(machine, order)
            kept_if_failed = keep_failed.if_failed(machine, order, secret_values)
            noting = state_run.noting_secrets(machine, secret_values)
            with phase("states"), secrets.redacted(secret_values), kept_if_failed, noting:
                sls, chroot_warnings = state_run.apply(machine, order)
            with phase("inside tests"):
                lines = state_run.trace(machine)
                deferred = state_run.deferred(machine, lines)
                services, idle = state_run.services(machine, lines, order.get("running", ()))
                idle += state_run.lost(machine, lines)
                results = run.run_inside(machine, order, secret_values)
                trace = state_run.trace(machine)
                machine_id = machine.run(["cat", "/etc/machine-id"]).stdout.strip()
            if not all(result["passed"] for result in results):
                return {"tests": results}
            if machine.boot:
                with phase("stop"):
                    state_run.stop(machine, _EMULATED_STOPS_WITHIN if machine.emulated else _STOPS_WITHIN)
            if machine.vm is not None:
                vm_bake.require_shut_down(machines.console(host, order["bake_id"]))
        if machine.vm is not None:
            with phase("take changes"):
                disks.take_changes(workspace, workspace_cgroup(host, workspace))
        packages = _packages_with(host, workspace, order["below"])
        state_run.finish(workspace / "fs")
        about: dict[str, Any] = {"packages": packages, "grains": grains, "sls": sls, "tests": results}
        about |= {"deferred": deferred, "services": services, "address": machine.address, "machine_id": machine_id}
        layer = _commit(host, workspace, seconds, order, secret_values, writers=state_run.writers(lines), **about)
        layer["warnings"] = [*layer["warnings"], *chroot_warnings, *idle, *state_run.unanswered(lines)]
        return {**layer, "trace": trace, "pinned": bool(order["pins"])}


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
        machine = undo.enter_context(_launched(host, workspace, order, lower))
        order = _with_pins(machine, order)
        if order["sync"]:
            state_run.sync(machine, order)
        secret_values = secrets.read(machine, order)
        with secrets.redacted(secret_values), state_run.noting_secrets(machine, secret_values):
            found = state_run.apply_again(machine, order, order["left"])
        return dict([secrets.redact(text, secret_values) for text in each] for each in found.items())


def _with_pins(machine: Machine, order: Mapping[str, Any]) -> Mapping[str, Any]:
    pins = order.get("pins") or {}
    return {**order, "pins": pins if pins and state_run.can_pin(machine) else {}}


@contextmanager
def _launched(host: Host, workspace: Path, order: Mapping[str, Any], lower: tuple[str, ...]) -> Iterator[Machine]:
    """Give the machine in which the states of an order are applied, once it has booted."""
    description = state_run.prepare(host, workspace, order, lower)
    if order.get("vm"):
        description = vm_bake.prepare(host, workspace, order, description)
    with machines.temporary(host, description) as machine:
        if machine.emulated:
            phases.say(qemu.EMULATED.format(machine.emulated))
        if machine.boot:
            machines.wait_booted(machine, _VM_BOOTS_WITHIN if machine.vm else _BOOTS_WITHIN)
        yield machine


_Answer = TypeVar("_Answer")


def candidates(host: Host, order: Mapping[str, Any]) -> dict[str, str]:
    """Return the version of each package of a stack that apt or dnf would install today.

    ``order``: below, bridge, subnet.
    """
    return _query_mirrors(host, order, updates.candidates)


def pending_updates(host: Host, order: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the packages of a stack that have updates, as `updates.pending` does. ``order`` as in `candidates`."""
    return _query_mirrors(host, order, updates.pending)


def _query_mirrors(
    host: Host, order: Mapping[str, Any], query: Callable[..., dict[str, _Answer]]
) -> dict[str, _Answer]:
    """Call ``query`` with a machine that runs on a stack of layers, and the packages of that stack."""
    with ExitStack() as undo:
        workspace, lower = undo.enter_context(_workspace_on(host, order["below"]))
        description = sandbox(workspace, order, lower, files=mirrors.apt_config(workspace))
        machine = undo.enter_context(machines.temporary(host, description))
        return query(machine, _packages(host, order["below"]))


def _packages_with(host: Host, workspace: Path, below: Sequence[str]) -> dict[str, str]:
    """Return the packages of a stack of layers with the tree of a workspace on top."""
    own, lower = rpm.within(workspace / "fs"), _files_of(host, below)
    return roots.packages(lambda path: own(path) or lower(path))


def _packages(host: Host, below: Sequence[str]) -> dict[str, str]:
    """Return the packages of a stack of layers: name:arch -> version."""
    return roots.packages(_files_of(host, below))


def _files_of(host: Host, below: Sequence[str]) -> rpm.Find:
    return partial(overlay.top_file, host.l, layers.short_names(list(below)))


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
    machine_id: str | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Slim, scrub and search the tree of a workspace, then commit it as a layer; return the layer.

    ``order``: what, and what `layers.commit`, `slim` and `leftovers` take: instead_of, slim, bake_id, bake_identity.
    ``phases``: seconds of each phase so far, as `timed` gives them. ``secret_values``: warn of files that hold one.
    ``address``, ``machine_id``: of the machine in which the states ran. ``writers``: path to state of the files that
    states wrote. ``about``: metadata of the layer.
    """
    tree, lower = workspace / "fs", [host.l / name for name in layers.short_names(list(order.get("below", ())))]
    written = leftovers.written(tree, writers)
    with phase("slim"):
        slimmed = slim.slim(tree, order.get("slim"), lower)
    with phase("scrub"):
        allowed = order.get("bake_identity", ())
        own = leftovers.of_each_machine(tree, writers, allowed) if address else []
        scrub.scrub(tree)
        mirrors.remove_resolv_conf(tree)
    with phase("search"):
        identity = leftovers.patterns(order.get("bake_id"), address, machine_id)
        found = search(tree, {**secrets.patterns(secret_values), **identity})
        leftovers.refuse(tree, found)
        warnings = [*secrets.warnings(found, secret_values)]
        warnings += [*leftovers.warnings(found, writers, allowed), *own]
        warnings += leftovers.removed(tree, written, writers)
    about["private_keys"] = found.get(private_keys.KIND, [])
    about |= {"what": order["what"], "slim": slimmed, "phases": dict(phases), "seconds": round(sum(phases.values()), 3)}
    with phase("commit"):
        layer = layers.commit(host, workspace, order.get("instead_of", ()), **about)
    return asdict(replace(layer, phases=dict(phases), warnings=warnings))

"""Machines of this host: launch, list, destroy.

The folder of a machine holds its description. Whether it runs, only the kernel knows.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.guard.seal import MACHINE_PATH
from saltext.immutable.host import Host, this_boot, write
from saltext.immutable.machines import consoles, images, network, nspawn, overlay, qemu, user_namespace
from saltext.immutable.machines.description import Machine
from saltext.immutable.spec import reading

_NO_KVM = "no-kvm"
"""In the cache: why this host cannot use KVM."""


def launch(host: Host, order: Machine) -> Machine:
    """Start a machine and return its description. A running machine of the same id is left alone and returned.

    Raises CommandExecutionError where it does not start.
    """
    overlay.refuse_unstackable(host.root)
    with host.lock(_lock_name(order.minion_id)):
        existing = find(host, order.minion_id)
        if existing is not None and existing.running:
            return existing
        if existing is not None:
            _destroy(host, existing)
        return _launch(host, order)


def _lock_name(minion_id: str) -> str:
    """Return the name of a machine's lock, one of 16: lock files are never removed, so there must be few."""
    return f"machine-{zlib.crc32(minion_id.encode()) % 16:x}"


def _launch(host: Host, order: Machine) -> Machine:
    try:
        return _start(host, _record(host, order))
    except BaseException:
        # Ctrl-C may come just after the record was written.
        if (recorded := find(host, order.minion_id)) is not None:
            _destroy(host, recorded)
        raise


def start_again(host: Host, minion_id: str) -> bool:
    """Start a machine that has stopped, with its id, key, address and ``/var``; return whether it had stopped.

    Raises CommandExecutionError where it does not start. One whose launch never ended is left to its fleet.
    """
    with host.lock(_lock_name(minion_id)):
        machine = find(host, minion_id)
        if machine is None or not machine.started or machine.running:
            return False
        machine.cgroup.kill()
        machine.cgroup.remove()
        nspawn.remove_runtime_files(machine.name)
        with host.lock("network"):
            network.up(machine.network)
            _disconnect(machine)
            machine = _write(host, replace(machine, link=_new_link(), since=time.time()))
            _connect(machine)
        _start(host, machine)
    return True


def _start(host: Host, machine: Machine) -> Machine:
    if machine.vm is not None:
        network.add_tap(machine.network, machine.link, machine.between)
        console = _folder(host, machine.minion_id) / consoles.FILE
        why = qemu.start(machine.vm, machine.cgroup, _link(machine), console, host.cache / _NO_KVM)
        machine = replace(machine, emulated=why)
    else:
        nspawn.start(_container(host, machine))
    return _write(host, replace(machine, started=True, boot_id=this_boot()))


def _link(machine: Machine) -> qemu.Link:
    gateway = network.gateway(machine.network) if machine.route else ""
    hardware = network.hardware_address(machine.address)
    return qemu.Link(machine.link, hardware, machine.address, network.netmask(machine.network), gateway)


def _record(host: Host, order: Machine) -> Machine:
    """Give the machine an address and write its record, before anything else of it exists."""
    with host.lock("network"):
        network.up(order.network)
        address = network.free_address(order.network, [each.address for each in machines(host)])
        with host.lock("layers"):  # once the record is written, its layers are not removed
            images.require_links(host, order.lower)
            own = _ids(host, order)
            machine = replace(order, tag=host.tag, address=address, link=_new_link(), born=time.time(), **own)
            _write(host, machine)
        _connect(machine)
        return machine


def _new_link() -> str:
    """Return a name for the host's end of a link: random, because the kernel removes old links asynchronously."""
    return f"im{secrets.token_hex(5)}"


def _connect(machine: Machine) -> None:
    """Write the rules of a machine's network link."""
    network.confine(machine.network, machine.address, machine.link, machine.ports, machine.between)
    if not machine.ids:
        network.bind(machine.network, machine.address, machine.link)


def _disconnect(machine: Machine) -> None:
    """Remove a machine's network link and its rules."""
    network.release(machine.network, machine.link)
    if not machine.ids:
        network.unbind(machine.link)
    network.delete_link(machine.link)


def _ids(host: Host, order: Machine) -> dict[str, Any]:
    """Return the user ids of a machine, or why it has none of its own. A bake writes files for any machine, as root."""
    if order.upper is not None:
        return {"shares_ids": "it bakes"}
    if order.binds:
        return {"shares_ids": "folders of the host are mounted in it"}
    if order.shares_ids:
        return {}
    if order.capabilities:
        return {"shares_ids": f"its fleet asks for {', '.join(order.capabilities)}"}
    if why := user_namespace.impossible(host.layers):
        return {"shares_ids": why}
    return {"ids": user_namespace.free({each.ids for each in machines(host)})}


def _write(host: Host, machine: Machine) -> Machine:
    folder = _folder(host, machine.minion_id)
    folder.mkdir(exist_ok=True)
    write(folder / "machine.json", json.dumps(asdict(machine)))
    return machine


def _folder(host: Host, minion_id: str) -> Path:
    """Return the folder of a machine. Raise SaltInvocationError for an id that is no valid file name."""
    try:
        return host.machines / reading.minion_id(minion_id)
    except ValueError as err:
        raise SaltInvocationError(f"minion_id: {err}") from err


def alive(host: Host, machine: Machine) -> bool:
    """Return whether a machine runs or is being started."""
    return machine.running or (not machine.started and host.is_locked(_lock_name(machine.minion_id)))


def _container(host: Host, machine: Machine) -> nspawn.Container:
    folder = host.machines / machine.minion_id
    upper = Path(machine.upper) if machine.upper else None if machine.read_only else folder / "upper"
    work = upper.with_name("work") if upper else None
    overlays = _overlays(folder, machine) if machine.read_only else {}
    for path in filter(None, (folder / "root", work)):
        path.mkdir(exist_ok=True)
    for inside, changes in ({"/": upper} if upper else overlays).items():
        _make_upper(host, machine, inside, changes)
    return nspawn.Container(
        name=machine.name,
        launched=f"{machine.minion_id} {machine.born}",
        hostname=machine.minion_id.split(".")[0][:63],
        cgroup=machine.cgroup,
        root=folder / "root",
        layers=host.l,
        # A bake that crashes starts again, and one that succeeds syncs its files in the commit.
        options=overlay.options(machine.lower, upper, work, volatile=machine.upper is not None),
        link=machine.link,
        address=machine.address,
        network=machine.network,
        console=folder / consoles.FILE,
        writable=not machine.read_only,
        overlays=overlays,
        files=_files(host, machine),
        binds={target: Path(source) for target, source in machine.binds.items()},
        boot=machine.boot,
        route=machine.route,
        lower=machine.lower,
        ids=machine.ids,
        between=machine.between,
        capabilities=machine.capabilities,
    )


def _make_upper(host: Host, machine: Machine, inside: str, changes: Path) -> None:
    """Make the folder for the changes to a directory of the image. It gives that directory its owner and mode."""
    if changes.exists():
        return
    changes.mkdir()
    if (original := overlay.top_directory(host.l, machine.lower, inside)) is None:
        return
    image = original.stat()
    os.chown(changes, machine.ids + image.st_uid, machine.ids + image.st_gid)
    changes.chmod(stat.S_IMODE(image.st_mode))


def _overlays(folder: Path, machine: Machine) -> dict[str, Path]:
    """Return the writable directories of a read-only root: path inside -> folder for the changes."""
    others = [path for path in machine.writable if not f"{path}/".startswith("/var/")]
    return {"/var": folder / "var"} | {path: folder / f"writable-{number}" for number, path in enumerate(others)}


def _files(host: Host, machine: Machine) -> dict[str, Path]:
    """Write the files of this machine alone; return all files to mount: path inside -> path on this host.

    A machine that bakes gets its minion config only: what its states write to /etc/hosts belongs to the image.
    """
    folder = host.machines / machine.minion_id
    texts = {str(MACHINE_PATH): json.dumps(machine.minion, indent=1)}
    if machine.upper is None:
        own = f"{machine.address} {machine.minion_id} {machine.minion_id.split('.')[0]}\n"
        texts["/etc/hosts"] = _text(host, machine, "/etc/hosts") + own
        if not _text(host, machine, "/etc/resolv.conf"):
            texts["/etc/resolv.conf"] = network.resolv_conf()
    for target, text in texts.items():
        write(folder / Path(target).name, text)
        os.chown(folder / Path(target).name, machine.ids, machine.ids)
    given = {target: Path(source) for target, source in machine.files.items()}
    return {target: folder / Path(target).name for target in texts} | given


def _text(host: Host, machine: Machine, path: str) -> str:
    file = overlay.top_file(host.l, machine.lower, path)
    return file.read_text(errors="replace") if file else ""


def machines(host: Host) -> list[Machine]:
    """Return all machines of this host that are not destroyed, running or not."""
    if not host.machines.is_dir():
        return []
    found = (find(host, folder.name) for folder in sorted(host.machines.iterdir()))
    return [machine for machine in found if machine is not None]


def find(host: Host, minion_id: str) -> Machine | None:
    """Return a machine by its id, or None."""
    file = _folder(host, minion_id) / "machine.json"
    try:
        data = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    lists = {name: tuple(data.get(name, ())) for name in ("lower", "writable", "capabilities", "trusted")}
    ports = None if data.get("ports") is None else tuple(data["ports"])
    vm = qemu.VirtualMachine(**{**data["vm"], "disks": tuple(data["vm"]["disks"])}) if data.get("vm") else None
    return Machine(**{**data, **lists, "ports": ports, "vm": vm})


def destroy(host: Host, minion_id: str) -> bool:
    """Kill a machine and remove all of it but its console log. Return False if there was none."""
    with host.lock(_lock_name(minion_id)):
        machine = find(host, minion_id)
        if machine is None:
            host.discard(_folder(host, minion_id))
        else:
            _destroy(host, machine)
    return machine is not None


def _destroy(host: Host, machine: Machine) -> None:
    machine.cgroup.kill()
    machine.cgroup.remove()
    nspawn.remove_runtime_files(machine.name)
    with host.lock("network"):
        _disconnect(machine)
        others = (each for each in machines(host) if each.minion_id != machine.minion_id)
        if not any(each.bridge == machine.bridge for each in others):
            network.down(machine.network)
        consoles.keep(host, _folder(host, machine.minion_id))
    host.discard(host.machines / machine.minion_id)


def console(host: Host, minion_id: str, lines: int = 60) -> str:
    """Return the last ``lines`` lines of a machine's console, also after its end; '' if there is none."""
    return consoles.read(host, _folder(host, minion_id), lines)


@contextmanager
def temporary(host: Host, order: Machine) -> Iterator[Machine]:
    """Launch a machine, give it, and destroy it afterwards, also if Ctrl-C comes during the launch."""
    try:
        yield launch(host, order)
    finally:
        destroy(host, order.minion_id)


def wait_booted(machine: Machine, within: float = 120.0) -> None:
    """Wait until systemd has finished booting; failed units are no error. Raises after ``within`` seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        left = f"{deadline - time.monotonic():.1f}"
        state = machine.run(["timeout", left, "systemctl", "is-system-running", "--wait"]).stdout.strip()
        if state in ("running", "degraded"):
            return
        time.sleep(0.05)
    raise CommandExecutionError(
        f"machine {machine.minion_id} did not boot within {within:.0f} s (systemd: {state!r}); see machine.console"
    )

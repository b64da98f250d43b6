"""Existing roots: hashed, taken unchanged, refused where they cannot become a minion or an image."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
from contextlib import closing

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable import rpm
from saltext.immutable.builder import commands
from saltext.immutable.builder.finish import scrub
from saltext.immutable.builder.sources import roots
from saltext.immutable.machines.cgroup import Cgroup

STATUS = "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2\n\n"


@pytest.fixture
def root(tmp_path):
    """A directory that looks like a Debian root."""
    place = tmp_path / "root"
    for folder in ("etc", "usr/bin", "usr/sbin", "var/lib/dpkg", "var/log", "tmp"):
        (place / folder).mkdir(parents=True)
    place.chmod(0o755)
    for name, text in {"usr/bin/python3": "", "usr/sbin/init": "", "var/lib/dpkg/status": STATUS}.items():
        (place / name).write_text(text)
    (place / "etc/hostname").write_text("where-it-was-made")
    return place


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Processes of a unit test are in no cgroup of their own."""
    monkeypatch.setattr(Cgroup, "start_command", lambda self: [])


@pytest.fixture
def made(host):
    """Build a root as a layer would be; return its tree, its packages and the warnings."""

    def build(**order):
        kind = next(iter(order))
        order.setdefault("sha256", None)
        order["sha256"] = order["sha256"] or roots.content(host, {kind: order[kind]})
        with host.workspace() as place:
            warnings = roots.build(host, place, Cgroup("none"), {"what": f"{kind} x", **order})
            scrub.scrub(place / "fs")
            kept = host.root / "kept"
            (place / "fs").rename(kept)
        return kept, roots.packages(rpm.within(kept)), warnings

    return build


@pytest.fixture
def packed(root):
    def pack(*more: str):
        archive = root.parent / "root.tar"
        subprocess.run(["tar", "-cf", archive, *more, "-C", root, "."], check=True)
        return str(archive)

    return pack


@pytest.mark.parametrize("kind", ["directory", "tarball"])
def test_a_root_becomes_a_layer_without_its_host_name(made, root, packed, kind):
    tree, packages, warnings = made(**{kind: packed() if kind == "tarball" else str(root)})
    assert (packages, warnings) == ({"bash:amd64": "5.2"}, [])
    assert (tree / "usr/sbin/init").is_file() and (tree / "proc").is_dir()
    assert not (tree / "etc/hostname").exists()
    assert [(tree / "etc" / name).read_text() for name in ("machine-id", "resolv.conf")] == ["", ""]
    assert "localhost" in (tree / "etc/hosts").read_text()


def test_a_root_without_dpkg_has_no_packages(made, root):
    shutil.rmtree(root / "var/lib/dpkg")
    assert made(directory=str(root))[1] == {}


def test_the_hosts_file_of_a_root_stays(made, root):
    (root / "etc/hosts").write_text("10.0.0.1 db\n")
    assert (made(directory=str(root))[0] / "etc/hosts").read_text() == "10.0.0.1 db\n"


def test_a_root_without_an_init_is_a_warning(made, root):
    (root / "usr/sbin/init").unlink()
    assert "it has no init" in made(directory=str(root))[2][0]


def without_python(root):
    (root / "usr/bin/python3").unlink()


def with_a_link_for_etc(root):
    shutil.rmtree(root / "etc")
    (root / "etc").symlink_to("/etc")


def closed_to_all(root):
    root.chmod(0o700)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_python, "has no /usr/bin/python3, which Salt needs"),
        (with_a_link_for_etc, "/etc is no directory; name the root of a Linux system"),
        (closed_to_all, "its root has mode 0700, so only root could enter it; chmod it to 0755"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
@pytest.mark.parametrize("kind", ["directory", "tarball"])
def test_a_directory_that_is_no_root_is_refused(made, root, packed, kind, spoil, message):
    spoil(root)
    with pytest.raises(CommandExecutionError, match=message):
        made(**{kind: packed() if kind == "tarball" else str(root)})


def test_links_in_a_root_are_not_followed_to_this_host(made, root, tmp_path):
    """Scrubbing host keys, logs and downloads must stay within the root."""
    theirs = tmp_path / "theirs"
    (theirs / "dpkg").mkdir(parents=True)
    for name in ("ssh_host_rsa_key", "syslog", "dpkg/status"):
        (theirs / name).write_text(STATUS)
    shutil.rmtree(root / "var/lib")
    shutil.rmtree(root / "var/log")
    for name in ("etc/ssh", "var/log", "var/lib", "var/cache"):
        (root / name).symlink_to(theirs)
    tree, packages, _ = made(directory=str(root))
    assert os.readlink(tree / "etc/ssh") == str(theirs)
    assert [(theirs / name).read_text() for name in ("ssh_host_rsa_key", "syslog", "dpkg/status")] == [STATUS] * 3
    assert packages == {}


def test_an_archive_of_another_sha256_is_refused(made, packed):
    archive = packed()
    with pytest.raises(
        CommandExecutionError, match=f"{archive} has the sha256 [0-9a-f]{{64}}, and {'0' * 64} is expected"
    ):
        made(tarball=archive, sha256="0" * 64)


@pytest.mark.parametrize("kind", ["tarball", "directory"])
def test_a_missing_path_is_named(host, kind):
    with pytest.raises(SaltInvocationError, match=f"from:{kind}: there is no .* /nowhere on the builder"):
        roots.content(host, {kind: "/nowhere"})


def test_the_builders_own_layers_are_no_root(host):
    with pytest.raises(SaltInvocationError, match="contains the builder's own layers"):
        roots.content(host, {"directory": str(host.root.parent)})


def socketed(root):
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(root / "run.sock"))


def test_a_socket_is_refused_by_name(host, root):
    socketed(root)
    with pytest.raises(CommandExecutionError, match=r"root/run\.sock is a socket, which no image may have"):
        roots.content(host, {"directory": str(root)})


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a device: needs root")
def test_a_device_is_refused_by_name(host, root):
    os.mknod(root / "null", 0o20600, os.makedev(1, 3))
    with pytest.raises(CommandExecutionError, match="root/null is a device, which no image may have"):
        roots.content(host, {"directory": str(root)})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda root: (root / "etc/new").write_text("x"), id="a file"),
        pytest.param(lambda root: (root / "usr/bin/python3").chmod(0o700), id="a mode"),
        pytest.param(lambda root: (root / "bin").symlink_to("usr/bin"), id="a link"),
        pytest.param(lambda root: os.utime(root / "etc", (1, 1)), id="a time"),
    ],
)
def test_each_change_of_a_directory_gives_another_hash(host, root, change):
    before = roots.content(host, {"directory": str(root)})
    assert roots.content(host, {"directory": str(root)}) == before
    change(root)
    assert roots.content(host, {"directory": str(root)}) != before


def test_a_directory_that_changes_during_the_copy_is_refused(made, host, root):
    old = roots.content(host, {"directory": str(root)})
    (root / "etc/new").write_text("x")
    with pytest.raises(CommandExecutionError, match="changed while it was copied; bake again"):
        made(directory=str(root), sha256=old)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts: needs root")
def test_other_file_systems_mounted_in_a_directory_are_left_out(made, host, root):
    (root / "srv").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", root / "srv"], check=True)
    try:
        (root / "srv/data").write_text("none of the root's")
        before = roots.content(host, {"directory": str(root)})
        (root / "srv/more").write_text("nor this")
        assert roots.content(host, {"directory": str(root)}) == before
        tree, *_ = made(directory=str(root))
    finally:
        subprocess.run(["umount", root / "srv"], check=True)
    assert os.listdir(tree / "srv") == []


def test_the_layer_is_committed_with_its_packages(host, root, monkeypatch):
    monkeypatch.setattr("saltext.immutable.images.layers.run", lambda command: None)
    monkeypatch.setattr(commands, "_end_processes", lambda host, place: None)
    (root / "usr/sbin/init").unlink()
    for place in (root, *root.rglob("*")):  # made before the bake, not in the same second
        os.utime(place, (1e9, 1e9), follow_symlinks=False)
    content = commands.root_content(host, {"directory": str(root)})
    order = {"what": "directory /srv/root", "directory": str(root), "sha256": content}
    first, second = commands.root_layer(host, order), commands.root_layer(host, order)
    assert first["packages"] == {"bash:amd64": "5.2"}
    assert "directory /srv/root: it has no init" in first["warnings"][0]
    assert first["digest"] == second["digest"]


def test_the_sha256_of_an_archive_is_that_of_sha256sum(host, packed):
    archive = packed()
    with open(archive, "rb") as file:
        assert roots.content(host, {"tarball": archive}) == hashlib.sha256(file.read()).hexdigest()


@pytest.mark.skipif(os.geteuid() != 0, reason="sets attributes of trusted: needs root")
@pytest.mark.parametrize("name", ["opaque", "redirect", "metacopy"])
def test_a_directory_with_attributes_of_overlay_is_refused(made, root, name):
    os.setxattr(root / "usr", f"trusted.overlay.{name}", b"y")
    with pytest.raises(CommandExecutionError, match=f"/usr has the attribute trusted.overlay.{name}: it is a layer"):
        made(directory=str(root))


def test_an_archive_that_changes_while_its_sum_is_taken_gives_no_layer(made, packed, monkeypatch):
    archive = packed()
    real = roots.manifest.sha256

    def changed(path):
        found = real(path)
        os.utime(path)
        return found

    monkeypatch.setattr(roots.manifest, "sha256", changed)
    with pytest.raises(CommandExecutionError, match="changed while it was unpacked; bake again"):
        made(tarball=archive)

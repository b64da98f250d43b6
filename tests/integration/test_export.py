"""An image as a file: what a machine sees is what is in it, and what others load is our image."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.estate import wait_for
from support.exports import killed_export
from support.slices import full

WHOLE = full("exports a whole image", minutes=1)


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


@pytest.fixture(scope="module")
def small(estate) -> str:
    """The image of recipe ``small``."""
    return str(estate.salt_run("image.bake", "small").data["image"])


@pytest.fixture
def exported(estate, small, tmp_path):
    """Return what exports it; the answer, and the lines of progress."""

    def export(format: str, *words: str):
        place = tmp_path / f"small.{format}"
        run = ("image.export", "small:stable", f"format={format}", f"target={place}", *words)
        answer = estate.salt_run(*run)
        return place, answer.data, answer.stderr.splitlines()

    return export


@pytest.fixture
def mounted(estate, small, tmp_path):
    """Return what runs a command in the image as the kernel mounts it, in a mount namespace of its own."""
    about = json.loads(next(estate.host.images.glob(f"{small.partition('@')[2]}*/image.json")).read_text())
    stack = [f"i{about['image'][:16]}", *(digest[:16] for digest in reversed(about["layers"]))]
    (tmp_path / "mnt").mkdir()
    options = f"redirect_dir=off,metacopy=off,index=off,lowerdir={':'.join(stack)}"
    mount = f"cd {estate.host.l} && mount -t overlay overlay -o {options} {tmp_path}/mnt && cd {tmp_path}/mnt"

    def run(line: str) -> str:
        words = ["unshare", "--mount", "sh", "-ec", f"{mount}; {line}"]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    return run


def test_a_tar_holds_what_a_machine_sees(estate, exported, mounted, nothing_is_left):
    foreseen = exported("tar", "test=True")[1]
    place, told, heard = exported("tar")
    assert told["content"] == foreseen["content"] > told["bytes"] > 0
    assert told["bytes"] == place.stat().st_size
    assert any(line.endswith(f"100 % of {told['content'] >> 20} MB") for line in heard), heard
    compared = mounted(f"zstd -dc {place} | tar --compare --numeric-owner --xattrs --xattrs-include='*' 2>&1")
    assert compared == ""
    inside = subprocess.run(["tar", "--zstd", "-tf", place], check=True, capture_output=True, text=True).stdout
    assert {"etc/immutable/seal.json", "etc/small"} <= set(inside.splitlines())
    assert len(inside.splitlines()) == int(mounted("find . | wc -l"))
    again = estate.salt_run("image.export", "small:stable", "format=tar", f"target={place}", check=False)
    assert again.returncode == 1
    assert "exists already; name another, or add force=True" in again.stderr + again.stdout
    assert os.listdir(place.parent).count(place.name) == 1
    nothing_is_left()


@pytest.mark.parametrize("format", ["tar", pytest.param("squashfs", marks=WHOLE), pytest.param("oci", marks=WHOLE)])
def test_a_killed_export_leaves_no_target_and_the_next_one_cleans(estate, small, tmp_path, format):
    killed_export(estate, small, format, tmp_path)


def test_wrong_orders_are_named(estate, small, tmp_path):
    for words, said in (
        (("format=iso", f"target={tmp_path}/x"), "format: 'iso' is not one of tar, squashfs, oci"),
        (("format=tar", "target=x"), "target: 'x' is no absolute path"),
        (("format=tar", f"target={tmp_path}"), "no regular file"),
        (("format=raw", f"target={tmp_path}/x"), "cannot boot, it has no kernel: linux-image-cloud-amd64"),
    ):
        refused = estate.salt_run("image.export", small, *words, check=False)
        assert refused.returncode == 1
        assert said in refused.stderr + refused.stdout
    assert os.listdir(tmp_path) == []


@WHOLE
@needs("mksquashfs", "unsquashfs")
def test_a_squashfs_holds_what_a_machine_sees(exported, mounted, tmp_path):
    place, _, _ = exported("squashfs")
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-dest", tmp_path / "files", place], check=True)
    listed = "find . -mindepth 1 -printf '%P %y %m %U %G %Ts %l\\n' | LC_ALL=C sort"
    of_file = subprocess.run(["sh", "-c", listed], cwd=tmp_path / "files", check=True, capture_output=True, text=True)
    assert of_file.stdout == mounted(listed)
    assert mounted(f"diff --recursive --brief --no-dereference . {tmp_path}/files 2>&1 | grep -v special || true") == ""


@WHOLE
def test_an_oci_archive_is_the_same_twice(exported):
    first, second = exported("oci")[1], exported("oci", "force=True")[1]
    assert first["sha256"] == second["sha256"]


LOOK = ["sh", "-c", "cat /etc/immutable/seal.json; ls /etc/small"]


@WHOLE
@needs("podman", "runc")
def test_podman_loads_and_runs_it(exported, small, tmp_path):
    place, _, _ = exported("oci")
    with tempfile.TemporaryDirectory() as run:  # it takes no path of more than 50 characters
        podman = ["podman", "--root", f"{tmp_path}/p", "--runroot", run, "--storage-driver", "overlay"]
        podman += ["--cgroup-manager", "cgroupfs"]  # there may be no systemd here
        podman += ["--runtime", "runc"]  # crun refuses hosts that mount both versions of cgroups
        try:
            seen(podman, place, small, "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
        finally:
            subprocess.run([*podman, "system", "reset", "--force"], check=False, capture_output=True)


@WHOLE
@needs("dockerd", "docker")
def test_docker_loads_and_runs_it(exported, small, tmp_path):
    place, _, _ = exported("oci")
    with dockerd(tmp_path / "d") as host:
        seen(["docker", "--host", host], place, small)


def seen(program: list[str], place: Path, image: str, *options: str) -> None:
    """Hold what a program loads to what it is called, made of, and shows inside."""

    def run(*words: str) -> str:
        done = subprocess.run([*program, *words], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    name = f"localhost/{image.replace('@', ':')}"
    assert name in run("load", "--input", str(place))
    (about,) = json.loads(run("image", "inspect", name))
    assert about["Config"]["Labels"]["saltext.immutable.image"] == image
    with tarfile.open(place) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))[0]
        config = json.load(archive.extractfile(manifest["Config"]))
    assert about["RootFS"]["Layers"] == config["rootfs"]["diff_ids"]
    shown = run("run", "--rm", "--network", "none", *options, name, *LOOK)
    assert about["Config"]["Labels"]["saltext.immutable.digest"] in shown
    assert "/etc/small" in shown


@contextmanager
def dockerd(place: Path) -> Iterator[str]:
    """Run a Docker of our own, and end it."""
    place.mkdir()
    words = ["dockerd", "--data-root", place / "data", "--exec-root", place / "run", "--pidfile", place / "pid"]
    words += ["--host", f"unix://{place}/sock", "--iptables=false", "--ip6tables=false", "--bridge=none"]
    with (place / "log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
        try:
            ready = ["docker", "--host", f"unix://{place}/sock", "info"]
            wait_for(lambda: subprocess.run(ready, check=False, capture_output=True).returncode == 0, 180, 0.5)
            yield f"unix://{place}/sock"
        finally:
            process.terminate()

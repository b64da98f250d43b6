"""Garbage collection on a builder never removes what an image, a machine or a mount needs."""

from __future__ import annotations

import errno
import json
import os
from contextlib import nullcontext
from itertools import count

import pytest

from saltext.immutable.builder import garbage
from saltext.immutable.images import layers
from saltext.immutable.machines import images, overlay

ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
def commit(host, monkeypatch):
    """Make a layer that a key leads to, and return its digest."""
    monkeypatch.setattr(layers, "run", lambda command: None)  # sync takes its time

    def commit(text: str) -> str:
        with host.workspace() as workspace:
            (workspace / "fs").mkdir()
            (workspace / "fs/a").write_text(text)
            layer = layers.commit(host, workspace, what=f"layer {text}")
            layers.set_key(host, f"key of {text}", layer.digest)
            return layer.digest

    return commit


@pytest.fixture
def image(host):
    def image(digest, *stack):
        (host.images / digest / "seal").mkdir(parents=True)
        images.metadata_file(host, digest).write_text(json.dumps({"layers": stack}))
        layers.make_link(host, overlay.seal_name(digest), f"../images/{digest}/seal")

    return image


@pytest.fixture
def collect(host):
    def collect(*known, test=False, suites=("bookworm",), bake_ids=("web-bake",)):
        return garbage.collect(host, list(known), list(suites), list(bake_ids), test)

    return collect


def run_machine(host, *lower):
    (host.machines / "web-1").mkdir()
    machine = {"minion_id": "web-1", "image": "", "lower": lower, "minion": {}, "bridge": "b", "subnet": "s"}
    (host.machines / "web-1/machine.json").write_text(json.dumps(machine))


def left(host):
    return sorted(
        path.name for kind in ("layers", "l", "keys", "images", "tmp", "pki") for path in getattr(host, kind).iterdir()
    )


def test_layers_of_known_images_stay_and_others_are_removed(host, commit, image, collect):
    base, one, two, loose = (commit(text) for text in ("base", "one", "two", "loose"))
    image(ONE, base, one)
    image(TWO, base, two)
    found = collect(ONE)
    assert found["images"] == [TWO]
    assert found["layers"] == {
        digest: {"what": f"layer {text}", "size": len(text)} for digest, text in ((two, "two"), (loose, "loose"))
    }
    names = [overlay.short(base), overlay.short(one), overlay.seal_name(ONE)]
    assert left(host) == sorted([base, one, ONE, "key of base", "key of one", *names])
    assert layers.find(host, "key of two") is None
    assert collect(ONE) == {"images": [], "layers": {}, "caches": {}, "leftovers": {}}


def test_a_preview_reports_the_same_and_removes_nothing(host, commit, image, collect):
    commit("loose")
    image(TWO, commit("two"))
    (host.cache / "debian/buster").mkdir(parents=True)
    before = left(host)
    preview = collect(test=True)
    assert (left(host), (host.cache / "debian/buster").exists()) == (before, True)
    assert collect() == preview
    assert not left(host)


def test_layers_of_a_machine_stay_though_the_store_does_not_know_their_image(host, commit, image, collect):
    one = commit("one")
    image(ONE, one)
    run_machine(host, overlay.short(one), overlay.seal_name(ONE))
    assert garbage.image_users(host) == {ONE: ["machine web-1"]}
    assert (collect()["images"], collect()["layers"]) == ([], {})
    assert (host.l / overlay.short(one) / "a").read_text() == "one"


def test_mounted_layers_and_images_stay(host, commit, image, collect, monkeypatch):
    one, two = commit("one"), commit("two")
    image(ONE, one)
    monkeypatch.setattr(overlay, "mounted", lambda: {overlay.short(two), overlay.seal_name(ONE)})
    assert garbage.image_users(host) == {ONE: ["a mount"]}
    assert (collect()["images"], collect()["layers"]) == ([], {})


def test_tarballs_that_no_recipe_names_are_removed(host):
    for name in ("1" * 64, "2" * 64):
        (host.cache / "tarballs").mkdir(exist_ok=True)
        (host.cache / "tarballs" / name).write_text("12345")
    found = garbage.collect(host, [], [], [], tarballs=["1" * 64])
    assert found["caches"] == {f"cache/tarballs/{'2' * 64}": 5}
    assert [path.name for path in (host.cache / "tarballs").iterdir()] == ["1" * 64]


def test_caches_of_suites_and_bake_ids_that_no_recipe_names_are_removed(host, collect):
    for path in ("debian/bookworm", "debian/buster", "apt/web-bake", "apt/old-bake/archives", "apt/toolchain", "uv/x"):
        (host.cache / path).mkdir(parents=True)
        (host.cache / path / "file").write_text("12345")
    assert collect()["caches"] == {"cache/debian/buster": 5, "cache/apt/old-bake": 5}
    stay = sorted(str(path.relative_to(host.cache)) for path in host.cache.glob("*/*"))
    assert stay == ["apt/toolchain", "apt/web-bake", "debian/bookworm", "uv/x"]


def test_leftovers_of_a_killed_bake_are_removed(host, commit, collect):
    """A workspace, a key pair, an unfinished image, links and keys whose target is gone."""
    gone = commit("gone")
    (host.layers / gone).rename(host.tmp / "discarded-000000")
    (host.tmp / "abc123").mkdir()
    (host.pki / "web-bake").mkdir()
    (host.pki / "web-bake/minion.pem").write_text("private")
    (host.images / ONE / "seal").mkdir(parents=True)
    found = collect()
    assert set(found["leftovers"]) == {"tmp/abc123", "tmp/discarded-000000", "pki/web-bake"}
    assert found["images"] == [ONE]
    assert not left(host)


def test_a_workspace_in_use_stays(host, collect):
    with host.workspace() as workspace:
        assert not collect()["leftovers"]
        assert workspace.exists()


def test_after_a_kill_at_any_moment_the_next_collection_finishes(host, commit, image, collect):
    moments = 0
    for moment in count(1):
        base, two = commit("base"), commit("two")
        image(ONE, base)
        image(TWO, base, two)
        commit("loose")
        killed = _killed_at(moment, lambda: collect(ONE))
        for text in ("base", "two", "loose"):
            if found := layers.find(host, f"key of {text}"):
                assert (host.l / overlay.short(found.digest) / "a").read_text() == text, "what is found can be mounted"
        collect(ONE)
        assert left(host) == sorted([base, ONE, "key of base", overlay.short(base), overlay.seal_name(ONE)])
        if not killed:
            break
        moments += 1
        collect()
    assert moments >= 10


def _killed_at(moment, work):
    """Return whether the work was killed before its n-th call of rename or unlink."""
    with pytest.MonkeyPatch.context() as patch:
        _die_at(patch, moment)
        try:
            work()
        except KeyboardInterrupt:
            return True
    return False


def _die_at(patch, moment):
    done = []

    def dying(change):
        def changed(self, *args, **kwargs):
            done.append(self)
            if len(done) == moment:
                raise KeyboardInterrupt
            return change(self, *args, **kwargs)

        return changed

    for name in ("rename", "unlink"):
        patch.setattr(garbage.Path, name, dying(getattr(garbage.Path, name)))


def test_mounts_are_found_in_every_namespace(tmp_path):
    line = "36 35 0:30 / /mnt rw - {} overlay rw,{},upperdir=/x,workdir=/y\n"
    for process, space, kind, options in (
        ("1", "mnt:[1]", "overlay", "lowerdir=i111:aaaaaaaaaaaaaaaa"),
        ("2", "mnt:[1]", "overlay", "lowerdir=i111:aaaaaaaaaaaaaaaa"),
        ("3", "mnt:[3]", "overlay", f"lowerdir+=/srv/layers/{ONE}/fs,lowerdir+=/srv/l/bbbbbbbbbbbbbbbb"),
        ("4", "mnt:[4]", "ext4", "lowerdir=no-overlay"),
    ):
        (tmp_path / process / "ns").mkdir(parents=True)
        (tmp_path / process / "ns/mnt").symlink_to(space)
        (tmp_path / process / "mountinfo").write_text(line.format(kind, options))
    (tmp_path / "5").mkdir()
    os.symlink("self", tmp_path / "uptime")
    assert overlay.mounted(tmp_path) == {"i111", "aaaaaaaaaaaaaaaa", "1" * 16, "bbbbbbbbbbbbbbbb"}


@pytest.mark.parametrize(("error", "raises"), [(errno.EINVAL, False), (errno.ESRCH, False), (errno.EIO, True)])
def test_a_process_that_ends_while_its_mounts_are_read_has_none(tmp_path, monkeypatch, error, raises):
    (tmp_path / "7/ns").mkdir(parents=True)
    (tmp_path / "7/ns/mnt").symlink_to("mnt:[7]")

    def read_text(self):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(overlay.Path, "read_text", read_text)
    with pytest.raises(OSError) if raises else nullcontext():
        assert overlay.mounted(tmp_path) == set()


def test_of_a_file_with_holes_only_what_it_takes_counts(host):
    disk = host.cache / "apt/web-bake/cache.ext4"
    disk.parent.mkdir(parents=True)
    disk.write_bytes(b"x" * 100)
    os.truncate(disk, 16 << 30)
    found = garbage.collect(host, [], [], [], test=True)
    assert 100 <= found["caches"]["cache/apt/web-bake"] < 1 << 20

"""Where programs run on machines of an image, and what a bake says of those that would not."""

from __future__ import annotations

import pytest

from saltext.immutable.drift.paths import Mutable
from saltext.immutable.drift.running import mounts
from saltext.immutable.images import manifest, noexec_mounts
from saltext.immutable.images.stack import Entry

POLICY = {"writable": ["/srv/data", "/var/spool/x"], "exec": ["/var/lib/app", "/srv/data", "/run/app"]}


def test_nothing_runs_from_where_machines_write_but_from_where_the_recipe_says():
    assert noexec_mounts.flags(POLICY) == {
        "/dev/shm": "nosuid,nodev,noexec",
        "/run": "nosuid,nodev,noexec",
        "/tmp": "nosuid,nodev,noexec",
        "/var": "nosuid,nodev,noexec",
        "/srv/data": "nosuid,nodev",
        "/var/lib/app": "nosuid,nodev",
        "/run/app": "nosuid,nodev",
    }


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ({"path": "var/lib/app/run", "type": "file"}, True),
        ({"path": "srv/data/run", "type": "file"}, True),
        ({"path": "srv", "type": "link", "target": "mnt"}, True),
        ({"path": "usr/lib/systemd/system/nginx.service", "type": "file"}, True),
        ({"path": "lib", "type": "link", "target": "usr/lib"}, True),
        ({"path": "etc/x", "type": "whiteout"}, True),
        ({"path": "etc/y", "type": "dir", "xattrs": {"trusted.overlay.opaque": "79"}}, True),
        ({"path": "usr/bin/env", "type": "file"}, False),
        ({"path": "etc/nginx/nginx.conf", "type": "file"}, False),
    ],
)
def test_of_a_manifest_only_those_lines_are_read_that_say_something_of_it(line, needed):
    text = manifest.canonical(line).encode()
    assert bool(noexec_mounts.concerned(POLICY).search(text)) is needed


def test_the_unit_mounts_them_so():
    text = noexec_mounts.drop_in(POLICY, read_only=True)
    assert text and [line.partition("/bin/")[2] for line in text.splitlines() if line.startswith("ExecStart=")] == [
        "mount -o remount,bind,nosuid,nodev,noexec /dev/shm",
        "mount -o remount,bind,nosuid,nodev,noexec /run",
        "mount -o remount,bind,nosuid,nodev,noexec /tmp",
        "mount -o remount,bind,nosuid,nodev,noexec /var",
        "mount -o remount,bind,nosuid,nodev,exec /srv/data",
        "mount --bind /var/lib/app /var/lib/app",
        "mount -o remount,bind,nosuid,nodev,exec /var/lib/app",
        "mkdir -p /run/app",
        "mount --bind /run/app /run/app",
        "mount -o remount,bind,nosuid,nodev,exec /run/app",
    ]
    assert noexec_mounts.folders(POLICY) == ["/srv/data", "/var/lib/app"], "the others are made"


@pytest.mark.parametrize(
    ("policy", "read_only"),
    [
        pytest.param(POLICY, False, id="whose root is writable"),
        pytest.param({"writable": []}, True, id="of a former version"),
    ],
)
def test_other_images_keep_what_they_had(policy, read_only):
    assert noexec_mounts.drop_in(policy, read_only) is None


def file(mode: int, kind: str = "file") -> Entry:
    return Entry(kind, mode, 0, 0, 0, 0, None, None)


FILES = {
    "usr/bin/tool": file(0o755),
    "var/lib/app/run": file(0o755),
    "var/lib/other/one": file(0o755),
    "var/lib/other/two": file(0o4711),
    "var/lib/other/data": file(0o644),
    "var/lib/other/sub": file(0o755, "dir"),
    "var/lib/other/link": file(0o777, "link"),
    "var/lib/dpkg/info/a.postinst": file(0o755),
    "srv/data/x": file(0o755),
    "var/spool/x/y": file(0o755),
}


def test_programs_that_would_not_run_are_said_with_the_line_to_add():
    units = [("app.service", "/var/lib/app/run"), ("x.service", "/run/x/start"), ("y.service", "/usr/bin/tool")]
    assert noexec_mounts.warnings(POLICY, FILES, units) == [
        "/var/lib/other has 2 programs that machines do not run: let a state put it elsewhere, or add "
        "exec: [/var/lib/other] to the recipe",
        "/var/spool/x has a program that machines do not run: let a state put it elsewhere, or add "
        "exec: [/var/spool/x] to the recipe",
        "x.service runs /run/x/start, which machines do not run: let a state put it elsewhere, or add "
        "exec: [/run/x] to the recipe",
    ]


def test_no_line_is_said_that_a_recipe_could_not_have():
    units = [("x.service", "/var/start"), ("y.service", "/tmp/start"), ("z.service", "/var/lib/start")]
    found = noexec_mounts.warnings({"writable": [], "exec": []}, {}, units)
    assert len(found) == 3 and all(said.endswith("machines do not run: let a state put it elsewhere") for said in found)


def test_of_many_folders_some_are_named():
    many = {f"var/lib/p{number}/run": file(0o755) for number in range(8)}
    found = noexec_mounts.warnings({"writable": [], "exec": []}, many, ())
    assert len(found) == 6 and found[-1] == "... and 3 more folders with programs"


def test_units_are_found_where_systemd_reads_them():
    names = ["usr/lib/systemd/system/a.service", "etc/systemd/system/b.socket", "etc/systemd/system/c.timer"]
    names += ["etc/systemd/system/a.service.d/x.conf", "etc/systemd/system/a.timer.d/x.conf"]
    names += ["etc/systemd/system/x.wants/a.service", "usr/lib/systemd/user/d.service"]
    assert list(noexec_mounts.unit_files({name: file(0o644) for name in names})) == [*names[:2], names[3]]


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        pytest.param("rw,nosuid,nodev,noexec,relatime", [], id="as the image says"),
        pytest.param("rw,nosuid,nodev", ["noexec"], id="programs run again"),
        pytest.param("rw,noexec", ["nosuid", "nodev"], id="with rights"),
        pytest.param("", ["nosuid", "nodev", "noexec"], id="not mounted any more"),
    ],
)
def test_a_place_with_fewer_restrictions_is_drift(options, missing):
    there = [mounts.Mount("/tmp", "tmpfs", "/", "tmpfs", "0:1", options)] if options else []
    found = list(mounts.weakened(there, {"/tmp": "nosuid,nodev,noexec"}, Mutable(())))
    expected = [("mount", "/tmp", f"it is mounted without {', '.join(missing)}")] if missing else []
    assert [item[:3] for item in found] == expected


@pytest.mark.parametrize(
    ("point", "kind", "options", "found"),
    [
        pytest.param("/run", "tmpfs", "rw", True, id="a file system of somebody's own"),
        pytest.param("/run", "tmpfs", "rw,nosuid,nodev,noexec", False, id="as restricted as the place"),
        pytest.param("/run", "nsfs", "rw", False, id="a namespace"),
        pytest.param("/run/user", "tmpfs", "rw,nosuid,nodev", False, id="of a user's session"),
        pytest.param("/run/docker", "overlay", "rw", False, id="declared by the recipe"),
        pytest.param("/opt", "ext4", "rw", False, id="elsewhere"),
    ],
)
def test_what_is_mounted_below_a_place_has_its_restrictions(monkeypatch, point, kind, options, found):
    monkeypatch.setattr("os.path.isdir", lambda path: True)
    own = mounts.Mount(f"{point}/x", kind, "/", kind, "0:1", options)
    run = mounts.Mount("/run", "tmpfs", "/", "tmpfs", "0:2", "rw,nosuid,nodev,noexec")
    items = mounts.weakened([run, own], {"/run": "nosuid,nodev,noexec"}, Mutable(["/run/docker"], ()))
    assert [item.what for item in items] == ([f"{point}/x"] if found else [])

"""The database of rpm in a root: a real one, of a tiny package, read by the real rpm."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from salt.exceptions import CommandExecutionError
from support import rpms

from saltext.immutable import rpm
from saltext.immutable.builder.finish import slim
from saltext.immutable.builder.sources import roots
from saltext.immutable.drift import owners
from saltext.immutable.images.stack import Entry

FOLDERS = ["usr/lib/sysimage/rpm", "var/lib/rpm"]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return rpms.build(tmp_path_factory.mktemp("rpmbuild"))


@pytest.fixture
def root(package, tmp_path) -> Path:
    rpms.install(package, tmp_path / "root")
    return tmp_path / "root"


@rpms.needs_rpm
@pytest.mark.parametrize("folder", FOLDERS)
def test_packages_are_read_wherever_the_family_keeps_them(package, tmp_path, folder):
    tree = tmp_path / "root"
    rpms.install(package, tree, f"/{folder}")
    before = {file: file.stat().st_mtime_ns for file in (tree / folder).iterdir()}
    assert roots.packages(rpm.within(tree)) == {"tiny:noarch": "1:2.5-3"}
    assert {file: file.stat().st_mtime_ns for file in (tree / folder).iterdir()} == before, "a layer is not written to"


@rpms.needs_rpm
def test_what_is_known_of_a_package(root):
    [found] = rpm.packages(rpm.within(root))
    named = {"name": "tiny", "arch": "noarch", "version": "1:2.5-3", "license": "GPLv3+ and MIT"}
    assert found == {**named, "source": "tiny-2.5-3.src.rpm", "vendor": "Example Project"}


def listed(monkeypatch, *lines: str) -> dict[str, str]:
    monkeypatch.setattr(rpm, "_query", lambda find, wanted: [line.replace("\t", "\x1f") for line in lines])
    return rpm.installed(lambda path: None)


def test_keys_are_no_packages_and_several_versions_are_one_line(monkeypatch):
    rest = "GPL\t(none)\t(none)"
    kernels = (f"kernel\tx86_64\t0:6.{minor}-1\t{rest}" for minor in (12, 11))
    found = listed(monkeypatch, *kernels, f"gpg-pubkey\t(none)\tabc-1\t{rest}")
    assert found == {"kernel:x86_64": "6.11-1, 6.12-1"}


def test_a_debian_root_needs_no_rpm(tmp_path, monkeypatch):
    monkeypatch.setattr(rpm.shutil, "which", lambda name: None)
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    text = "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n"
    (tmp_path / "var/lib/dpkg/status").write_text(text)
    find = rpm.within(tmp_path)
    assert roots.packages(find) == {"a:all": "1"}
    assert (rpm.problem(find), rpm.is_there(find)) == (None, False)


@pytest.mark.parametrize(
    ("name", "here", "error"),
    [
        pytest.param("rpmdb.sqlite", False, "rpm is not installed on this host; install it there", id="no rpm"),
        pytest.param("rpmdb.sqlite", True, "cannot be read by the rpm of this host .*; use a builder", id="damaged"),
        pytest.param("Packages.db", True, "of the format Packages.db", id="of openSUSE"),
        pytest.param("Packages", True, "cannot be read by the rpm of this host", id="old, and damaged"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(tmp_path, monkeypatch, name, here, error):
    if here and not shutil.which("rpm"):
        pytest.skip("needs rpm")
    if not here:
        monkeypatch.setattr(rpm.shutil, "which", lambda name: None)
    (tmp_path / "var/lib/rpm").mkdir(parents=True)
    (tmp_path / "var/lib/rpm" / name).write_bytes(b"damaged" * 1000)
    find = rpm.within(tmp_path)
    assert rpm.installed(find) == {}
    with pytest.raises(CommandExecutionError, match=error):
        list(rpm.packages(find))
    tmp_path.chmod(0o755)
    for name in ("etc", "usr/bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "usr/bin/python3").touch()
    [warning] = [one for one in roots.finish(tmp_path, "tarball a") if "init" not in one]
    assert warning.startswith("tarball a: no packages of it are known: the ")
    assert warning.endswith("and bake with refresh=always")


def test_a_link_leads_to_no_database_of_this_host(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/rpmdb.sqlite").touch()
    (tmp_path / "root/var/lib").mkdir(parents=True)
    (tmp_path / "root/var/lib/rpm").symlink_to(tmp_path / "other")
    assert not rpm.is_there(rpm.within(tmp_path / "root"))


@rpms.needs_rpm
@pytest.mark.parametrize("vendor", ["Ex\tample", "Ex\u2028ample", "Ex\x0bample"])
def test_a_vendor_may_hold_any_character(tmp_path, monkeypatch, vendor):
    monkeypatch.setattr(rpms, "SPEC", rpms.SPEC.replace("Vendor: Example Project", f"Vendor: {vendor}"))
    rpms.install(rpms.build(tmp_path), tmp_path / "root")
    [found] = rpm.packages(rpm.within(tmp_path / "root"))
    assert (found["name"], found["vendor"]) == ("tiny", vendor)


def test_a_line_that_is_no_package_is_named(monkeypatch):
    with pytest.raises(CommandExecutionError, match=r"\('a\\x1fb' is no package\); use a builder .*rebuilddb"):
        listed(monkeypatch, "a\tb")


@rpms.needs_rpm
def test_a_database_of_which_rpm_skips_packages_is_not_read_in_part(root):
    file = root / "usr/lib/sysimage/rpm/rpmdb.sqlite"
    with closing(sqlite3.connect(file)) as database, database:
        [[blob]] = database.execute("select blob from Packages").fetchall()
        database.execute("update Packages set blob = ?", [bytes(3) + b"\5" + blob[4:]])
    find = rpm.within(root)
    assert "skipping h#" in rpm.problem(find)
    assert rpm.installed(find) == {}
    with pytest.raises(CommandExecutionError, match="skipping h#.*; use a builder whose rpm reads it, or mend"):
        list(rpm.packages(find))


@rpms.needs_rpm
def test_documentation_of_packages_is_slimmed_and_licences_stay(root):
    (root / "usr/share/doc/own").mkdir()
    (root / "usr/share/doc/own/README").write_text("a state wrote this")
    (root / "var/cache/dnf/x").mkdir(parents=True)
    (root / "var/cache/dnf/x/a.solv").touch()
    saved = slim.slim(root, slim.settings(None))
    assert {category: one["files"] for category, one in saved.items()} == {
        **dict.fromkeys(("caches", "docs", "locales", "man"), 1)
    }
    left = sorted(str(file.relative_to(root / "usr")) for file in (root / "usr/share").rglob("*") if file.is_file())
    assert left == ["share/doc/own/README", "share/doc/tiny/LICENSE"]


@rpms.needs_rpm
def test_the_owner_of_a_file_is_found_by_the_images_own_database(root):
    shutil.copy(shutil.which("rpm"), root / "usr/bin/rpm")
    files = {}
    for folder, _, names in os.walk(root):
        for file in (Path(folder, name) for name in names):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            files[str(file.relative_to(root))] = Entry("file", 0o644, 0, 0, 0, 0, content, None)
    image = SimpleNamespace(files=files)
    assert owners.owners(str(root), image, ["usr/bin/tiny", "etc/own"]) == {"usr/bin/tiny": "tiny"}
    (root / "usr/bin/rpm").write_text("forged")
    assert owners.owners(str(root), image, ["usr/bin/tiny"]) == {}, "a program that was changed is not run"

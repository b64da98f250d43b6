"""What slimming removes from a layer, what it keeps, and its summary."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from saltext.immutable.builder.finish import slim
from saltext.immutable.spec.model import Slim

DEFAULT = slim.settings(Slim())
PACKAGES = "opt/salt/lib/python3.11/site-packages"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes whiteouts: needs root")


def put(tree: Path, *paths: str, text: str = "x") -> None:
    for path in paths:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)


def packaged(tree: Path, *paths: str) -> None:
    """Put files as a Debian package does, which lists them and their folders."""
    put(tree, *paths)
    folders = {str(folder) for path in paths for folder in Path(path).parents if str(folder) != "."}
    put(
        tree,
        "var/lib/dpkg/info/nginx.list",
        text="\n".join(["/.", *(f"/{each}" for each in sorted({*folders, *paths}))]),
    )


@pytest.mark.parametrize(
    ("path", "category"),
    [
        pytest.param("share/doc/nginx/changelog.gz", "docs", id="changelog"),
        pytest.param("share/doc/nginx/examples/a/b", "docs", id="example"),
        pytest.param("share/lintian/overrides/nginx", "docs", id="lintian"),
        pytest.param("share/doc/nginx/copyright", None, id="licence"),
        pytest.param("share/doc/nginx/LICENSE.txt", None, id="licence by another name"),
        pytest.param("share/doc/libncursesw6", None, id="link that leads to the licence of another package"),
        pytest.param("share/common-licenses/GPL-3", None, id="texts that licences refer to"),
        pytest.param("share/man/man8/nginx.8.gz", "man", id="man page"),
        pytest.param("share/man/de/man8/nginx.8.gz", "locales", id="man page in another language"),
        pytest.param("share/man/en_GB/man8/nginx.8.gz", "man", id="man page in a language that stays"),
        pytest.param("share/info/sed.info.gz", "info", id="info"),
        pytest.param("share/locale/de/LC_MESSAGES/apt.mo", "locales", id="translation"),
        pytest.param("share/locale/sr@latin/LC_MESSAGES/apt.mo", "locales", id="translation in a script"),
        pytest.param("share/locale/en_GB/LC_MESSAGES/apt.mo", None, id="variant of a language that stays"),
        pytest.param("share/locale/locale.alias", None, id="names of languages"),
        pytest.param("share/i18n/charmaps/UTF-8.gz", None, id="what locale-gen reads"),
        pytest.param("share/zoneinfo/Europe/Berlin", None, id="time zone"),
        pytest.param("share/perl/5.36.0/pod/perl.pod", None, id="another folder of share"),
        pytest.param("sbin/nginx", None, id="program"),
    ],
)
def test_category_of_a_packaged_file(path, category):
    assert slim.category_of(path, DEFAULT) == category


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        pytest.param(Slim(docs="keep"), "share/doc/nginx/changelog.gz", id="documentation"),
        pytest.param(Slim(man="keep"), "share/man/man8/nginx.8.gz", id="man pages"),
        pytest.param(Slim(locales=("en", "de")), "share/locale/de_AT/LC_MESSAGES/apt.mo", id="a variant of a language"),
        pytest.param(Slim(locales=("pt_BR",)), "share/locale/pt/LC_MESSAGES/apt.mo", id="what a variant falls back to"),
        pytest.param(Slim(locales="keep"), "share/locale/sw/LC_MESSAGES/apt.mo", id="all languages"),
    ],
)
def test_what_a_recipe_keeps(wanted, path):
    assert slim.category_of(path, slim.settings(wanted)) is None
    assert slim.category_of(path, DEFAULT) is not None


def test_removed_files_are_counted_by_category_and_files_of_states_stay(tmp_path):
    packaged(tmp_path, "usr/share/doc/nginx/changelog", "usr/share/doc/nginx/copyright", "usr/share/man/man8/nginx.8")
    put(tmp_path, "usr/share/doc/nginx/OURS", "var/lib/apt/lists/main", "var/cache/debconf/config.dat-old")
    found = slim.slim(tmp_path, DEFAULT)
    assert found == {
        "caches": {"files": 1, "bytes": 1},
        "docs": {"files": 1, "bytes": 1},
        "man": {"files": 1, "bytes": 1},
        "package lists": {"files": 1, "bytes": 1},
    }
    assert (tmp_path / "usr/share/doc/nginx/OURS").exists()
    assert (tmp_path / "usr/share/doc/nginx/copyright").exists()
    assert (tmp_path / "usr/share/man/man8").is_dir(), "some packages fail to install without"
    assert slim.summary(found) == "slimmed by 0.0 MB in 4 files: caches, docs, man, package lists"


def test_slim_false_removes_nothing(tmp_path):
    packaged(tmp_path, "usr/share/doc/nginx/changelog")
    assert slim.slim(tmp_path, slim.settings(False)) == {}
    assert (tmp_path / "usr/share/doc/nginx/changelog").exists()
    assert slim.summary({}) == ""


def test_tests_of_salts_packages_are_removed_from_disk_and_record(tmp_path):
    put(
        tmp_path,
        f"{PACKAGES}/libcloud/test/a/test_x.py",
        f"{PACKAGES}/libcloud/base.py",
        f"{PACKAGES}/salt/modules/test.py",
    )
    record = f"{PACKAGES}/libcloud-3.dist-info/RECORD"
    put(tmp_path, record, text="libcloud/base.py,sha256=1,1\nlibcloud/test/a/test_x.py,sha256=2,1\n")
    assert slim.slim(tmp_path, DEFAULT) == {"tests": {"files": 1, "bytes": 1}}
    assert not (tmp_path / f"{PACKAGES}/libcloud/test").exists()
    assert (tmp_path / record).read_text() == "libcloud/base.py,sha256=1,1\n"
    assert (tmp_path / f"{PACKAGES}/salt/modules/test.py").exists()


def test_bytecode_is_removed_where_its_source_is_but_never_salts_own(tmp_path):
    put(
        tmp_path,
        "usr/lib/python3/dist-packages/apt.py",
        "usr/lib/python3/dist-packages/__pycache__/apt.cpython-311.pyc",
    )
    put(tmp_path, "srv/app/__pycache__/alone.cpython-311.pyc")
    put(tmp_path, f"{PACKAGES}/salt/loader.py", f"{PACKAGES}/salt/__pycache__/loader.cpython-311.pyc")
    assert slim.slim(tmp_path, slim.settings(Slim(bytecode="drop"))) == {"bytecode": {"files": 1, "bytes": 1}}
    assert not (tmp_path / "usr/lib/python3/dist-packages/__pycache__/apt.cpython-311.pyc").exists()


@needs_root
def test_a_removed_file_hides_that_of_a_layer_below(tmp_path):
    path = "usr/share/doc/nginx/changelog"
    packaged(tmp_path / "fs", path)
    put(tmp_path / "below", path)
    slim.slim(tmp_path / "fs", DEFAULT, [tmp_path / "below"])
    info = (tmp_path / "fs" / path).lstat()
    assert stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
    assert slim.slim(tmp_path / "fs", DEFAULT, [tmp_path / "below"]) == {}, "a whiteout stays"


def test_a_link_in_an_image_is_not_followed(tmp_path):
    put(tmp_path / "host", "main")
    (tmp_path / "fs/var/lib/apt").mkdir(parents=True)
    (tmp_path / "fs/var/lib/apt/lists").symlink_to(tmp_path / "host")
    assert slim.slim(tmp_path / "fs", DEFAULT) == {}
    assert (tmp_path / "host/main").exists()


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param("/usr/share/doc/linked/passwd", id="over a link"),
        pytest.param("/usr/share/doc/nginx/../../../../../host/passwd", id="over .."),
        pytest.param("/usr/share/doc/circle/passwd", id="over a circle of links"),
    ],
)
def test_no_list_of_an_image_removes_a_file_of_this_host(tmp_path, listed):
    tree, host = tmp_path / "tree", tmp_path / "host"
    put(host, "passwd")
    put(tree, "var/lib/dpkg/info/evil.list", text=listed)
    (tree / "usr/share/doc/nginx").mkdir(parents=True)
    (tree / "usr/share/doc/linked").symlink_to(host)
    (tree / "usr/share/doc/circle").symlink_to("circle")
    assert slim.slim(tree, DEFAULT) == {}
    assert (host / "passwd").exists()


def test_the_records_and_tests_of_this_host_stay(tmp_path):
    tree, host = tmp_path / "tree", tmp_path / "host"
    put(host, "a/test/x", "a-1.dist-info/RECORD", text="a/test/x,,\n")
    (host / "b/test").mkdir(parents=True)
    (tree / PACKAGES).parent.mkdir(parents=True)
    (tree / PACKAGES).symlink_to(host)
    slim.slim(tree, DEFAULT)
    assert (host / "a/test/x").exists() and (host / "b/test").exists()


def test_each_setting_gives_another_key():
    keys = [slim.settings(each) for each in (Slim(), Slim(man="keep"), Slim(locales=("de",)), False)]
    assert all(keys.count(each) == 1 for each in keys)
    assert slim.settings(None) == slim.settings(Slim())

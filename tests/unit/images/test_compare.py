"""How two images differ: files and units."""

from __future__ import annotations

from saltext.immutable.images import compare
from saltext.immutable.images.stack import Entry


def file(content: str, size: int = 5, kind: str = "file", mtime: int = 1, mode: int = 0o644) -> Entry:
    return Entry(kind, mode, 0, 0, mtime, size, content, None)


def link(target: str) -> Entry:
    return file(target, 0, "link")


FOLDER = file("", 0, "dir")
WANTS = "etc/systemd/system/multi-user.target.wants"


def test_added_removed_and_changed_files_with_their_sizes():
    old = {"etc/a": file("1", 10), "etc/b": file("2", 20), "etc/c": file("3")}
    new = {"etc/a": file("4", 15), "etc/c": file("3"), "etc/d": file("5", 7)}
    assert compare.files(old, new) == {
        "added": {"count": 1, "bytes": 7, "all": {"/etc/d": 7}},
        "removed": {"count": 1, "bytes": -20, "all": {"/etc/b": -20}},
        "changed": {"count": 1, "bytes": 5, "all": {"/etc/a": 5}},
    }


def test_a_new_time_or_folder_is_no_change():
    assert compare.files({"a": file("1", mtime=1)}, {"a": file("1", mtime=2), "folder": FOLDER}) == {}


def test_a_changed_mode_is_a_change():
    assert compare.files({"a": file("1")}, {"a": file("1", mode=0o4755)})["changed"]["all"] == {"/a": 0}


def test_of_many_files_the_largest_are_listed_and_all_are_counted():
    new = {f"f{number:04}": file(str(number), number) for number in range(500)}
    added = compare.files({}, new)["added"]
    assert (added["count"], added["bytes"], len(added["largest"])) == (500, sum(range(500)), 200)
    assert min(added["largest"].values()) == 300


def test_units_that_are_enabled_or_masked_in_one_only():
    old = {f"{WANTS}/ssh.service": link("/lib/systemd/system/ssh.service")}
    new = {
        f"{WANTS}/nginx.service": link("/lib/systemd/system/nginx.service"),
        "etc/systemd/system/cron.service": link("/dev/null"),
    }
    assert compare.services(old, new) == {
        "enabled": ["nginx.service"],
        "no longer enabled": ["ssh.service"],
        "masked": ["cron.service"],
    }
    assert compare.services(new, new) == {}


def test_a_masked_unit_is_not_enabled_though_it_is_wanted():
    wanted = {f"{WANTS}/nginx.service": link("/lib/systemd/system/nginx.service")}
    assert compare.enabled(wanted) == {"nginx.service"}
    assert compare.enabled({**wanted, "etc/systemd/system/nginx.service": link("/dev/null")}) == set()


def test_a_file_in_place_of_a_link_enables_nothing():
    assert compare.enabled({f"{WANTS}/nginx.service": file("[Unit]")}) == set()

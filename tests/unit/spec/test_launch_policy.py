"""The keys ``at_launch``, ``writable`` and ``secrets`` of a recipe."""

from __future__ import annotations

import pytest
from salt.exceptions import SaltInvocationError

from saltext.immutable.spec import definitions, policy

BASE = {"from": {"debian": "bookworm"}}


def recipes(*, base=None, **web):
    found = {"base": {**BASE, **(base or {})}, "web": {"from": {"recipe": "base"}, **web}}
    return definitions({"immutable": {"recipes": found}})


def refused(**given) -> str:
    with pytest.raises(SaltInvocationError) as err:
        recipes(**given)
    return str(err.value)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/usr", "the image's own programs are there"),
        ("/usr/local/lib", "the image's own programs are there"),
        ("/lib64", "the image's own programs are there"),
        ("/boot/efi", "the image's own programs are there"),
        ("/opt", "Salt and this pack are there"),
        ("/opt/salt/lib", "Salt and this pack are there"),
        ("/etc", "the seal is there"),
        ("/etc/salt/minion.d", "the minion's config is there"),
        ("/etc/immutable", "the seal is there"),
        ("/etc/systemd/system", "the units that a machine starts are there"),
        ("/etc/cron.d", "the system runs what is there"),
        ("/var/spool/cron", "the system runs what is there"),
        ("/etc/pam.d", "who may do what, is decided there"),
        ("/etc/ssh", "who may do what, is decided there"),
        ("/etc/sudoers.d/x", "who may do what, is decided there"),
        ("/etc/udev", "what is loaded, and who may do what, is decided there"),
        ("/etc/ld.so.conf.d", "what is loaded, and who may do what, is decided there"),
        ("/root", "what is loaded, and who may do what, is decided there"),
        ("/var", "what Salt loads and systemd starts is there"),
        ("/var/lib", "what Salt loads and systemd starts is there"),
        ("/var/lib/dpkg", "what is installed is written there"),
        ("/var/lib/immutable", "the state of Salt and this pack is there"),
        ("/var/cache/salt/minion/extmods", "what Salt loads and systemd starts is there"),
        ("/var/lib/systemd/linger", "what Salt loads and systemd starts is there"),
        ("/var/lib/salt/x", "the state of Salt and this pack is there"),
        ("/run/x", "each boot makes it again"),
        ("/proc", "each boot makes it again"),
    ],
)
def test_what_never_becomes_writable(path, why):
    error = refused(writable=[path])
    assert error.startswith(f"immutable:recipes:web:writable: {path} cannot be writable: ")
    assert why in error and error.endswith("write a directory of data, such as /srv/data")


@pytest.mark.parametrize(
    "path", ["/", "srv/data", "/srv/", "/srv//data", "/srv/../usr", "/srv/*", "/srv/a b", "/srv/a:b", "/srv/%i", "/."]
)
def test_writable_must_be_a_plain_path_of_a_directory(path):
    assert f"{path!r} is not a path of a directory; write /srv/data" in refused(writable=[path])


@pytest.mark.parametrize(
    "path", ["/srv/data", "/etc/app", "/optional", "/opt/app", "/var/lib/app", "/home", "/srv/.git"]
)
def test_what_may_be_writable(path):
    assert recipes(writable=[path]).recipes["web"].writable == (path,)


def test_one_path_within_another_is_refused_also_where_one_is_inherited():
    assert "/srv/data is within /srv; write /srv alone" in refused(writable=["/srv/data", "/srv"])
    error = refused(base={"writable": ["/srv"]}, writable=["/srv/data"])
    assert error == (
        "immutable:recipes:web:writable: /srv/data is within /srv (recipe 'base' has one of them); write /srv alone"
    )
    assert recipes(base={"writable": ["/srv/a"]}, writable=["/srv/a", "/srv/ab"])


def test_programs_run_in_folders_below_those_that_machines_write_to():
    found = recipes(base={"writable": ["/srv"]}, exec=["/var/lib/app", "/tmp/app", "/srv", "/dev/shm/app"])
    assert found.recipes["web"].exec == ("/var/lib/app", "/tmp/app", "/srv", "/dev/shm/app")
    assert policy([found.recipes["base"], found.recipes["web"]])["exec"] == list(found.recipes["web"].exec)


@pytest.mark.parametrize("path", ["/usr/bin", "/opt/app", "/srvx", "/etc", "/variable"])
def test_where_nothing_is_written_programs_run_anyway(path):
    assert refused(base={"writable": ["/srv"]}, exec=[path]) == (
        f"immutable:recipes:web:exec: {path} is not where machines write, and programs run there anyway; take it out"
    )


@pytest.mark.parametrize(
    ("path", "why"),
    [
        *((path, "many programs write there") for path in ("/var", "/tmp", "/run", "/dev/shm", "/var/tmp", "/var/log")),
        ("/var/lib", "what Salt loads and systemd starts is there"),
        ("/var/lib/dpkg/info", "what is installed is written there"),
        ("/var/spool", "the system runs what is there"),
        ("/var/lib/salt/app", "the state of Salt and this pack is there"),
    ],
)
def test_programs_do_not_run_in_all_of_a_place_that_many_write_to(path, why):
    assert f"immutable:recipes:web:exec: programs cannot run in all of {path}: {why}; " in refused(exec=[path])


@pytest.mark.parametrize("path", ["var/lib", "/var/../x", "/var/*", "/var/lib/", 7])
def test_a_wrong_path_for_programs_is_refused(path):
    assert "immutable:recipes:web:exec: " in refused(exec=[path])


@pytest.mark.parametrize("path", ["db::password", ":db", "db:", ":"])
def test_a_wrong_pillar_path_is_refused(path):
    error = refused(secrets=[path])
    assert error == f"immutable:recipes:web:secrets: {path!r} is not a pillar path; write db:password or tls:*:key"


def test_at_launch_of_each_recipe_keeps_its_environment_and_nothing_is_applied_twice():
    found = recipes(base={"at_launch": ["host"]}, at_launch=["host", "peers"]).chain("web")
    assert policy(found)["at_launch"] == [
        {"sls": ["host"], "saltenv": "base", "pillarenv": None},
        {"sls": ["peers"], "saltenv": "base", "pillarenv": None},
    ]
    found = recipes(base={"at_launch": ["host"]}, at_launch=["host"], saltenv="prod", pillarenv="blue").chain("web")
    assert policy(found)["at_launch"] == [
        {"sls": ["host"], "saltenv": "base", "pillarenv": None},
        {"sls": ["host"], "saltenv": "prod", "pillarenv": "blue"},
    ]
    assert policy(recipes().chain("web"))["at_launch"] == []

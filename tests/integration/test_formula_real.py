"""A tree as public formulas are written bakes as it is: map.jinja, TOFS, requisites of each kind, other renderers."""

from __future__ import annotations

import io
import tarfile

import pytest

RESTLESS = ("archive", "environment", "module", "stateful")
"""States that would change something each time: what they ask for is not in the image, or they do not look first."""


@pytest.fixture(scope="module")
def formula(estate):
    """The report of the bake."""
    program = tarfile.TarInfo("bin/tool")
    program.mode, program.size = 0o755, 10
    with tarfile.open(estate.states / "formula/files/default/tools.tar", "w") as archive:
        archive.addfile(program, io.BytesIO(b"#!/bin/sh\n"))
    return estate.salt_run("image.bake", "formula")


@pytest.fixture(scope="module")
def machine(formula, fleet_of_one):
    """A machine of that image: what runs a shell line in it."""
    with fleet_of_one("formula") as run:
        yield run


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("curl -s localhost:8080 || cat /srv/formula/index.html", "from the pillar Debian", id="lookup"),
        pytest.param("grep listen /etc/nginx/sites-enabled/default", "listen 8080", id="files by TOFS"),
        pytest.param("stat -c %a /srv/formula/hello.sh", "755", id="modes of a folder"),
        pytest.param("cat /etc/hosts.allow", "ALL: 127.0.0.1", id="a block with accumulated lines"),
        pytest.param("cat /etc/formula.json", '"greeting": "from the pillar"', id="serialized pillar"),
        pytest.param("grep EXTRA /etc/default/cron", 'EXTRA_OPTS="-L 2"', id="a key of a file"),
        pytest.param("readlink /etc/formula.current", "/etc/formula.d/two", id="a link"),
        pytest.param("stat -c '%U %a' /var/lib/formula", "www-data 2750", id="owner and set-group-id"),
        pytest.param("getfacl -c /var/lib/formula", "user:nobody:r-x", id="an ACL"),
        pytest.param("id -nG ada", "ada www-data", id="a user and its groups"),
        pytest.param("cat /home/ada/.ssh/authorized_keys", "ssh-ed25519 AAAA", id="its key"),
        pytest.param("cut -d: -f1,2 /etc/shadow", "ada:$6$", id="a password that Salt hashes"),
        pytest.param("ssh-keygen -F git.internal -f /home/ada/.ssh/known_hosts", "found: line 1", id="a hashed host"),
        pytest.param("crontab -u ada -l", "5 * * * * /usr/bin/true", id="its timed job"),
        pytest.param("crontab -u ada -l", "# Lines below here are managed by Salt", id="by which Salt knows it again"),
        pytest.param("cat /etc/formula.before", "before", id="prereq"),
        pytest.param("cat /etc/formula.once /etc/formula.created", "once\ncreated", id="unless and creates"),
        pytest.param("cat /etc/formula.heard", "heard", id="listen"),
        pytest.param("cat /etc/formula.retried", "yes", id="retry"),
        pytest.param("cat /etc/formula.parallel.*", "1\n2\n3", id="parallel"),
        pytest.param("ls /etc/formula.failed /etc/formula.never 2>&1", "No such file", id="onfail and onlyif"),
        pytest.param("stat -c %a /etc/formula.used", "600", id="use"),
        pytest.param("locale -a", "de_DE.utf8", id="a locale"),
        pytest.param("readlink /etc/localtime", "Europe/Berlin", id="a time zone"),
        pytest.param("getent hosts db.internal", "10.9.8.7", id="a host"),
        pytest.param("/opt/formula/bin/tool && echo runs", "runs", id="an archive"),
        pytest.param("git config --system --list; cat /root/.gitconfig", "name = formula", id="a setting of git"),
        pytest.param("cat /etc/formula.shard2 /etc/formula.py", "2\nDebian", id="the renderer py"),
        pytest.param("cat /etc/formula.objects", "objects", id="the renderer pyobjects"),
        pytest.param("cat /etc/formula.greeting", "from the pillar", id="a state and module of the tree"),
        pytest.param("/opt/salt/bin/python -m tabulate --help", "tabulate", id="a library for Salt's own Python"),
        pytest.param("debconf-show man-db", "auto-update: false", id="an answer for debconf"),
        pytest.param("systemctl is-enabled nginx", "enabled", id="a service"),
        pytest.param("systemctl is-active cron || systemctl is-enabled cron", "disabled", id="one that is dead"),
        pytest.param("systemctl is-enabled e2scrub_all.timer || true", "masked", id="one that is masked"),
    ],
)
def test_each_state_is_in_the_machine(machine, line, says):
    assert says in machine(line)


def test_the_machine_has_no_drift_and_its_services_run(estate, machine):
    found = estate.salt_run("fleet.drift", "formula").data
    assert (found["clean"], found["drifted"], found["unknown"]) == (1, [], []), found
    assert estate.salt_run("image.show", "formula:stable").data["policy"]["running"] == ["nginx.service"]


def test_a_preview_leaves_out_what_the_bake_knows(estate, machine):
    known = estate.salt_run("image.show", "formula:stable").data["policy"]["not_previewed"]
    assert {name.partition(" ")[0] for name in known} == {f"formula-{name}" for name in RESTLESS}
    [found] = estate.salt("formula-*", "immutable.preview").data.values()
    assert (found["drift"], found["left_out"]) == ([], len(RESTLESS)), found["drift"]


def test_who_asks_for_it_is_told_of_states_that_are_not_idempotent_and_the_channel_stays(estate, formula):
    answer = estate.salt_run("image.bake", "formula", "again=True", check=False)
    said = answer.stderr + answer.stdout
    assert answer.returncode == 1 and "states that would change something each time" in said, said
    assert estate.salt_run("image.show", "formula:stable").data["digest"] == formula.data["digest"]


def test_the_same_tree_gives_the_same_image(estate, formula):
    again = estate.salt_run("image.bake", "formula", "refresh=always").data
    assert again["image"] == formula.data["image"]

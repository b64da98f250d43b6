"""Somebody else's state tree bakes without a change to it, and what it enabled runs in a machine from the image."""

from __future__ import annotations

import urllib.request

import pytest


@pytest.fixture(scope="module")
def shop(estate, fleet_of_one):
    """A machine that runs the image of the whole tree: what runs a shell line in it."""
    estate.salt_run("image.bake", "shop")
    with fleet_of_one("shop") as run:
        yield run


@pytest.mark.parametrize("service", ["cron", "ssh", "shop", "salt-minion"])
def test_a_service_that_a_state_enabled_runs(shop, service):
    said = shop(f"systemctl is-enabled {service}; systemctl is-active {service}")
    assert said.split() == ["enabled", "active"], shop(f"systemctl status {service}; journalctl -u {service} | tail")


def test_no_unit_failed(shop):
    assert shop("systemctl --failed --no-legend --plain") == ""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("getent hosts database.internal", "10.99.0.7", id="host.present"),
        pytest.param("readlink /etc/localtime", "Europe/Berlin", id="timezone.system"),
        pytest.param("id ada", "uid=4001(ada) gid=4001(ada) groups=4001(ada),4000(shop)", id="user.present"),
        pytest.param("cat ~ada/.ssh/authorized_keys", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI", id="ssh_auth.present"),
        pytest.param("crontab -l", "17 3 * * * /usr/local/bin/report", id="cron.present"),
        pytest.param("stat -c '%U:%G %a' /srv/shop/css/shop.css", "shop:shop 640", id="file.recurse"),
        pytest.param("cat /etc/shop-front", "region north", id="pillar by glob, with Jinja on grains"),
        pytest.param("cat /etc/shop-front", "motto open at front", id="a custom execution module"),
        pytest.param("cat /etc/shop-front", "tier front", id="a target by a custom grain"),
        pytest.param("ls /etc/ssh/ssh_host_*_key | wc -l", "3", id="ssh host keys of its own"),
        pytest.param("cat /etc/salt/minion.d/team.conf", "log_level: info", id="the team's own minion config"),
        pytest.param("cat /etc/machine-id | wc -c", "33", id="a machine id of its own"),
        pytest.param("touch /etc/drift", "Read-only file system", id="the root is read-only"),
    ],
)
def test_it_is_as_the_tree_says(shop, line, says):
    assert says in shop(line)


def test_its_service_is_reached_and_serves_the_trees_files(shop):
    with urllib.request.urlopen(f"http://{shop.address}:8080/css/shop.css", timeout=5) as page:
        assert page.read() == b"h1 { color: teal }\n"


def test_a_custom_grain_is_there_for_the_master_too(shop, estate):
    assert estate.salt("G@shop_tier:front", "-C", "grains.get", "roles").data == {shop.minion_id: ["shop"]}


def test_nothing_of_the_bake_is_left_in_the_image(shop):
    """But what packages wrote for good when they were installed: the mail name is theirs."""
    theirs = "--exclude-dir=exim4 --exclude-dir=debconf --exclude=mailname"
    assert shop(f"grep -rlsI {theirs} shop-bake /etc /var /usr/lib /root /srv") == ""

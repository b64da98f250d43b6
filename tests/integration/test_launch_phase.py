"""The launch phase of real machines: secrets of the pillar, what it may write, what its failure leads to."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from support.estate import wait_for

from saltext.immutable.machines import machine as all_machines
from saltext.immutable.machines import nspawn

PASSWORD = "correct-horse-1"
VAULT = {"version": "1", "db": {"user": "vault", "password": PASSWORD}, "leaks": False, "written": [], "slow": 0}
VAULT["fails"] = False


@pytest.fixture(autouse=True)
def pillar(estate, as_delivered):
    """Return what changes the pillar of the machines."""

    def write(**changes) -> None:
        estate.write_pillar("vault", {"vault": {**VAULT, **changes}})

    return write


@pytest.fixture(scope="module")
def vault(estate) -> dict:
    """The image of recipe ``vault``, and a fleet of one machine that runs it."""
    image = estate.salt_run("image.bake", "vault").data
    estate.salt_run("fleet.roll", "vault")
    yield image
    estate.salt_run("fleet.destroy", "vault")


def machines(estate, fleet="vault") -> list[str]:
    return sorted(machine["minion_id"] for machine in estate.salt_run("fleet.status", fleet).data["machines"])


def test_a_machine_has_its_secret_and_its_writable_directory_when_it_is_ready(estate, vault, inside):
    (minion,) = machines(estate)
    assert inside(minion, "cat /run/secrets/vault.env") == f"PASSWORD={PASSWORD}"
    assert inside(minion, "cat /srv/data/seen") == PASSWORD
    assert "Read-only" in inside(minion, "touch /srv/x") and "Read-only" in inside(minion, "touch /etc/x")
    assert vault["warnings"] == []
    status = estate.salt(minion, "immutable.status").data[minion]
    assert status["launched"] is True
    looked = estate.salt(minion, "immutable.drift", f"digest={vault['digest']}").data[minion]
    assert (looked["drift"], looked["proven"]) == ([], True), "what the phase did is no drift"


def test_it_is_not_ready_before(estate, vault, pillar, inside):
    pillar(slow=6, version="slow")
    estate.salt_run("image.bake", "vault")
    rolled = estate.salt_run("fleet.roll", "vault").data
    (minion,) = machines(estate)
    result = json.loads(inside(minion, "cat /run/immutable/launch.json"))
    assert result["ok"] and rolled["seconds"] > result["seconds"] >= 6


def test_a_secret_that_changed_reaches_a_machine_that_runs(estate, vault, pillar, inside):
    (minion,) = machines(estate)
    pillar(db={"password": "battery-staple-2"})
    done = estate.salt(minion, "immutable.launch").data[minion]
    assert (done["ok"], done["sls"], done["failed"]) == (True, ["vault.launch"], {})
    assert inside(minion, "cat /run/secrets/vault.env") == "PASSWORD=battery-staple-2"
    wait_for(lambda: inside(minion, "cat /srv/data/seen") == "battery-staple-2", 10)


def test_a_whole_fleet_gets_a_secret_that_changed(estate, vault, pillar, inside):
    (minion,) = machines(estate)
    pillar(db={"password": "for-all-of-you-3"})
    assert minion in str(estate.salt_run("fleet.relaunch_phase", "vault", "test=True").data)
    assert inside(minion, "cat /run/secrets/vault.env") != "PASSWORD=for-all-of-you-3"
    assert estate.salt_run("fleet.relaunch_phase", "vault").ok
    assert inside(minion, "cat /run/secrets/vault.env") == "PASSWORD=for-all-of-you-3"
    pillar(fails=True)
    failed = estate.salt_run("fleet.relaunch_phase", "vault", check=False)
    assert failed.returncode == 1 and "the vault does not know this machine" in failed.stdout + failed.stderr
    assert machines(estate) == [minion], "what serves is not thrown away for it"
    pillar()
    assert estate.salt_run("fleet.relaunch_phase", "vault").ok


def test_its_states_see_the_mine(estate, vault, inside):
    (minion,) = machines(estate)
    assert inside(minion, "cat /run/peers") == "{}"
    estate.write_pillar("vault", {"vault": VAULT, "mine_functions": {"test.echo": ["here"]}})
    estate.salt(minion, "saltutil.refresh_pillar", "wait=True")
    estate.salt(minion, "mine.update")
    estate.salt(minion, "immutable.launch")
    assert json.loads(inside(minion, "cat /run/peers")) == {minion: "here"}


def test_a_phase_that_fails_later_says_so_and_the_machine_too(estate, vault, pillar):
    (minion,) = machines(estate)
    pillar(fails=True)
    answer = estate.salt(minion, "immutable.launch", check=False)
    sentence = "the launch phase failed: the vault opens: the vault does not know this machine"
    assert answer.returncode == 1 and sentence in answer.stdout
    assert estate.salt(minion, "immutable.status").data[minion]["launched"] == sentence
    pillar()
    assert estate.salt(minion, "immutable.launch").ok
    assert estate.salt(minion, "immutable.status").data[minion]["launched"] is True


def test_a_reboot_begins_anew_but_keeps_what_is_on_the_disk(estate, vault, pillar, inside):
    (minion,) = machines(estate)
    first = json.loads(inside(minion, "touch /srv/data/mine /run/mine; cat /run/immutable/launch.json"))
    pillar(db={"password": "of-the-second-boot"})
    estate.salt(minion, "system.reboot")
    wait_for(lambda: launched_since(first, estate.host, minion), 60)
    assert inside(minion, "cat /run/secrets/vault.env") == "PASSWORD=of-the-second-boot"
    assert inside(minion, "ls -d /srv/data/mine /run/mine 2>/dev/null") == "/srv/data/mine"
    assert estate.salt_run("fleet.roll", "vault").data["timeline"] == []
    assert machines(estate) == [minion]


def launched_since(first, host, minion) -> bool:
    """Tell whether the phase of another boot is over. Nobody enters a machine that shuts down: its init stops all
    processes, and whoever waits for one of them is stopped too.
    """
    init = nspawn.find_init(all_machines.find(host, minion).cgroup)
    with suppress(OSError, ValueError):
        told = json.loads(Path(f"/proc/{init}/root/run/immutable/launch.json").read_text())
        return told["boot_id"] != first["boot_id"]
    return False


def test_a_second_run_at_the_same_time_is_told(estate, vault, pillar, inside):
    (minion,) = machines(estate)
    pillar(slow=5)
    inside(minion, "systemctl start immutable-launch.service")
    answer = estate.salt(minion, "immutable.launch", check=False)
    assert answer.returncode == 1 and "the launch phase is running already" in answer.stdout
    assert estate.salt(minion, "immutable.status").data[minion]["launched"] is True, "what was known stays"
    wait_for(lambda: inside(minion, "systemctl is-active immutable-launch.service") == "inactive", 20)


def test_a_launch_that_fails_brings_the_fleet_back_and_shows_the_reason(estate, vault, pillar):
    before = machines(estate)
    pillar(version="2", fails=True)
    estate.salt_run("image.bake", "vault")
    answer = estate.salt_run("fleet.roll", "vault", check=False)
    said = answer.stdout + answer.stderr
    assert answer.returncode == 1
    assert "the launch phase failed: the vault opens: the vault does not know this machine" in said, said
    assert machines(estate) == before
    assert estate.salt_run("fleet.status", "vault").data["rollout"]["outcome"] == "rolled back"


def test_it_writes_run_var_and_the_writable_paths_and_nothing_else_even_where_the_root_is_writable(
    estate, vault, pillar, inside
):
    good = ["/run/a/b", "/var/lib/a/b", "/srv/data/b"]
    pillar(version="3", written=good)
    estate.salt_run("image.bake", "vault-open")
    try:
        estate.salt_run("fleet.roll", "vault-open")
        (minion,) = machines(estate, "vault-open")
        assert inside(minion, f"cat {' '.join(good)}").splitlines() == [f"by {minion}"] * 3
        assert inside(minion, "touch /etc/x; ls /etc/x") == "/etc/x", "the root itself is writable"
        bad = ["/etc/y", "/usr/y", "/opt/salt/y", "/srv/y", "/root/y", "/home/y", "/proc/1/root/etc/y"]
        pillar(version="3", written=bad)
        answer = estate.salt(minion, "immutable.launch", check=False)
        assert answer.returncode == 1
        for path in bad:
            assert f"{path}: " in answer.stdout, answer.stdout
        assert inside(minion, f"ls {' '.join(bad)}").count("No such file") == len(bad)
    finally:
        estate.salt_run("fleet.destroy", "vault-open")


def test_a_fleet_without_a_launch_phase_starts_none(estate, inside):
    estate.salt_run("image.bake", "small")
    try:
        estate.salt_run("fleet.roll", "small")
        (minion,) = machines(estate, "small")
        assert "ConditionResult=no" in inside(minion, "systemctl show -p ConditionResult immutable-launch.service")
        assert estate.salt(minion, "immutable.status").data[minion]["launched"] is True
        assert estate.salt(minion, "immutable.launch").data[minion]["sls"] == []
    finally:
        estate.salt_run("fleet.destroy", "small")


def test_a_directory_that_the_image_does_not_have_is_named_by_the_bake(estate):
    file = estate.pillar / "immutable.sls"
    file.write_text(file.read_text().replace("writable: [/srv/data]", "writable: [/srv/nowhere]"))
    answer = estate.salt_run("image.bake", "vault", check=False)
    assert answer.returncode == 1
    assert "writable: /srv/nowhere is no directory of the image" in answer.stdout + answer.stderr


def test_a_secret_that_reaches_the_image_is_named_but_never_shown(estate, vault, pillar):
    password = "never-to-be-seen-4711"
    pillar(leaks=True, db={"user": "vault", "password": password})
    answer = estate.salt_run("image.bake", "vault")
    (warning,) = answer.data["warnings"] or pytest.fail(f"no warning: {answer.data}")
    assert warning.startswith("/etc/vault.conf holds the value of pillar vault:db:password, ")
    assert warning in answer.stderr
    again = estate.salt_run("image.bake", "vault")
    assert again.data["cached"] and again.data["warnings"] == [warning]
    shown = estate.salt_run("image.show", answer.data["image"])
    assert warning in shown.data["report"]["warnings"]
    said = "".join(one.stdout + one.stderr for one in (answer, again, shown))
    assert password not in said
    host, run = estate.host, estate.home / "run"
    kept = [host.root / "store.sqlite", *host.root.glob("keys/*"), *host.consoles.iterdir()]
    kept += [*host.root.glob("layers/*/layer.json"), *host.root.glob("images/*/image.json")]
    kept += [file for file in (run / "cache/jobs").rglob("*") if file.is_file()]
    kept += [file for file in (run / "logs").rglob("*") if file.is_file()]
    assert [str(file) for file in kept if password.encode() in file.read_bytes()] == []

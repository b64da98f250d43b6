"""A minion that runs is sealed as it is, opened for a while, and let go again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.estate import wait_for

from saltext.immutable.machines import images, network
from saltext.immutable.machines import machine as machines
from saltext.immutable.machines.description import Machine

PET = "pet.tests.example.com"
TICKS = "/var/tmp/ticks"
JOB = f"schedule: {{tick: {{function: cmd.run, args: ['echo x >> {TICKS}'], seconds: 1}}}}"


class Pet:
    """An old-fashioned minion: it is configured by hand and can be changed."""

    def __init__(self, estate: Any, shell: Callable[[str], str]) -> None:
        self.estate, self.shell = estate, shell

    def salt(self, *words: str) -> Any:
        return self.estate.salt(PET, *words).data[PET]

    def refuses(self, *words: str) -> bool:
        answer = self.estate.salt(PET, *words, check=False)
        return answer.returncode == 1 and "sealed:" in answer.stdout + answer.stderr

    def answers(self) -> bool:
        return bool(self.estate.salt(PET, "test.ping", check=False).ok)

    def ticks(self) -> bool:
        """Whether its scheduled job runs."""
        self.shell(f"rm -f {TICKS}; sleep 3")
        return self.shell(f"test -e {TICKS} && echo yes") == "yes"

    def restart(self) -> None:
        self.shell("systemctl restart salt-minion")
        wait_for(self.answers, 60)


@pytest.fixture(scope="module")
def pet(estate, inside, booted) -> Iterator[Pet]:
    digest = estate.salt_run("image.bake", "base").data["digest"]
    minion = {"id": PET, "master": network.gateway(estate.net), "acceptance_wait_time": 1}
    ports = {"master_port": estate.ports[1], "publish_port": estate.ports[0]}
    estate.expect(PET)
    unsealed = images.lower(estate.host, digest)[:-1]
    place = {"bridge": estate.net.bridge, "subnet": estate.net.subnet}
    machines.launch(estate.host, Machine(PET, "", unsealed, {**minion, **ports}, **place, read_only=False))
    try:
        booted(PET)
        found = Pet(estate, lambda line: inside(PET, line))
        found.shell(f"sed -i '/^schedule/d' /etc/salt/minion.d/zz-immutable.conf; "
                    f"echo \"{JOB}\" > /etc/salt/minion.d/team.conf")  # fmt: skip
        found.restart()
        yield found
    finally:
        machines.destroy(estate.host, PET)
        estate.salt_key("--yes", f"--delete={PET}")


def test_a_minion_with_the_pack_installed_behaves_as_without_it(pet):
    assert pet.salt("immutable.status") == {"sealed": False, "problems": []}
    assert pet.salt("cmd.run", "echo changed > /etc/changed && cat /etc/changed") == "changed"
    assert pet.ticks()


def test_sealing_is_foreseen(pet):
    [state] = pet.salt("state.apply", "adopt", "test=True").values()
    assert state["result"] is None
    assert pet.salt("immutable.seal", "test=True")["stopped_jobs"]["tick"] == "cmd.run"
    assert not pet.refuses("cmd.run", "true")


def test_it_is_sealed_at_once_and_after_a_restart(pet):
    [state] = pet.salt("state.apply", "adopt").values()
    assert state["changes"]["sealed"]["new"].startswith("adopted@")
    for moment in ("at once", "after a restart"):
        if moment != "at once":
            pet.restart()
        assert pet.refuses("cmd.run", "touch /etc/changed")
        assert pet.refuses("state.apply", "adopt")
        assert not pet.ticks()
        status = pet.salt("immutable.status")
        assert (status["adopted"], status["problems"], status["stopped_jobs"]["tick"]) == (True, [], "cmd.run")
        assert pet.shell("systemctl is-active immutable-mine.timer") == "active"


def test_its_drift_is_found(pet):
    digest = pet.salt("immutable.status")["digest"]
    assert pet.salt("immutable.drift", f"digest={digest}")["drift"] == []
    pet.shell("echo more >> /etc/changed; mkdir -p /srv/uploads; echo fine > /srv/uploads/a")
    found = pet.salt("immutable.drift", f"digest={digest}")
    assert found["proven"]
    assert [item["what"] for item in found["drift"]] == ["/etc/changed"]


def test_the_glass_is_broken_for_a_while_and_the_token_counts_once(pet):
    refused = pet.estate.salt_run("fleet.break_glass", PET, check=False)
    assert refused.returncode == 1 and "reason" in refused.stderr + refused.stdout
    done = pet.estate.salt_run("fleet.break_glass", PET, "reason=the disk is full", "ttl=5m")
    assert done.ok
    assert pet.salt("cmd.run", "rm /etc/changed && echo gone") == "gone"
    glass = pet.salt("immutable.status")["glass"]
    assert glass["reason"] == "the disk is full" and 200 < glass["seconds_left"] <= 300
    token = pet.shell("cat /run/immutable/glass")
    assert pet.salt("immutable.end_break_glass") == {"changed": True}
    assert pet.refuses("cmd.run", "true")
    replayed = pet.estate.salt(PET, "immutable.break_glass", token, check=False)
    assert "does not answer the last challenge" in replayed.stdout + replayed.stderr
    pet.shell(f"printf %s '{token[:-8]}AAAAAAAA' > /run/immutable/glass")
    assert pet.refuses("cmd.run", "true")
    assert pet.salt("immutable.status")["counts"]["changed"]["cmd.run"] == 1


def test_it_is_let_go_only_through_broken_glass(pet):
    assert pet.refuses("immutable.unseal")
    pet.estate.salt_run("fleet.break_glass", PET, "reason=back to highstate")
    assert pet.salt("immutable.unseal") == {"changed": True}
    assert pet.salt("immutable.status") == {"sealed": False, "problems": []}
    assert pet.salt("cmd.run", "echo changed") == "changed"
    pet.restart()
    assert pet.ticks()

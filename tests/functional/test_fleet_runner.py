"""The fleet runner and state in Salt's own loader, on a pillar of files; machines are simulated."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import salt.config
import salt.runner
import salt.utils.event
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from salt.exceptions import CommandExecutionError
from salt.utils.data import repack_dictlist
from salt.utils.reactor import Reactor

from saltext.immutable import minions, providers
from saltext.immutable.bake import contents
from saltext.immutable.fleet.books.ledger import Ledger
from saltext.immutable.guard.break_glass_token import verify
from saltext.immutable.minions import Event
from saltext.immutable.providers import Identity, Instance
from saltext.immutable.store import Image, Store

ROOT = Path(__file__).parents[2]
ONE, TWO = "1" * 64, "2" * 64
PILLAR = {
    "immutable": {
        "recipes": {
            "base": {"from": {"debian": "bookworm"}},
            "web": {"from": {"recipe": "base"}, "states": ["web"]},
        },
        "fleets": {
            "web": {
                "recipe": "web",
                "size": 3,
                "minion_id": "web-{token}.example.com",
                "provider": {"name": "simulated"},
                "strategy": {"max_surge": 1, "ready_within": "2s"},
                "health": [{"fun": "service.status", "args": ["nginx"]}],
            }
        },
    }
}


class Rack:
    """A provider whose machines are up at once, and the Salt that they enrol with."""

    settles = 0.0
    concurrency = 4

    def __init__(self) -> None:
        self.machines: dict[str, Instance] = {}
        self.keys: set[str] = set()
        self.ill: set[str] = set()
        self.drifted: set[str] = set()
        self.opened: list[str] = []
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def publish(self, image: str) -> str:
        return image

    def launch(self, published: str, identity: Identity) -> str:
        name = identity.minion_id
        with self._lock:
            place = (published, True, "127.0.0.1", time.time(), identity.installation)
            self.machines[name] = Instance(name, name, identity.fleet, identity.generation, *place)
            self._events.append(Event("started", name))
        return name

    def list(self, fleet: str | None = None) -> list[Instance]:
        with self._lock:
            return list(self.machines.values())

    def destroy(self, ref: str) -> None:
        with self._lock:
            self.machines.pop(ref, None)

    def console(self, ref: str) -> str:
        return "nginx: configuration file is broken"

    def expect(self, minion_id: str) -> None:
        self.keys.add(minion_id)

    def forget(self, minion_id: str) -> None:
        self.keys.discard(minion_id)

    def forged(self) -> list[str]:
        return []

    def poll(self) -> list[Event]:
        with self._lock:
            events, self._events = self._events, []
        return events

    def contested(self, minion_id: str) -> bool:
        return False

    def accepted(self, minion_id: str) -> bool:
        return minion_id in self.keys

    def with_key(self) -> set[str]:
        return set(self.keys)

    def ask(self, minion_id: str, fun: str, within: float, **kwargs) -> object:
        return getattr(self, fun.replace(".", "_"))(minion_id, **kwargs)

    def immutable_drift(self, minion_id: str, digest: str, full: bool) -> object:
        drift = [{"kind": "file", "what": "/etc/motd", "detail": "changed"}] if minion_id in self.drifted else []
        proven = digest == self.machines[minion_id].image
        return {"drift": drift, "counts": {}, "proven": proven, "files": 1, "seconds": 0.1}

    def immutable_launch(self, minion_id: str) -> object:
        return {"ok": self.machines[minion_id].image not in self.ill, "failed": {}, "sls": []}

    def immutable_break_glass_challenge(self, minion_id: str, ttl: float) -> object:
        return {"machine": minion_id, "nonce": "n", "boot_id": "b", "until": ttl, "opens": ["all"], "cannot": []}

    def immutable_break_glass(self, minion_id: str, token: str) -> object:
        self.opened.append(token)
        return True

    def immutable_end_break_glass(self, minion_id: str) -> object:
        return True

    def image_of(self, minion_id: str, within: float) -> str:
        return self.machines[minion_id].image

    def check_all(self, minion_id: str, checks: list[object], within: float) -> tuple[str, list[str | None]]:
        return self.image_of(minion_id, within), [self.check(minion_id, None, one, within) for one in checks]

    def check_together(self, minion_id: str, checks: list[object], within: float) -> list[str | None]:
        return [self.check(minion_id, None, one, within) for one in checks]

    def check(self, minion_id: str, address: str | None, check: object, within: float) -> str | None:
        return "nginx is dead" if self.machines[minion_id].image in self.ill else None

    def close(self) -> None:
        pass


class Bus:
    """An event bus without a master; it remembers what was said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict]] = []

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    def fire_event(self, data, tag, *_args, **_kwargs):
        self.said.append((tag, data))

    def destroy(self):
        pass


@pytest.fixture
def bus(monkeypatch):
    bus = Bus()
    monkeypatch.setattr(salt.utils.event, "get_event", lambda *args, **kwargs: bus)
    monkeypatch.setattr(salt.utils.event, "get_master_event", lambda *args, **kwargs: bus)
    return bus


@pytest.fixture
def rack(bus, monkeypatch):
    rack = Rack()
    monkeypatch.setattr(minions, "Minions", lambda opts: rack)
    monkeypatch.setattr(providers, "load", lambda name, settings, opts: rack)
    monkeypatch.setattr(providers, "check", lambda name, settings: None)
    return rack


@pytest.fixture
def opts(tmp_path):
    for name, text in {
        "pillar/top.sls": yaml.safe_dump({"base": {"*": ["immutable"]}}),
        "pillar/immutable.sls": yaml.safe_dump(PILLAR),
        "srv/orch.sls": yaml.safe_dump({"web": {"fleet.running": []}}),
        "master": yaml.safe_dump(
            {
                "root_dir": str(tmp_path / "root"),
                "user": "root",
                "id": "host_master",
                "pillar_roots": {"base": [str(tmp_path / "pillar")]},
                "file_roots": {"base": [str(tmp_path / "srv")]},
                "runner_dirs": [str(ROOT / "_runners")],
                "states_dirs": [str(ROOT / "_states")],
                "immutable": {"store": f"sqlite:///{tmp_path}/store/store.sqlite", "root": str(tmp_path)},
            }
        ),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    opts = salt.config.master_config(str(tmp_path / "master"))
    for place in ("cachedir", "sock_dir", "pki_dir"):
        Path(opts[place]).mkdir(parents=True, exist_ok=True)
    (Path(opts["cachedir"]) / "proc").mkdir(exist_ok=True)
    return opts


@pytest.fixture
def store(opts):
    return Store.open(opts["immutable"]["store"])


@pytest.fixture
def run(opts, rack):
    """Run a runner function as salt-run does: (whether it succeeded, what it returned)."""

    def run(fun, *args, **kwargs):
        with salt.runner.RunnerClient(opts) as client:
            out = client.cmd(fun, list(args), kwarg=kwargs, print_event=False, full_return=True)
        return out["success"], out["return"]

    return run


def publish(store, digest):
    guard = {"allow": [], "deny": [], "dry_runs": True, "returners": []}
    policy = {"guard": guard, "at_launch": [], "writable": [], "mutable": [], "states": []}
    store.add_image(Image(digest, "web", (digest,), time.time(), True, {"policy": policy}))
    store.set_channel("web", "stable", digest)


def test_plan_roll_status_rollback_destroy(run, rack, store, bus):
    publish(store, ONE)
    ok, plan = run("fleet.plan", "web")
    assert ok, plan
    assert (plan["verdict"], plan["changes"]) == ("roll", {"launch": 3, "destroy": []})
    assert plan["image"] == "web@111111111111"
    ok, done = run("fleet.roll", "web")
    assert ok, done
    assert {tag for tag, _ in bus.said} >= {f"immutable/web/{what}" for what in ("launch", "ready", "done")}
    assert (done["outcome"], done["generation"], done["size"]) == ("done", 1, 3)
    assert [line["what"] for line in done["timeline"]].count("ready") == 3
    assert rack.keys == set(rack.machines)
    assert run("fleet.plan", "web")[1]["verdict"] == "done"

    publish(store, TWO)
    assert run("fleet.roll", "web", test=True)[1]["changes"]["destroy"] == list(Ledger(store, "web").records())
    ok, status = run("fleet.status", "web")
    assert {machine["phase"] for machine in status["machines"]} == {"serving"}
    assert run("fleet.roll", "web")[0]
    assert run("fleet.rollback", "web")[1]["image"] == "web@111111111111"
    ok, history = run("fleet.history", "web")
    assert [one["generation"] for one in history["generations"]] == [2, 1]
    assert [one["kind"] for one in history["rollouts"]] == ["rollback", "roll", "roll"]

    assert len(run("fleet.destroy", "web", test=True)[1]["changes"]["destroy"]) == 3
    assert run("fleet.destroy", "web")[1]["size"] == 0
    assert not rack.machines
    assert not rack.keys


def test_a_window_that_cannot_be_understood_is_said_aloud(run, rack, store, opts):
    publish(store, ONE)
    pillar = Path(opts["pillar_roots"]["base"][0], "immutable.sls")
    mars = {"cron": "0 2 * * sat", "duration": "4h", "timezone": "Mars/Olympus"}
    fleet = {**PILLAR["immutable"]["fleets"]["web"], "windows": [mars]}
    pillar.write_text(yaml.safe_dump({"immutable": {**PILLAR["immutable"], "fleets": {"web": fleet}}}))
    said = (
        "immutable:fleets:web:windows:0:timezone: there is no time zone 'Mars/Olympus'; write Europe/Berlin or UTC; "
        "until then nothing is changed by choice"
    )
    assert run("fleet.plan", "web")[1]["warnings"] == [said]
    assert run("fleet.status", "web")[1]["warnings"] == [said]
    pillar.write_text(yaml.safe_dump(PILLAR))
    assert run("fleet.status", "web")[1]["warnings"] == []


def test_a_failed_roll_is_an_error_that_shows_the_reason_and_the_console(run, rack, store):
    publish(store, ONE)
    run("fleet.roll", "web")
    publish(store, TWO)
    rack.ill.add(TWO)
    ok, said = run("fleet.roll", "web")
    assert not ok
    for words in ("rolled back", "nginx is dead", "nginx: configuration file is broken"):
        assert words in said
    assert {machine.image for machine in rack.machines.values()} == {ONE}


@pytest.mark.parametrize(
    ("fun", "args", "says"),
    [
        pytest.param("fleet.plan", ["db"], "immutable:fleets:db is not in the pillar; there are: web", id="unknown"),
        pytest.param("fleet.roll", ["web"], "no image is in web:stable", id="never baked"),
        pytest.param("fleet.rollback", ["web"], "no good generation to go back to", id="nowhere to go back to"),
    ],
)
def test_wrong_input_is_an_error_that_names_the_mend(run, fun, args, says):
    ok, said = run(fun, *args)
    assert not ok
    assert says in said


def test_plan_warns_of_a_master_that_lets_everybody_in(run, opts, store):
    publish(store, ONE)
    opts["auto_accept"] = True
    assert "auto_accept: True" in run("fleet.plan", "web")[1]["warnings"][0]


def test_rebuild_bakes_with_updates_and_rolls(run, rack, store, monkeypatch):
    from saltext.immutable.bake import bake as baking

    asked = []

    def bake(name, opts, **how):
        asked.append((name, how["refresh"], how["channel"], how["test"]))
        publish(store, TWO)
        report = {"image": "web@222222222222", "digest": TWO, "channel": "stable", "changed": True, "cached": False}
        return {**report, "layers": [], "packages": 0, "seconds": 0.0, "deferred": [], "warnings": []}

    monkeypatch.setattr(baking, "bake", bake)
    publish(store, ONE)
    run("fleet.roll", "web")
    ok, done = run("fleet.rebuild", "web")
    assert ok, done
    assert asked == [("web", "updates", "stable", False)]
    assert done["roll"]["image"] == "web@222222222222"


@pytest.fixture
def machines(run, store, rack):
    """Three machines that run image 1, by id."""
    publish(store, ONE)
    assert run("fleet.roll", "web")[0]
    return sorted(rack.machines)


def test_a_tainted_machine_is_shown_planned_and_replaced(run, bus, rack, machines):
    ok, told = run("fleet.taint", machines[0], reason="vim /etc/motd")
    assert ok and told["tainted"] == ["vim /etc/motd"], told
    assert "immutable/web/tainted" in [tag for tag, _ in bus.said]
    status = run("fleet.status", "web")[1]
    assert status["tainted"] == 1
    assert {one["minion_id"]: one["tainted"] for one in status["machines"]} == {
        machines[0]: ["vim /etc/motd"],
        machines[1]: [],
        machines[2]: [],
    }
    plan = run("fleet.plan", "web")[1]
    assert (plan["verdict"], plan["changes"]) == ("roll", {"launch": 1, "destroy": [machines[0]]})
    assert "tainted: vim /etc/motd" in [action["reason"] for action in plan["actions"]]
    assert run("fleet.roll", "web")[0]
    assert machines[0] not in rack.machines
    assert set(machines[1:]) < set(rack.machines)
    [deed] = run("fleet.history", "web")[1]["deeds"]
    assert (deed["what"], deed["minion_id"], deed["reason"]) == ("tainted", machines[0], "vim /etc/motd")
    assert deed["who"]
    assert run("fleet.status", "all")[1]["fleets"]["web"]["tainted"] == 0
    assert run("fleet.history", "all")[1]["fleets"]["web"]["deeds"] == [deed]


def test_every_event_of_a_rollout_names_the_fleet_though_the_command_names_a_machine_or_all(run, bus, rack, machines):
    bus.said.clear()
    assert run("fleet.replace", machines[0])[0]
    del rack.machines[machines[1]]
    assert run("fleet.reconcile", "all", orphans=False)[0]
    told = [(tag, data["fleet"]) for tag, data in bus.said if tag.startswith("immutable/")]
    assert sum(tag == "immutable/web/launch" for tag, _ in told) == 2
    assert {(tag.split("/")[1], fleet) for tag, fleet in told} == {("web", "web")}


def test_untaint_takes_it_back(run, machines):
    run("fleet.taint", machines[0], reason="why")
    ok, told = run("fleet.untaint", machines[0])
    assert ok and (told["changed"], told["tainted"]) == (True, [])
    assert run("fleet.plan", "web")[1]["verdict"] == "done"


def test_drift_is_told_tainted_and_fails_the_command(run, bus, rack, machines):
    ok, found = run("fleet.drift", "web")
    assert ok and (found["retcode"], found["clean"]) == (0, 3), found
    rack.drifted.add(machines[1])
    ok, found = run("fleet.drift", "all", full=True)
    assert not ok
    assert (found["retcode"], found["drifted"], found["clean"]) == (1, [machines[1]], 2)
    [data] = [data for tag, data in bus.said if tag == f"immutable/drift/{machines[1]}"]
    assert (data["fleet"], data["items"][0]["what"]) == ("web", "/etc/motd")
    assert run("fleet.status", "web")[1]["tainted"] == 0
    assert run("fleet.taint", machines[1], kind="drift")[1]["tainted"] == ["1 drifted: file /etc/motd changed"]
    assert run("fleet.drift", "web", taint=True, minion=machines[1])[1]["retcode"] == 1
    assert run("fleet.plan", "web")[1]["changes"]["destroy"] == [machines[1]]


def test_glass_is_broken_and_the_machine_is_tainted_for_ever(run, opts, bus, rack, machines):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    Path(opts["pki_dir"], "master.pem").write_bytes(pem)
    ok, told = run("fleet.break_glass", machines[0], reason="core dump", ttl="1m")
    assert ok and told["opens"] == ["all"], told
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    grant = verify(rack.opened[0], public)
    assert (grant.machine, grant.reason, grant.until) == (machines[0], "core dump", 60.0)
    assert rack.opened[0] not in repr(bus.said), "who reads the bus cannot use it"
    ok, said = run("fleet.untaint", machines[0])
    assert not ok and "was opened by break-glass" in said
    assert run("fleet.end_break_glass", machines[0])[0]
    assert run("fleet.plan", "web")[1]["changes"]["destroy"] == [machines[0]]


def test_the_launch_phase_of_all_machines(run, rack, machines):
    assert set(run("fleet.relaunch_phase", "web", test=True)[1]["order"]) == set(machines)
    ok, done = run("fleet.relaunch_phase", "web")
    assert ok and done["result"] is True
    assert [deed["what"] for deed in run("fleet.history", "web")[1]["deeds"]] == ["relaunched", "relaunch"] * 3
    rack.ill.add(ONE)
    ok, said = run("fleet.relaunch_phase", "web")
    assert not ok and "the launch phase failed" in said


def test_the_example_reactor_taints_what_has_drifted_and_nobody_else(run, rack, opts, machines):
    """As Salt's reactor renders it; an event that anybody can fire gets nothing else done."""
    rack.drifted.add(machines[0])
    run("fleet.drift", "web")
    reactor = Reactor({**opts, "reactor": [], "file_client": "local"})

    def react(tag, data):
        [chunk] = reactor.reactions(tag, data, [str(ROOT / "examples/reactor/drift.sls")])
        assert (chunk["state"], chunk["fun"]) == ("runner", "fleet.taint")
        return run(chunk["fun"], **repack_dictlist(chunk["args"]))

    ok, told = react(f"immutable/drift/{machines[0]}", {"items": []})
    assert ok and told["tainted"] == ["1 drifted: file /etc/motd changed"], told
    ok, said = react(f"immutable/drift/{machines[1]}", {"reason": "a forged event"})
    assert not ok and f"no drift of {machines[1]} is recorded" in said
    injected = "x'\nboom:\n  runner.salt.cmd:\n    - args:\n      - cmd: id"
    ok, said = react(f"immutable/drift/{injected}", {})
    assert not ok and "holds characters that cannot be printed" in said


def orchestrate(run, **kwargs):
    ok, said = run("state.orchestrate", "orch", **kwargs)
    (result,) = said["data"]["host_master"].values()
    return ok, result


def test_the_state_keeps_a_fleet_on_its_channel(run, rack, store):
    publish(store, ONE)
    ok, would = orchestrate(run, test=True)
    assert would["result"] is None
    assert would["changes"] == {"launch": 3, "destroy": []}
    assert not rack.machines
    ok, done = orchestrate(run)
    assert ok and done["result"] is True
    assert done["changes"]["image"] == "web@111111111111"
    ok, again = orchestrate(run)
    assert (again["result"], again["changes"]) == (True, {})


def test_the_state_fails_when_the_roll_does(run, rack, store):
    publish(store, ONE)
    rack.ill.add(ONE)
    ok, failed = orchestrate(run)
    assert not ok
    assert failed["result"] is False
    assert "nginx is dead" in failed["comment"]


def bake(store, digest, **packages):
    """Publish an image of which it is written down what went into it."""
    made = {"sls": {"web": digest[:12]}, "files": {}, "recipe": {}, "tree": digest, "pillar": "p", "tops": ""}
    found = {"packages": packages, "states": {"web": made}, "grains": {}, "size": 1000, "files": 10}
    contents.keep(store, digest, found)
    publish(store, digest)


def test_a_plan_shows_how_the_images_differ_and_is_done_exactly_once(run, rack, store):
    bake(store, ONE, nginx="1.22", bash="5.2")
    first = run("fleet.plan", "web")[1]
    assert first["difference"] == {"from": None, "to": "web@111111111111", "same": False}
    assert run("fleet.roll", "web", plan=first["plan"])[0]
    settled = run("fleet.plan", "web")[1]
    assert (settled["plan"], settled["difference"]["same"]) == (None, True)

    bake(store, TWO, nginx="1.24", curl="8")
    plan = run("fleet.plan", "web")[1]
    assert plan["difference"]["packages"] == {
        "added": {"curl": "8"},
        "removed": {"bash": "5.2"},
        "changed": {"nginx": "1.22 -> 1.24"},
    }
    assert plan["difference"]["states"] == {"changed": ["web"]}
    assert run("fleet.roll", "web", plan=plan["plan"], test=True)[1]["actions"] == plan["actions"]
    assert "leave image out" in run("fleet.roll", "web", plan=plan["plan"], image="web@222222222222")[1]
    ok, done = run("fleet.roll", "web", plan=plan["plan"])
    assert (ok, done["image"]) == (True, "web@222222222222")
    ok, said = run("fleet.roll", "web", plan=plan["plan"])
    assert not ok and "a plan is good for one roll" in said


def test_a_plan_is_refused_when_the_world_moved(run, rack, store, machines):
    bake(store, TWO)
    plan = run("fleet.plan", "web")[1]["plan"]
    assert run("fleet.taint", machines[0], reason="vim")[0]
    bake(store, "3" * 64)
    assert run("fleet.roll", "web", plan=plan, test=True)[0] is False
    ok, said = run("fleet.roll", "web", plan=plan)
    assert not ok
    for words in ("image web@333333333333 would run, not web@222222222222", f"is tainted now: {machines[0]}"):
        assert words in said
    assert "nothing was done" in said and set(rack.machines) == set(machines)
    ok, said = run("fleet.roll", "web", plan="p0badf00d")
    assert not ok and f"there is no plan 'p0badf00d' of fleet web; there are: {plan}" in said


def test_a_plan_of_another_image_than_the_channels(run, rack, store, machines):
    bake(store, TWO)
    plan = run("fleet.plan", "web", image="web@111111111111")[1]
    assert (plan["verdict"], plan["plan"]) == ("done", None)
    store.set_channel("web", "stable", ONE)
    plan = run("fleet.plan", "web", image="web@222222222222")[1]["plan"]
    assert run("fleet.roll", "web", plan=plan)[1]["image"] == "web@222222222222"


def test_a_rollout_is_shown_with_its_timeline(run, rack, store, machines):
    publish(store, TWO)
    rack.ill.add(TWO)
    run("fleet.roll", "web")
    newest = run("fleet.history", "web")[1]["rollouts"][0]
    ok, shown = run("fleet.show", newest["id"])
    assert ok, shown
    assert (shown["kind"], shown["outcome"], shown["fleet"]) == ("roll", "rolled back", "web")
    assert (shown["from"]["image"], shown["to"]["image"]) == ("web@111111111111", "web@222222222222")
    [(failed, why)] = shown["failures"].items()
    assert "nginx is dead" in why
    whats = [line["what"] for line in shown["timeline"] if line.get("minion_id") == failed]
    assert (whats[0], whats[-1]) == ("launch", "gone")
    assert run("fleet.show", newest["id"], "web")[1] == shown
    for wrong in ((newest["id"], "db"), (4711,)):
        ok, said = run("fleet.show", *wrong)
        assert not ok and "there is no rollout" in said and "fleet.history" in said


def test_orders_are_shown_where_they_still_mean_something(run, store, machines):
    ledger = Ledger(store, "web")
    [ended] = ledger.rollouts()
    ledger.order(ended, "pause", "too late", "jane", time.time())
    assert run("fleet.status", "web")[1]["orders"] == []
    with store.lease("fleet web") as lease:
        running = ledger.begin(lease, "roll", 1, time.time())
    ledger.order(running, "pause", "lunch", "jane", time.time())
    status = run("fleet.status", "web")[1]
    assert status["orders"] == ["pause by jane: lunch"]
    assert status["rollout"]["progress"] == [3, 3]
    newest, oldest = run("fleet.history", "web")[1]["orders"]
    assert (newest["rollout"], newest["reason"], newest["taken"]) == (running.id, "lunch", False)
    assert run("fleet.show", ended.id)[1]["orders"] == [oldest]


def test_a_size_that_an_operator_set_is_told_as_one(run, store, machines):
    Ledger(store, "web").resize(5, 3, "jane", time.time())
    status = run("fleet.status", "web")[1]
    assert (status["size"], status["wanted"]) == (3, 5)
    assert status["size_set"] == "5 by fleet.scale, until the size in the pillar (3) is changed"


def test_a_status_is_told_although_the_provider_cannot_be_asked(run, rack, machines, monkeypatch):
    def fail(fleet=None):
        raise CommandExecutionError("the cloud is down")

    monkeypatch.setattr(rack, "list", fail)
    ok, status = run("fleet.status", "web")
    assert ok and "the cloud is down" in status["unlisted"]
    assert {machine["phase"] for machine in status["machines"]} == {"serving"}, "unknown is not absent"


def test_a_lost_store_is_said_and_written_anew(run, rack, store, machines, bus):
    for name, one in rack.machines.items():
        rack.machines[name] = replace(one, installation="e" * 16)
    with store.write() as tx:
        tx.exec_driver_sql("DELETE FROM machines")
        tx.exec_driver_sql("DELETE FROM journal")
    assert "was lost" in run("fleet.status", "web")[1]["warnings"][0]
    assert "was lost" in run("fleet.plan", "web")[1]["warnings"][0]
    ok, said = run("fleet.roll", "web")
    assert not ok and "salt-run fleet.adopt_store" in said
    written = {"images": [], "channels": {}}  # its builder, which is this host, has none
    foreseen = {"installation": "e" * 16, "fleets": {"web": sorted(machines)}, **written, "result": None}
    assert run("fleet.adopt_store", test=True) == (True, foreseen)
    ok, said = run("fleet.adopt_store", installation="f" * 16)
    assert not ok and "installation: no machine" in said
    assert run("fleet.adopt_store", "web") == (True, {**foreseen, "result": True})
    assert run("fleet.status", "web")[1]["warnings"] == []
    assert run("fleet.adopt_store")[1] == {"installation": None, "fleets": {"web": []}, **written, "result": True}


def test_people_read_text(opts, run, rack, store, machines):
    opts.update({"__cli": "salt-run", "fun": "fleet.status"})
    publish(store, TWO)
    status = run("fleet.status", "web")[1]
    assert status["outputter"] == "txt"
    assert status["data"].startswith("fleet web: 3 of 3 machines, generation 1, web@111111111111\n")
    assert all(machine in status["data"] for machine in machines)
    plan = run("fleet.plan", "web")[1]["data"]
    assert "run exactly this plan: salt-run fleet.roll web plan=p" in plan
    assert run("fleet.show", 1)[1]["data"].startswith("roll 1 of fleet web: done\n")
    assert run("fleet.status", "all")[1]["data"].startswith("fleet web: 3 of 3 machines, generation 1")

"""A minion of the fleet that was taken over listens to every job and answers it in the name of the others.

Salt lets it: jobs of all minions are encrypted with one key, and a minion may fire any event.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator

import pytest
from support.estate import wait_for

FORGER = textwrap.dedent("""\
    import asyncio, json, sys, time
    import salt.channel.client, salt.config, salt.utils.event
    from salt.minion import prep_ip_port, resolve_dns

    victims, lie = sys.argv[1].split(","), json.loads(sys.argv[2])
    opts = salt.config.minion_config("/etc/salt/minion")
    opts.update(prep_ip_port(opts))
    opts.update(resolve_dns(opts))
    bus = salt.utils.event.get_event("minion", opts=opts, listen=False)

    def fire(tag, data):
        bus.fire_event({"tag": tag, "data": data, "events": None, "pretag": None}, "fire_master")

    def answered(payload):
        load = payload.get("load") if isinstance(payload, dict) else None
        if not isinstance(load, dict) or "jid" not in load:
            return
        for victim in victims:
            about = {"id": victim, "jid": load["jid"], "fun": load.get("fun"), "retcode": 0, "success": True, **lie}
            for _ in range(3):
                fire("salt/job/%s/ret/%s" % (load["jid"], victim), about)
        with open("/tmp/forged", "a") as file:
            file.write("%s %s\\n" % (load["jid"], load.get("fun")))

    async def main():
        channel = salt.channel.client.AsyncPubChannel.factory(opts, io_loop=None)
        await channel.connect()
        channel.on_recv(answered)
        open("/tmp/listening", "w").close()
        await asyncio.sleep(1200)

    asyncio.run(main())
    """)
"""Its words: the minions to lie about, and what an answer of theirs is to hold."""
HEALTHY = '{"return": {"drift": [], "counts": {}, "proven": true, "files": 9, "seconds": 0.1}}'
BROKEN = '{"return": {"answers": "[{\\"return\\": {\\"image\\": \\"0\\"}, \\"retcode\\": 0}]", "proof": "AAAA"}}'
OLD = """{"return": "'immutable.answer' is not available.", "retcode": 254}"""
LIES = {
    "that all is well": HEALTHY,
    "that it runs another image": BROKEN,
    "nonsense": '{"return": null}',
    "that it is old": OLD,
}


@pytest.fixture(scope="module")
def fleet(estate, web) -> Iterator[list[str]]:
    """Three machines; nothing at the end."""
    estate.salt_run("fleet.roll", "web")
    yield sorted(each["minion_id"] for each in estate.salt_run("fleet.status", "web").data["machines"])
    estate.salt_run("fleet.destroy", "web")


@pytest.fixture
def forging(estate, inside, fleet) -> Iterator[Callable[[str], None]]:
    """Return what makes the first machine tell a lie about the others; it ends with the test."""
    forger, *victims = fleet

    def start(lie: str) -> None:
        inside(forger, f"cat > /tmp/forger.py <<'END'\n{FORGER}\nEND")
        words = f"/tmp/forger.py {','.join(victims)} '{lie}'"
        inside(forger, f"rm -f /tmp/listening; setsid /opt/salt/bin/python {words} >/tmp/forger.log 2>&1 &")
        wait_for(lambda: inside(forger, "test -e /tmp/listening && echo there") == "there", 60)

    yield start
    inside(forger, "pkill -f /tmp/forger.py")


@pytest.mark.parametrize("lie", LIES)
def test_what_a_neighbour_forges_changes_nothing(estate, inside, fleet, forging, lie):
    """No drift is hidden, nobody else is tainted, no healthy machine goes, and an alarm names who was spoken for."""
    forger, drifted, clean = fleet
    inside(drifted, "echo evil > /var/lib/evil")
    forging(LIES[lie])
    found = estate.salt_run("fleet.drift", "web", check=False).data
    assert "immutable.answer" in inside(forger, "cat /tmp/forged"), "it heard the jobs of the others"
    assert drifted in found["drifted"] and clean not in [*found["drifted"], *found["unknown"]], found
    before = {one["minion_id"] for one in estate.salt_run("fleet.status", "web").data["machines"]}
    rolled = estate.salt_run("fleet.roll", "web")
    assert rolled.data["outcome"] == "done", rolled
    after = {one["minion_id"] for one in estate.salt_run("fleet.status", "web").data["machines"]}
    assert before == after == set(fleet), "nothing was tainted, so nothing is replaced"
    deeds = estate.salt_run("fleet.history", "web").data["deeds"]
    alarms = {deed["minion_id"] for deed in deeds if deed["what"] == "forged" and "not signed" in deed["reason"]}
    assert {drifted, clean} <= alarms, deeds
    inside(drifted, "rm /var/lib/evil")

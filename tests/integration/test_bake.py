"""Baking: what fails says why, what is interrupted leaves nothing, what is unchanged is not built again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time

import pytest
from damage import overwrite
from processes import command_of
from support.estate import wait_for
from support.slices import full

from saltext.immutable.machines import machine as machines

pytestmark = pytest.mark.usefixtures("as_delivered")


def built(report) -> list[str]:
    return [layer["what"] for layer in report["layers"] if not layer["cached"]]


def test_a_state_that_fails_is_shown_and_nothing_is_left(estate, nothing_is_left):
    answer = estate.salt_run("image.bake", "broken", check=False)
    assert answer.returncode == 1
    said = answer.stderr + answer.stdout
    for part in ("1 of 2 states failed in the bake", "(cmd.run) of broken", "at broken.sls:4", "no route to the"):
        assert part in said, said
    assert "Traceback" not in said
    assert "ID: /etc/fine" not in said, "what went well is not shown"
    nothing_is_left()
    assert "broken" not in str(estate.salt_run("image.list").data)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        pytest.param("a:\n  test.nop:\n   - x\n  - y\n", ("in SLS broken, line 4", "- y    <==="), id="YAML"),
        pytest.param("a:\n\ttest.nop\n", ("\\ttest.nop    <===",), id="a tab"),
        pytest.param("#!pyobjects\nTest.nop(x=gone)\n", ("'gone' is not defined", "x=gone)    <==="), id="objects"),
        pytest.param("include: [gone]\n", ("SLS gone in saltenv", "is named in broken.sls:1"), id="an SLS"),
        pytest.param("a:\n  test.nop:\n    - require: [b: c]\n", ("broken.sls:1:\n", "a:    <==="), id="a requisite"),
        pytest.param(
            "a:\n  file.managed:\n    - name: /a\n    - contents: '{{ gone.x }}'\n    - template: jinja\n",
            ("'gone' is undefined", "    <==="),
            id="Jinja",
        ),
        pytest.param(
            "a:\n  file.managed: [{name: /a}, {contents: '__slot__:salt:cmd.run(\"gone\", shell=\"/x\")'}]\n",
            ("An exception occurred in this state: ", "at broken.sls:1"),
            id="an exception in a state",
        ),
    ],
)
def test_an_error_of_states_is_told_once_with_its_place(estate, text, parts):
    (estate.states / "broken.sls").write_text(text)
    answer = estate.salt_run("image.bake", "broken", check=False)
    said = json.loads(answer.stdout)
    assert answer.returncode == 1
    for part in parts:
        assert said.count(part) == 1, said
    assert "Traceback" not in answer.stderr + said


def test_the_machine_of_states_that_failed_can_be_entered(estate, nothing_is_left):
    with estate.popen("image.bake", "broken", "keep_failed=5m") as bake:
        try:
            enter = ("image.shell", "broken@failed")
            wait_for(lambda: estate.salt_run(*enter, "command=/bin/true", check=False).returncode == 0, 60)
            line = "test -e /etc/fine && salt-call --out=json state.sls_id /etc/fine broken"
            found = estate.salt_run(*enter, f"command={line}").data
            assert found["retcode"] == 0 and '"result": true' in found["stdout"], found
            estate.salt_run(*enter, "command=rm /run/immutable-kept")
            said = "".join(bake.communicate(timeout=60))
        finally:
            bake.kill()
    assert bake.returncode == 1 and said.count("no route to the database") >= 2, said
    assert "salt-run image.shell broken@failed" in said
    nothing_is_left()
    refused = estate.salt_run(*enter, "command=/bin/true", check=False)
    assert refused.returncode == 1 and "bake with keep_failed=1h" in refused.stderr + refused.stdout


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        pytest.param("nonsense", "there is no recipe 'nonsense'; the pillar has base", id="unknown recipe"),
        pytest.param("lost", "No matching sls found for 'nowhere'", id="a state file that is not there"),
    ],
)
def test_wrong_orders_are_named(estate, nothing_is_left, recipe, said):
    text = (estate.pillar / "immutable.sls").read_text()
    lost = "    lost: {from: {recipe: base}, bake_id: web-lost, states: [nowhere]}\n    web:\n"
    (estate.pillar / "immutable.sls").write_text(text.replace("    web:\n", lost, 1))
    answer = estate.salt_run("image.bake", recipe, check=False)
    assert answer.returncode == 1
    assert said in answer.stderr + answer.stdout
    nothing_is_left()


def test_what_is_unchanged_is_cached_and_a_changed_pillar_builds_the_states_alone(estate, nothing_is_left):
    # A layer of its own: while another estate of this host has the same one mounted, it would stay.
    estate.write_pillar("web", {"web": {"version": "of nobody else", "status": 200}})
    first = estate.salt_run("image.bake", "small").data
    again = estate.salt_run("image.bake", "small").data
    assert (again["cached"], again["changed"], again["image"]) == (True, False, first["image"])
    estate.write_pillar("web", {"web": {"version": "2", "status": 200}})
    foreseen = estate.salt_run("image.bake", "small", "test=True").data
    assert (foreseen["changed"], built(foreseen)) == (True, ["states of small"])
    changed = estate.salt_run("image.bake", "small").data
    assert (changed["changed"], built(changed)) == (True, ["states of small"])
    assert changed["image"] != first["image"]
    nothing_is_left()
    delete_is_refused_while_needed(estate, changed["image"], first["image"])


def delete_is_refused_while_needed(estate, current: str, old: str) -> None:
    refused = estate.salt_run("image.delete", current, check=False)
    assert refused.returncode == 1
    assert "is needed by channel small:stable" in refused.stderr + refused.stdout
    assert estate.salt_run("image.delete", old, "test=True").data["deleted"] is False
    layers = set(os.listdir(estate.host.layers))
    gone = estate.salt_run("image.delete", old).data
    assert gone["deleted"] and set(gone["layers"]) == layers - set(os.listdir(estate.host.layers))
    assert len(gone["layers"]) == 1, "base and minion are needed by others"
    assert estate.salt_run("image.show", old, check=False).returncode == 1
    estate.salt_run("image.delete", current, "with_channels=True")
    led_to = {key.read_text().partition("\n")[0] for key in estate.host.keys.iterdir()}
    assert led_to <= set(os.listdir(estate.host.layers))


def test_a_change_of_the_pillar_that_only_a_custom_grain_brings_is_seen(estate):
    """The first bake has to learn the grain; from then on a key must not be too small."""
    top = (estate.pillar / "top.sls").read_text()
    (estate.pillar / "top.sls").write_text(f"{top}  'shop_tier:front':\n    - match: grain\n    - front\n")
    estate.write_pillar("front", {"front": {"door": "green"}})
    (estate.states / "small/init.sls").write_text("/etc/door: {file.managed: [{contents_pillar: 'front:door'}]}\n")
    first = estate.salt_run("image.bake", "small").data
    estate.write_pillar("front", {"front": {"door": "red"}})
    second = estate.salt_run("image.bake", "small").data
    assert built(second) == ["states of small"]
    assert second["image"] != first["image"]


def machine_of_bake(estate) -> bool:
    return any(estate.host.machines.glob("web-small*/machine.json"))


def states_run(estate) -> bool:
    """Whether the state's own command is at work in the machine that bakes."""
    machine = machines.find(estate.host, "web-small.tests.example.com")
    pids = machine.cgroup.pids() if machine else ()
    return any(command_of(pid) == "sleep" for pid in pids)


PHASES = [
    pytest.param(lambda estate: any(estate.host.tmp.iterdir()), id="as it begins"),
    pytest.param(machine_of_bake, id="while the machine boots"),
    pytest.param(states_run, id="while the states run"),
]


@pytest.mark.parametrize("reached", PHASES)
@pytest.mark.parametrize("whom", ["its whole terminal", "salt-run alone"])
def test_ctrl_c_leaves_nothing(estate, nothing_is_left, reached, whom):
    slow(estate)
    process = estate.popen("image.bake", "small")
    wait_for(lambda: reached(estate) or process.poll() is not None, 30, every=0.01)
    assert process.poll() is None, process.communicate()
    if whom == "salt-run alone":
        process.send_signal(signal.SIGINT)
    else:
        os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=30)
    assert process.returncode == 1, said
    nothing_is_left()


def test_a_bake_that_was_killed_at_any_moment_ends_right_when_it_is_asked_again(estate, nothing_is_left):
    slow(estate, 1.0)
    moments, dice = [], random.Random(int(os.environ.get("IMMUTABLE_SEED", "2")))
    for _ in range(4):
        moments.append(dice.uniform(1.0, 6.0))
        process = estate.popen("image.bake", "small")
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=moments[-1])
        process.kill()
        process.communicate()
    report = estate.salt_run("image.bake", "small").data
    assert report["image"].startswith("small@"), moments
    nothing_is_left()


def slow(estate, seconds: float = 20.0) -> None:
    """Make the states of ``small`` take their time, and differ from all others."""
    text = f"wait: {{cmd.run: [{{name: 'sleep {seconds}; echo {time.monotonic_ns()}'}}]}}\n"
    (estate.states / "small/init.sls").write_text(text)


def forget(estate, what: str) -> None:
    """Forget what the layers were made from whose name begins so: they have to be built again."""
    for key in estate.host.keys.iterdir():
        about = estate.host.layers / key.read_text().partition("\n")[0] / "layer.json"
        if json.loads(about.read_text())["what"].startswith(what):
            key.unlink()
    (estate.states / "top.sls").touch()  # else the fingerprint answers, and nobody looks for layers


WHOLE = full("bakes everything", minutes=2)


@pytest.mark.parametrize(
    ("recipe", "what"),
    [
        pytest.param("small", "states of small", id="the states"),
        pytest.param("shop", "", id="all of it", marks=WHOLE),
        pytest.param("web", "states of web", id="states that install packages", marks=WHOLE),
    ],
)
def test_baked_again_from_the_same_it_is_the_same(estate, recipe, what):
    first = estate.salt_run("image.bake", recipe).data
    forget(estate, what)
    second = estate.salt_run("image.bake", recipe).data
    assert built(second) == [name for layer in second["layers"] if (name := layer["what"]).startswith(what)]
    assert [layer["digest"] for layer in second["layers"]] == [layer["digest"] for layer in first["layers"]]
    assert second["digest"] == first["digest"]


def test_what_an_image_is_can_be_told_and_proven(estate):
    old = estate.salt_run("image.bake", "small").data
    (estate.states / "small/init.sls").write_text("/etc/other: {file.managed: [{contents: hello}]}\n")
    new = estate.salt_run("image.bake", "small").data
    verified = estate.salt_run("image.verify", "small:stable").data
    assert (verified["verified"], verified["digest"]) == (True, new["digest"])
    names = {each["name"] for each in estate.salt_run("image.sbom", "small:stable").data["components"]}
    assert {"salt", "saltext-immutable", "systemd", "python3"} <= names
    told = estate.salt_run("image.provenance", "small:stable").data
    assert told["subject"][0]["digest"] == {"sha256": new["digest"]}
    layers = told["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [layer["digest"]["sha256"] for layer in layers] == [layer["digest"] for layer in new["layers"]]
    differs = estate.salt_run("image.diff", old["image"], new["image"]).data
    assert differs["states"] == {"changed": ["small"]}
    assert "/etc/other" in differs["inside"]["files"]["added"]["all"]
    assert "/etc/small" in differs["inside"]["files"]["removed"]["all"]


def test_what_was_tampered_with_is_neither_launched_nor_exported_and_the_next_bake_makes_it_again(estate, tmp_path):
    baked = estate.salt_run("image.bake", "small").data
    layer = baked["layers"][-1]["digest"]
    file = estate.host.layers / layer / "fs/etc/small"
    try:
        estate.salt_run("fleet.roll", "small")
        [before] = estate.salt_run("fleet.status", "small").data["machines"]
        text = file.read_bytes()
        overwrite(file, b"x" + text[1:])
        target = tmp_path / "small.tar"
        exported = ("image.export", baked["image"], "format=tar", f"target={target}")
        for words in (("image.verify", baked["image"]), ("fleet.replace", before["minion_id"]), exported):
            refused = estate.salt_run(*words, check=False)
            assert refused.returncode == 1
            assert f"layer {layer[:12]} is damaged: /etc/small has changed (content" in refused.stderr + refused.stdout
        assert [one.name for one in estate.host.machines.glob("small-*")] == [before["minion_id"]]
        estate.salt_run("fleet.untaint", before["minion_id"])
        estate.salt_run("fleet.abort", "small")
        assert not target.exists()
        again = estate.salt_run("image.bake", "small").data
        assert (again["digest"], again["cached"]) == (baked["digest"], False), "it is the same again"
        assert "/etc/small has changed" in again["layers"][-1]["damaged"]
        assert file.read_bytes() == text and estate.salt_run("image.verify", baked["image"]).data["verified"]
        [aside] = estate.host.damaged.iterdir()
        estate.salt_run("image.prune")
        assert aside.exists(), "the machine that was launched from it goes on"
        told = estate.salt_run("fleet.reconcile", "small").data["fleets"]["small"]
        assert told["did"] == "mended" and "was damaged" in told["reason"], told
        [now] = estate.salt_run("fleet.status", "small").data["machines"]
        assert now["minion_id"] != before["minion_id"]
        estate.salt_run("image.prune")
        assert not aside.exists()
        assert estate.salt_run("image.bake", "small").data["cached"]
    finally:
        estate.salt_run("fleet.destroy", "small")


@pytest.mark.parametrize("name", ["image.json", "proof.json", "seal/etc/immutable/seal.json"])
def test_a_damaged_image_is_made_again_from_its_layers(estate, name):
    baked = estate.salt_run("image.bake", "small").data
    file = estate.host.images / baked["digest"] / name
    overwrite(file, file.read_bytes()[:-20])
    refused = estate.salt_run("image.verify", baked["image"], check=False)
    assert refused.returncode == 1 and "salt-run image.bake" in refused.stderr + refused.stdout
    again = estate.salt_run("image.bake", "small").data
    assert again["digest"] == baked["digest"]
    assert estate.salt_run("image.verify", baked["image"]).data["verified"]
    estate.salt_run("image.prune")

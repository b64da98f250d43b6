"""Layers are looked up by key and stored by digest; a needed layer is never removed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from saltext.immutable.builder import commands, garbage, image_commands
from saltext.immutable.images import layers
from saltext.immutable.machines import damaged_images, images


def commit(host, key: str, instead_of: Sequence[str] = (), **files: str) -> layers.Layer:
    with host.workspace() as place:
        (place / "fs").mkdir()
        for name, text in files.items():
            (place / "fs" / name).write_text(text)
            os.utime(place / "fs" / name, (1, 1))
        os.utime(place / "fs", (1, 1))
        layer = layers.commit(host, place, instead_of, what=f"layer {key}")
        layers.set_key(host, key, layer.digest)
        return layer


def image(host, digest: str, *stack: layers.Layer) -> Path:
    about = images.metadata_file(host, digest)
    about.parent.mkdir()
    about.write_text(json.dumps({"layers": [layer.digest for layer in stack]}))
    return about


def test_a_committed_layer_has_a_key_and_a_short_name(host):
    layer = commit(host, "k1", hello="world")
    assert layers.find(host, "k1") == layer
    assert (host.l / layers.short_names([layer.digest])[0] / "hello").read_text() == "world"
    assert (layer.files, layer.size) == (2, 5)
    assert not list(host.tmp.iterdir())


def test_an_unknown_key_gives_none(host):
    assert layers.find(host, "k0") is None


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda text: "", id="an empty file"),
        pytest.param(lambda text: text[:-1], id="cut off"),
        pytest.param(lambda text: text.replace("[", "{"), id="no JSON"),
        pytest.param(lambda text: text.replace("packages", "packagez"), id="a word that layers have not"),
        pytest.param(lambda text: "../" * 9 + "etc", id="a path"),
    ],
)
def test_a_damaged_key_gives_none(host, spoil):
    layer = commit(host, "k1", a="1")
    layers.set_key(host, "k1", layer.digest, ["w"], {"packages": {}, "tests": []})
    assert layers.find(host, "k1").warnings == ["w"]
    (host.keys / "k1").write_text(spoil((host.keys / "k1").read_text()))
    assert layers.find(host, "k1") is None
    assert commands.find_layer(host, "k1") is None


def test_the_same_content_under_another_key_is_one_layer(host):
    one, other = commit(host, "k1", a="1"), commit(host, "k2", a="1")
    assert one.digest == other.digest
    assert len(list(host.layers.iterdir())) == 1


def test_the_same_key_with_other_content_leads_to_the_newer_one_and_overwrites_nothing(host):
    old, new = commit(host, "k1", a="1"), commit(host, "k1", a="2")
    assert layers.find(host, "k1") == new
    assert (host.layers / old.digest / "fs/a").read_text() == "1"


def test_warnings_belong_to_the_key_and_not_to_the_layer(host):
    layer = commit(host, "k1", a="1")
    layers.set_key(host, "k2", layer.digest, ["a\nwarning", "another"])
    found = [layers.find(host, key) for key in ("k1", "k2")]
    assert [one.warnings for one in found] == [[], ["a\nwarning", "another"]]
    assert {one.digest for one in found} == {layer.digest}
    assert layers.drop(host, [layer.digest]) == [layer.digest]
    assert not list(host.keys.iterdir())


def test_the_same_layer_on_another_stack_has_the_metadata_of_that_stack(host):
    made = []
    for number, key in ((1, "k1"), (2, "k2")):
        with host.workspace() as place:
            (place / "fs").mkdir()
            about = {"packages": {"bash:amd64": str(number)}, "grains": {"osrelease": f"12.{number}"}}
            made.append(layers.commit(host, place, what="states of small", **about))
            layers.set_key(host, key, made[-1].digest, ["a warning"], about)
    assert made[0].digest == made[1].digest
    for layer in (made, [layers.find(host, key) for key in ("k1", "k2")]):
        assert [one.packages["bash:amd64"] for one in layer] == ["1", "2"]
        assert [one.grains["osrelease"] for one in layer] == ["12.1", "12.2"]
    assert layers.find(host, "k2").warnings == ["a warning"]


def test_a_layer_that_was_removed_by_hand_is_not_found(host):
    layer = commit(host, "k1", a="1")
    (host.layers / layer.digest).rename(host.root / "away")
    assert layers.find(host, "k1") is None


def test_two_digests_with_the_same_short_name_are_an_error(host):
    layer = commit(host, "k1", a="1")
    namesake = f"{layer.digest[:16]:0<64}"
    with pytest.raises(CommandExecutionError, match="have the same first 16 digits"):
        layers.make_link(host, layer.digest[:16], images.layer_target(namesake))
    (host.layers / namesake).mkdir()
    layers.mend_links(host)
    assert (host.l / layer.digest[:16]).samefile(host.layers / layer.digest / "fs"), "the first one keeps it"


def test_removed_layers_leave_nothing_behind(host):
    layer = commit(host, "k1", a="1")
    assert layers.drop(host, [layer.digest]) == [layer.digest]
    assert not [file for folder in (host.layers, host.l, host.keys, host.tmp) for file in folder.iterdir()]
    assert layers.drop(host, [layer.digest]) == [layer.digest], "dropping again is no error"


def test_a_layer_of_another_image_stays(host):
    base, one, two = commit(host, "k1", a="1"), commit(host, "k2", a="2"), commit(host, "k3", a="3")
    image(host, "d1", base, two)
    assert layers.drop(host, [base.digest, one.digest]) == [one.digest]
    assert layers.find(host, "k1") == base
    assert layers.find(host, "k2") is None


def test_a_layer_of_a_machine_stays(host):
    layer = commit(host, "k1", a="1")
    machine = {"minion_id": "m", "image": "", "lower": [layer.digest[:16]], "minion": {}, "bridge": "b", "subnet": "s"}
    (host.machines / "m").mkdir()
    (host.machines / "m/machine.json").write_text(json.dumps(machine))
    assert layers.drop(host, [layer.digest]) == []
    assert (host.l / layer.digest[:16] / "a").exists()


def test_a_crash_before_the_key_is_written_leaves_a_complete_layer_or_none(host, monkeypatch):
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(layers, "write", die)
    with pytest.raises(KeyboardInterrupt):
        commit(host, "k1", a="1")
    monkeypatch.undo()
    monkeypatch.setattr("saltext.immutable.host.require_root", lambda: None)
    assert layers.find(host, "k1") is None
    assert layers.find(host, "k1") or commit(host, "k1", a="1") == layers.find(host, "k1")


damages = pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda folder: (folder / "fs/hello").write_text("WORLD"), id="content"),
        pytest.param(lambda folder: (folder / "fs/hello").chmod(0o4755), id="mode"),
        pytest.param(lambda folder: os.chown(folder / "fs/hello", 1, 1), id="owner"),
        pytest.param(lambda folder: (folder / "fs/more").touch(), id="extra"),
        pytest.param(lambda folder: (folder / "fs/hello").unlink(), id="missing"),
        pytest.param(lambda folder: os.setxattr(folder / "fs/hello", "trusted.x", b"1"), id="attribute"),
        pytest.param(lambda folder: (folder / "manifest.gz").write_bytes(b""), id="manifest"),
        pytest.param(lambda folder: (folder / "layer.json").write_text("{}"), id="metadata"),
        pytest.param(lambda folder: (folder / "layer.json").unlink(), id="no metadata"),
        pytest.param(lambda folder: (folder / "fs").rename(folder / "other"), id="no files"),
        pytest.param(lambda folder: ((folder / "fs").rename(folder / "x"), (folder / "fs").mkdir()), id="swapped"),
    ],
)  # fmt: skip


@damages
def test_a_damaged_layer_is_set_aside_and_built_again(host, spoil):
    if os.geteuid():
        pytest.skip("needs root: owners and attributes")
    before = commit(host, "k1", hello="world")
    spoil(host.layers / before.digest)
    known = commands.find_layer(host, "k1")
    assert known == {"digest": before.digest, "damaged": layers.damage(host, before.digest)}, "no bake takes it"
    again = commit(host, "k1", hello="world")
    assert again.digest == before.digest and before.digest[:12] in again.damaged and not again.differs_from
    assert layers.damage(host, again.digest) is None
    assert (host.l / layers.short_names([again.digest])[0] / "hello").read_text() == "world"
    [aside] = host.damaged.iterdir()
    assert aside.name.startswith(f"{before.digest}.")
    assert commit(host, "k1", hello="world").damaged == "", "once"
    found = garbage.collect(host, [], [], [], test=True)
    assert list(found["leftovers"]) == [f"damaged/{aside.name}"]
    garbage.collect(host, [], [], [])
    assert not list(host.damaged.iterdir())


@damages
def test_a_damaged_layer_is_set_aside_too_where_another_content_is_built_in_its_place(host, spoil):
    if os.geteuid():
        pytest.skip("needs root: owners and attributes")
    before, sound = commit(host, "k1", hello="world"), commit(host, "k2", hello="sound")
    spoil(host.layers / before.digest)
    found = commands.find_layer(host, "k1")["digest"]
    again = commit(host, "k1", instead_of=[found, sound.digest, "0" * 64], hello="other")
    assert again.digest != before.digest and before.digest[:12] in again.damaged
    assert again.differs_from == [before.digest], "what is sound stays"
    [aside] = host.damaged.iterdir()
    assert damaged_images.runs_on(aside, layers.short_names([before.digest]), born=1.0), "what runs on it is replaced"
    assert commands.find_layer(host, "k1")["digest"] == again.digest
    assert commands.find_layer(host, "k2")["digest"] == sound.digest
    image(host, "a" * 64, before)
    with pytest.raises(CommandExecutionError, match=f"layer {before.digest[:12]} is not on this host; .*another image"):
        images.lower(host, "a" * 64)


def test_an_image_that_cannot_be_read_may_need_every_layer_and_can_be_deleted(host):
    layer = commit(host, "k1", hello="world")
    about = image(host, "a" * 64, layer)
    about.write_text("{")
    assert layers.drop(host, [layer.digest]) == []
    assert image_commands.local_images(host) == {}
    image_commands.drop_image(host, "a" * 64)
    assert not about.exists() and layers.drop(host, [layer.digest]) == [layer.digest]

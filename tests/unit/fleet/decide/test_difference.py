"""How images differ and what has moved since a plan was made, as an operator reads it."""

from __future__ import annotations

import copy

import pytest

from saltext.immutable.fleet.decide.difference import difference, moved

CONTENTS = {
    "packages": {"bash:amd64": "5.2", "nginx:amd64": "1.22"},
    "size": 1000,
    "files": 10,
    "states": {
        "web": {
            "sls": {"web": "aa", "web.tls": "bb"},
            "files": {"web/nginx.conf": "cc"},
            "recipe": {"states": "highstate", "guard": {"deny": ["ps.*"]}},
            "tree": "t1",
            "pillar": "p1",
            "tops": "",
        }
    },
}


def image(digit: str, contents=None, **settings):
    return {"name": f"web@{digit}", "digest": digit * 64, "settings": settings, "contents": contents}


def changed(**parts):
    """What a recipe's states are made from, with something else in it."""
    contents = copy.deepcopy(CONTENTS)
    contents["states"]["web"] |= parts
    return contents


def told(old, new):
    found = difference(image("1", old), image("2", new))
    assert (found.pop("from"), found.pop("to"), found.pop("same")) == ("web@1", "web@2", False)
    return found


@pytest.mark.parametrize(
    ("new", "says"),
    [
        pytest.param(CONTENTS, {}, id="nothing but the digest"),
        pytest.param(
            {**CONTENTS, "packages": {"bash:amd64": "5.3", "curl:amd64": "8"}, "size": 900},
            {
                "packages": {
                    "added": {"curl:amd64": "8"},
                    "removed": {"nginx:amd64": "1.22"},
                    "changed": {"bash:amd64": "5.2 -> 5.3"},
                },
                "size": -100,
            },
            id="packages with versions",
        ),
        pytest.param(
            changed(sls={"web": "ax", "web.log": "dd"}, tree="t2"),
            {"states": {"added": ["web.log"], "removed": ["web.tls"], "changed": ["web"]}},
            id="an SLS that changed explains the tree",
        ),
        pytest.param(
            changed(files={"web/nginx.conf": "cx"}, tree="t2"), {"files": {"changed": ["web/nginx.conf"]}}, id="a file"
        ),
        pytest.param(
            changed(tree="t2"),
            {"also": ["files of the state tree that lie in no folder of a state of web"]},
            id="a file elsewhere",
        ),
        pytest.param(changed(pillar="p2"), {"also": ["the pillar of web"]}, id="the pillar"),
        pytest.param(
            changed(tops="x"), {"also": ["what the master's external tops say of web"]}, id="the external tops"
        ),
        pytest.param(
            changed(recipe={"states": ["web"], "guard": {"deny": []}}),
            {"recipes": {"changed": {"web.guard.deny": "ps.* -> none", "web.states": "highstate -> web"}}},
            id="the recipe",
        ),
    ],
)
def test_images_differ_by(new, says):
    assert told(CONTENTS, new) == says


def test_what_is_not_known_of_a_layer_is_neither_added_nor_removed():
    assert told(CONTENTS, changed(sls=None)) == {
        "unknown": ["states: which SLS recipe web applied was not written down"]
    }


def test_an_image_whose_contents_nobody_wrote_down_says_so_and_shows_its_settings():
    found = difference(image("1", None, salt="3007"), image("2", CONTENTS, salt="3008"))
    assert found["settings"] == {"changed": {"salt": "3007 -> 3008"}}
    assert found["unknown"] == [
        "packages and states: what went into web@1 was not written down when it was baked, or it is deleted"
    ]


def test_of_a_deleted_image_nothing_is_told_as_added():
    found = difference({**image("1"), "settings": None}, image("2", CONTENTS, salt="3008"))
    assert set(found) == {"from", "to", "same", "unknown"}


def test_an_image_does_not_differ_from_itself():
    assert difference(image("1"), image("1")) == {"from": "web@1", "to": "web@1", "same": True}


GROUND = {
    "image": "web@1",
    "digest": "1" * 64,
    "generation": 2,
    "unfinished": None,
    "fleet": {"size": 3, "strategy": {"max_surge": "25%"}, "provider": {"name": "nspawn", "settings": {}}},
    "machines": {
        "web-a": {"generation": 2, "phase": "serving", "tainted": False, "protected": False},
        "web-b": {"generation": 2, "phase": "serving", "tainted": False, "protected": False},
    },
}
A, B = GROUND["machines"].values()


@pytest.mark.parametrize(
    ("now", "says"),
    [
        pytest.param({}, [], id="nothing moved"),
        pytest.param({"image": "web@2", "digest": "2" * 64}, ["image web@2 would run, not web@1"], id="the channel"),
        pytest.param({"generation": 3}, ["generation 3 runs, not 2"], id="somebody rolled"),
        pytest.param({"generation": None}, ["generation none runs, not 2"], id="somebody destroyed it"),
        pytest.param({"unfinished": "roll 7"}, ["roll 7 is unfinished"], id="a rollout stopped halfway"),
        pytest.param(
            {"fleet": {**GROUND["fleet"], "size": 5, "strategy": {"max_surge": "50%", "soak": 5.0}}},
            ["size is 5, it was 3", "strategy.max_surge is 50%, it was 25%", "strategy.soak is 5.0, it was none"],
            id="the pillar",
        ),
        pytest.param(
            {"fleet": {**GROUND["fleet"], "provider": {"name": "nspawn", "settings": {"memory": "1G"}}}},
            ["provider.settings.memory is 1G, it was none"],
            id="launch settings",
        ),
        pytest.param(
            {"machines": {"web-b": B, "web-c": A, "web-d": A}},
            ["2 machines are new: web-c, web-d", "1 machine is gone: web-a"],
            id="machines came and went",
        ),
        pytest.param(
            {"machines": {"web-a": {**A, "tainted": True}, "web-b": {**B, "phase": "doomed"}}},
            ["1 machine is of phase doomed, not serving: web-b", "1 machine is tainted now: web-a"],
            id="a taint and an order to go",
        ),
        pytest.param(
            {"machines": {"web-a": {**A, "protected": True}, "web-b": {**B, "protected": True}}},
            ["2 machines are protected now: web-a, web-b"],
            id="protected",
        ),
    ],
)
def test_the_world_moved(now, says):
    assert moved(GROUND, {**GROUND, **now}) == says


def test_the_way_back_is_told_as_well():
    tainted = {**GROUND, "unfinished": "roll 7", "machines": {"web-a": {**A, "tainted": True}, "web-b": B}}
    assert moved(tainted, GROUND) == ["roll 7 has ended", "1 machine is no longer tainted: web-a"]


def test_of_many_machines_only_some_are_named():
    many = {f"web-{number:02}": A for number in range(12)}
    [said] = moved({**GROUND, "machines": {}}, {**GROUND, "machines": many})
    assert said == "12 machines are new: web-00, web-01, web-02, web-03, web-04 and 7 more"

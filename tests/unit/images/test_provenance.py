"""Where an image comes from is written down as tools read it, and without secrets."""

from __future__ import annotations

import json
from typing import Any

from saltext.immutable.images import provenance

DIGEST = "3f" * 32
LAYER = {
    "digest": "aa" * 32,
    "what": "debian bookworm",
    "created": 1_700_000_000.0,
    "seconds": 20.1234,
    "cached": True,
    "inputs": {"sources": ["deb http://user:hunter2@mirror.example.com/debian bookworm main"], "suite": "bookworm"},
}
RUN = {
    "recipe": "web",
    "grains": {"roles": ("web",)},
    "policy": {"writable": []},
    "refresh": False,
    "builder": "builder-1",
    "versions": {"salt": "3008.3", "pack": "0.1.0"},
    "who": "ops",
    "started": 1_700_000_100.0,
    "finished": 1_700_000_160.0,
}


def document() -> dict[str, Any]:
    return provenance.document("web@3f3f3f3f3f3f", DIGEST, [LAYER], RUN)


def test_it_is_what_tools_read():
    told = document()
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["predicateType"] == "https://slsa.dev/provenance/v1"
    assert told["subject"] == [{"name": "web@3f3f3f3f3f3f", "digest": {"sha256": DIGEST}}]
    run = told["predicate"]["runDetails"]
    assert run["metadata"] == {"startedOn": "2023-11-14T22:15:00Z", "finishedOn": "2023-11-14T22:16:00Z"}
    assert run["builder"]["version"] == {"salt": "3008.3", "pack": "0.1.0"}
    [layer] = told["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert layer["digest"] == {"sha256": LAYER["digest"]}
    assert layer["annotations"]["created"] == "2023-11-14T22:13:20Z"
    assert json.loads(json.dumps(told)) == told


def test_the_commits_of_which_the_states_were_made_are_dependencies_after_the_layers():
    commit = {"url": "git+https://git.example.com/states", "ref": "main", "commit": "ab" * 20, "pinned": True}
    layer = {**LAYER, "what": "states of web", "git": [{"of": "states", **commit}]}
    told = provenance.document("web@3f3f3f3f3f3f", DIGEST, [layer, LAYER], RUN)
    *layers, remote = told["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [each["name"] for each in layers] == ["states of web", "debian bookworm"]
    assert remote == {
        "name": "states of main",
        "uri": commit["url"],
        "digest": {"gitCommit": commit["commit"]},
        "annotations": {"ref": "main", "layer": "states of web", "pinned": True},
    }


def test_passwords_of_mirrors_are_left_out():
    assert "hunter2" not in json.dumps(document())
    assert "//...@mirror.example.com/debian" in json.dumps(document())

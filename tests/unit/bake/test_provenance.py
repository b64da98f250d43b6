"""Where an image comes from is written down without secrets, signed, and believed only as it was signed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa
from salt.exceptions import CommandExecutionError

from saltext.immutable.bake import provenance
from saltext.immutable.images import sign
from saltext.immutable.spec.model import Settings
from saltext.immutable.store import Image, Store
from saltext.immutable.store.schema import proofs

IMAGE = Image("3f" * 32, "web", ("aa" * 32,), 1.0, True, {})
ORDER = {"recipe": "web", "layers": ["aa" * 32], "read_only": True, "grains": {}, "policy": {}}
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


@pytest.fixture
def store():
    opened = Store.open("sqlite://")
    yield opened
    opened.close()


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(root=tmp_path)


def document(**run: Any) -> dict[str, Any]:
    return provenance.document(IMAGE.name, IMAGE.digest, [LAYER], {**RUN, **run})


def vouch(store, settings, where_from, proof=None) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    made = {**ORDER, "above": [], "proof": proof}
    builder = lambda name, **more: kept.update(more["proof"])  # noqa: E731
    provenance.vouch(builder, store, settings, IMAGE, made, where_from)
    return kept


def test_it_is_what_tools_read():
    told = document()
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["predicateType"] == "https://slsa.dev/provenance/v1"
    assert told["subject"] == [{"name": "web@3f3f3f3f3f3f", "digest": {"sha256": IMAGE.digest}}]
    run = told["predicate"]["runDetails"]
    assert run["metadata"] == {"startedOn": "2023-11-14T22:15:00Z", "finishedOn": "2023-11-14T22:16:00Z"}
    assert run["builder"]["version"] == {"salt": "3008.3", "pack": "0.1.0"}
    [layer] = told["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert layer["digest"] == {"sha256": LAYER["digest"]}
    assert layer["annotations"]["created"] == "2023-11-14T22:13:20Z"
    assert json.loads(json.dumps(told)) == told


def test_passwords_of_mirrors_are_left_out():
    assert "hunter2" not in json.dumps(document())
    assert "//...@mirror.example.com/debian" in json.dumps(document())


def test_what_was_signed_is_found(store, settings):
    vouch(store, settings, document())
    assert provenance.find(store, IMAGE, sign.trusted(settings)) == document()


def test_a_second_bake_of_the_same_image_changes_nothing(store, settings):
    first = vouch(store, settings, document())
    again = vouch(store, settings, document(who="somebody else"), proof=first)
    assert again == {}, "nothing new is signed"
    assert provenance.find(store, IMAGE, sign.trusted(settings)) == document()


def test_another_text_than_the_one_that_was_signed_is_refused(store, settings):
    vouch(store, settings, document())
    with store.write() as tx:
        tx.execute(sa.update(proofs).values(provenance=document(who="nobody")))
    with pytest.raises(CommandExecutionError, match="provenance of image 3f3f3f3f3f3f is not the one that was signed"):
        provenance.find(store, IMAGE, sign.trusted(settings))


def test_who_does_not_trust_the_key_is_told(store, settings, tmp_path):
    vouch(store, settings, document())
    with pytest.raises(CommandExecutionError, match="image 3f3f3f3f3f3f may not be used: .*does not trust"):
        provenance.find(store, IMAGE, sign.trusted(Settings(root=tmp_path / "other")))


def test_what_nobody_signed_has_none_and_may_not_be_promoted(store, settings):
    for ask in (provenance.find, provenance.require):
        with pytest.raises(CommandExecutionError, match="web@3f3f3f3f3f3f is not signed: .*image.sign web@3f"):
            ask(store, IMAGE, sign.trusted(settings))


def test_signed_by_hand_it_may_be_promoted_though_nobody_knows_where_it_comes_from(store, settings):
    vouch(store, settings, None)
    assert provenance.require(store, IMAGE, sign.trusted(settings)) is None
    with pytest.raises(CommandExecutionError, match="where web@3f3f3f3f3f3f comes from was not written down"):
        provenance.find(store, IMAGE, sign.trusted(settings))

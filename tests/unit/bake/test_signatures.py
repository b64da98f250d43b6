"""An image is signed once, and what it comes from is believed only as it was signed."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from salt.exceptions import CommandExecutionError

from saltext.immutable.bake import signatures
from saltext.immutable.images import sign
from saltext.immutable.spec.model import Settings
from saltext.immutable.store import Image, Store
from saltext.immutable.store.schema import proofs

IMAGE = Image("3f" * 32, "web", ("aa" * 32,), 1.0, True, {})
ORDER = {"recipe": "web", "layers": ["aa" * 32], "read_only": True, "grains": {}, "policy": {}}


@pytest.fixture
def store():
    opened = Store.open("sqlite://")
    yield opened
    opened.close()


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(root=tmp_path)


def document(who: str = "ops") -> dict[str, Any]:
    return {"predicate": {"who": who}}


def signed(store, settings, where_from, proof=None) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    made = {**ORDER, "above": [], "proof": proof}
    builder = lambda name, **more: kept.update(more["proof"])  # noqa: E731
    signatures.sign_image(builder, store, settings, IMAGE, made, where_from)
    return kept


def test_what_was_signed_is_found(store, settings):
    signed(store, settings, document())
    assert signatures.provenance(store, IMAGE, sign.trusted(settings)) == document()


def test_a_second_bake_of_the_same_image_changes_nothing(store, settings):
    first = signed(store, settings, document())
    again = signed(store, settings, document(who="somebody else"), proof=first)
    assert again == {}, "nothing new is signed"
    assert signatures.provenance(store, IMAGE, sign.trusted(settings)) == document()


def test_another_text_than_the_one_that_was_signed_is_refused(store, settings):
    signed(store, settings, document())
    with store.write() as tx:
        tx.execute(sa.update(proofs).values(provenance=document(who="nobody")))
    with pytest.raises(CommandExecutionError, match="provenance of image 3f3f3f3f3f3f is not the one that was signed"):
        signatures.provenance(store, IMAGE, sign.trusted(settings))


def test_who_does_not_trust_the_key_is_told(store, settings, tmp_path):
    signed(store, settings, document())
    with pytest.raises(CommandExecutionError, match="image 3f3f3f3f3f3f may not be used: .*is not trusted"):
        signatures.provenance(store, IMAGE, sign.trusted(Settings(root=tmp_path / "other")))


def test_what_nobody_signed_has_none_and_may_not_be_promoted(store, settings):
    for ask in (signatures.provenance, signatures.require):
        with pytest.raises(CommandExecutionError, match="web@3f3f3f3f3f3f is not signed: .*image.sign web@3f"):
            ask(store, IMAGE, sign.trusted(settings))


def test_signed_by_hand_it_may_be_promoted_though_nobody_knows_where_it_comes_from(store, settings):
    signed(store, settings, None)
    assert signatures.require(store, IMAGE, sign.trusted(settings)) is None
    with pytest.raises(CommandExecutionError, match="provenance of web@3f3f3f3f3f3f is not known: .*signed by hand"):
        signatures.provenance(store, IMAGE, sign.trusted(settings))

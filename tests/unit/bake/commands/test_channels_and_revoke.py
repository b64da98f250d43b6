"""Channels go from image to image and back, and a revoked image is for nobody any more."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.bake.commands.channels import Channels
from saltext.immutable.bake.commands.revoke import Revocations, descendants
from saltext.immutable.bake.revoked import require_sound
from saltext.immutable.store import Image, Store
from saltext.immutable.store import schema as tables
from saltext.immutable.store.channels import Move, earlier_images

A, B, C = (letter * 64 for letter in "abc")


class Images(Channels, Revocations):
    """Both kinds of commands on one store."""


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture
def store(now):
    opened = Store.open("sqlite://", clock=lambda: now[0])
    yield opened
    opened.close()


@pytest.fixture
def told():
    return []


@pytest.fixture
def images(store, told):
    return Images(store, lambda message, tag, **data: told.append((tag, message)), "jane")


def add(store, digest, *layers, recipe="web", created=1.0):
    store.add_image(Image(digest, recipe, layers or (digest,), created, True, {}))
    return f"{recipe}@{digest[:12]}"


def run(store, fleet, digest, machines=0, number=1):
    """Let a fleet have a generation of an image, with machines."""
    with store.write() as tx:
        tx.execute(sa.insert(tables.fleets).values(name=fleet, lineage=[number], size=machines))
        row = dict(fleet=fleet, number=number, image=digest, provider="p", settings={}, created=1)
        tx.execute(sa.insert(tables.generations).values(row))
        for place in range(machines):
            row = dict(minion_id=f"{fleet}-{place}", fleet=fleet, generation=number, intent="launched", born=1)
            tx.execute(sa.insert(tables.machines).values(**row, reason=""))


# Channels


def test_a_channel_names_what_was_promoted_and_remembers_who_when_from_where_and_why(store, images, now, told):
    one, two = add(store, A), add(store, B)
    store.set_channel("web", "candidate", B)
    assert images.promote(one, "stable", "the first")["changed"]
    now[0] = 2000.0
    done = images.promote("web:candidate", "stable", "a good week")
    assert (done["from"], done["image"], store.channel("web", "stable")) == (one, two, B)
    shown = images.channels("web")
    assert shown["channels"] == {"candidate": two, "stable": two}
    assert shown["history"][0] == {
        "at": "1970-01-01 00:33:20+00:00",
        "channel": "stable",
        "what": "promote",
        "from": one,
        "to": two,
        "reason": "a good week",
        "who": "jane",
    }
    assert [line["what"] for line in shown["history"]] == ["promote", "promote", "bake"]
    assert told[-1] == ("image/promote", f"web:stable names {two}")


def test_promoting_what_a_channel_names_already_is_no_move(store, images, told):
    add(store, A)
    images.promote(A, "stable")
    assert not images.promote(A, "stable")["changed"]
    assert (len(images.channels("web")["history"]), len(told)) == (1, 1)


def test_a_preview_moves_nothing(store, images):
    add(store, A)
    assert images.promote(A, "stable", test=True)["comment"] == "web:stable would name web@aaaaaaaaaaaa"
    images.revoke(A, "why", test=True)
    assert (store.channel("web", "stable"), store.revoked()) == (None, {})


@pytest.mark.parametrize("channel", ["Stable", "a:b", "", None])
def test_a_channel_has_a_name_that_can_be_written_after_a_colon(store, images, channel):
    add(store, A)
    with pytest.raises(SaltInvocationError, match="channel: "):
        images.promote(A, channel)


def test_a_channel_goes_back_step_by_step(store, images):
    for digest in (A, B, C):
        add(store, digest)
        images.promote(digest, "stable")
    assert images.rollback("web", "stable", test=True)["image"] == "web@bbbbbbbbbbbb"
    assert images.rollback("web", "stable", "slow")["image"] == "web@bbbbbbbbbbbb"
    assert images.rollback("web", "stable")["image"] == "web@aaaaaaaaaaaa", "not where it was rolled back from"
    with pytest.raises(SaltInvocationError, match="web:stable named no image before .* image.promote"):
        images.rollback("web", "stable")


def test_a_channel_goes_back_past_what_was_revoked_or_deleted(store, images):
    for digest in (A, B, C, "d" * 64):
        add(store, digest)
        images.promote(digest, "stable")
    images.revoke(C, "openssl")
    store.delete_image(B)
    assert images.rollback("web", "stable")["image"] == "web@aaaaaaaaaaaa"


def moved(*steps):
    """Moves as ``bake A``, ``rollback B``; a letter is an image, ``-`` none."""
    now, found = None, []
    for step in steps:
        what, target = step.split()
        to = None if target == "-" else target
        found.append(Move("web", "stable", 1.0, what, now, to))
        now = to
    return found


@pytest.mark.parametrize(
    ("steps", "ways"),
    [
        pytest.param([], [], id="never moved"),
        pytest.param(["bake A"], [], id="the first"),
        pytest.param(["bake A", "bake B", "promote C"], ["B", "A"], id="the nearest first"),
        pytest.param(["bake A", "bake B", "rollback A", "bake C"], ["A"], id="what was left is no way back"),
        pytest.param(["bake A", "bake B", "bake A"], ["B"], id="never to where it is"),
        pytest.param(["bake A", "bake B", "delete -"], ["B", "A"], id="after its channel was taken away"),
    ],
)
def test_the_way_back(steps, ways):
    assert earlier_images(moved(*steps)) == ways


def test_a_channel_of_the_time_before_goes_back_to_what_it_named_then():
    assert earlier_images([Move("web", "stable", 1.0, "bake", "A", "B")]) == ["A"]


def test_a_channel_that_goes_with_its_image_leaves_its_history(store, images):
    add(store, A)
    images.promote(A, "stable")
    store.delete_image(A, with_channels=True, who="joe")
    shown = images.channels("web")
    assert shown["channels"] == {}
    [last, _] = shown["history"]
    assert (last["what"], last["from"], last["to"], last["who"]) == ("delete", f"{A[:12]} (deleted)", None, "joe")


# Revocation


def test_a_revoked_image_resolves_for_nobody_and_says_why(store, images):
    name = add(store, A)
    images.promote(A, "stable")
    told = images.revoke("web:stable", "openssl 3.0.11")
    assert (told["revoked"], told["channels"], told["changed"]) == ([name], ["web:stable"], True)
    why = "web@aaaaaaaaaaaa was revoked on 1970-01-01 00:16:40.* by jane: openssl 3.0.11"
    with pytest.raises(CommandExecutionError, match=f"{why}; promote another: .* channel=stable"):
        store.usable("web:stable")
    with pytest.raises(CommandExecutionError, match=f"{why}; take another"):
        images.promote(name, "candidate")
    with pytest.raises(CommandExecutionError, match=f"web:beta stays as it is: {why}"):
        store.set_channel("web", "beta", A)
    assert store.image("web:stable").digest == A, "it is shown anyway"
    assert images.channels("web")["channels"] == {"stable": f"{name} (revoked: openssl 3.0.11)"}


def test_what_was_baked_on_top_is_named_and_revoked_with_cascade(store, images):
    base, web, other = add(store, A, "1", "2", recipe="base"), add(store, B, "1", "2", "3"), add(store, C, "1", "9")
    assert images.revoke(base, "openssl")["descendants"] == {web: False}
    assert set(store.revoked()) == {A}
    told = images.revoke(base, "openssl", cascade=True)
    assert (told["revoked"], told["descendants"]) == ([web], {web: True})
    assert store.revoked()[B].reason == f"{base}, which it is built on, was revoked: openssl"
    assert store.usable(other).digest == C


def test_fleets_that_run_it_are_named_with_their_machines(store, images):
    add(store, A, "1", recipe="base")
    web = add(store, B, "1", "2")
    run(store, "shop", B, machines=2)
    run(store, "idle", B)
    run(store, "db", C, machines=1)
    assert images.revoke(A, "openssl")["fleets"] == {}
    assert images.revoke(A, "openssl", cascade=True)["fleets"] == {"idle": {web: 0}, "shop": {web: 2}}


def test_revoking_twice_changes_nothing_and_the_first_reason_stays(store, images, told):
    add(store, A)
    images.revoke(A, "first")
    assert not images.revoke(A, "second")["changed"]
    assert store.revoked()[A].reason == "first"
    assert len(told) == 1


def test_a_revocation_is_taken_back_with_a_reason_and_for_one_image(store, images):
    base, web = add(store, A, "1", recipe="base"), add(store, B, "1", "2")
    images.revoke(base, "openssl", cascade=True)
    told = images.unrevoke(base, "a false alarm")
    assert (told["changed"], told["still_revoked"]) == (True, [web])
    assert store.usable(base).digest == A
    assert not images.unrevoke(base, "again")["changed"]
    images.revoke(base, "it was true")
    assert store.revoked()[A].reason == "it was true"


@pytest.mark.parametrize("reason", [None, "", "  "])
def test_a_revocation_needs_a_reason(store, images, reason):
    add(store, A)
    for command in (images.revoke, images.unrevoke):
        with pytest.raises(SaltInvocationError, match="reason: say why"):
            command(A, reason)


def test_a_revocation_outlives_its_image(store, images):
    """The same inputs give the same digest again."""
    add(store, A)
    images.revoke(A, "openssl")
    store.delete_image(A)
    add(store, A)
    with pytest.raises(CommandExecutionError, match="openssl"):
        store.usable(A)


@pytest.mark.parametrize(
    ("recipe", "stack", "refused"),
    [
        pytest.param("web", ["1", "2"], True, id="on the revoked layers"),
        pytest.param("web", ["1", "2", "3"], True, id="an image as parent brings all of its layers at once"),
        pytest.param("web", ["1"], False, id="below them nothing is wrong"),
        pytest.param("web", ["2", "1", "3"], False, id="others in front of them"),
        pytest.param("base", ["1", "2"], False, id="the recipe itself may come to another image of the same layers"),
    ],
)
def test_a_bake_is_refused_where_it_comes_to_stand_on_a_revoked_image(store, images, recipe, stack, refused):
    add(store, A, "1", "2", recipe="base")
    images.revoke(A, "openssl")
    said = None
    try:
        require_sound(recipe, stack, store.images(), store.revoked())
    except CommandExecutionError as err:
        said = str(err)
    assert bool(said) == refused
    assert not refused or ("web would be built on base@aaaaaaaaaaaa was revoked on" in said and "openssl" in said)


def test_descendants_begin_with_all_the_layers_of_their_ancestor():
    def image(digest, *layers):
        return Image(digest, "web", layers, 1.0, True, {})

    base = image(A, "1", "2")
    others = [image(B, "1", "2", "3"), image(C, "1", "2"), image("d" * 64, "2", "1"), image("e" * 64, "1"), base]
    assert [one.digest[0] for one in descendants(base, others)] == ["b", "c"]

"""What is remembered of images, channels and leases. Times are seconds since the epoch."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

import sqlalchemy as sa
from salt.exceptions import CommandExecutionError, SaltInvocationError

from saltext.immutable.store.channels import Move, What, move
from saltext.immutable.store.database import Database
from saltext.immutable.store.leases import Holder, Lease, acquire, holder_of
from saltext.immutable.store.needs import needed
from saltext.immutable.store.revocations import Revocation, refused, standing
from saltext.immutable.store.schema import channels, contents, enrolled, images, leases, proofs, tests


@dataclass(frozen=True)
class Image:
    """A baked recipe."""

    digest: str
    recipe: str
    layers: tuple[str, ...]
    """Digests, the root first."""
    created: float
    read_only: bool
    report: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return what people read: ``web@3f2a9c1d04be``."""
        return f"{self.recipe}@{self.digest[:12]}"


class Store(Database):
    """The database, and what its tables say of images, channels and leases."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], float]) -> None:
        super().__init__(engine, clock)
        self.installation = self.once("installation", secrets.token_hex(8))
        """16 hexadecimal digits that tell our machines from those of another master."""
        self.secret = bytes.fromhex(self.once("secret", secrets.token_hex(32)))
        """For keyed hashes."""

    def add_image(self, image: Image) -> None:
        """Remember an image; one that is known already stays as it is."""
        row = {**asdict(image), "layers": list(image.layers), "report": dict(image.report)}
        self.insert_absent(images, row)

    def images(self, recipe: str | None = None) -> list[Image]:
        """Return the images (of ``recipe``), the newest first."""
        query = sa.select(images).order_by(images.c.created.desc(), images.c.digest)
        with self.read() as connection:
            rows = connection.execute(query if recipe is None else query.where(images.c.recipe == recipe))
            return [Image(**{**row, "layers": tuple(row["layers"])}) for row in rows.mappings()]

    def image(self, ref: str) -> Image:
        """Return the image that a digest, its first digits, ``web@digits`` or ``web:channel`` names."""
        ref = str(ref)  # Salt makes a number of digits
        recipe, colon, channel = ref.partition(":")
        if colon:
            return self._channel_image(recipe, channel)
        recipe, at, digits = ref.rpartition("@")
        found = [
            image
            for image in self.images(recipe if at else None)
            if len(digits) >= 6 and image.digest.startswith(digits)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise SaltInvocationError(f"{ref!r} could be any of {_names(found)}; give more digits")
        raise SaltInvocationError(
            f"no image {ref!r}; there are: {_names(self.images())}"
            " (give a digest, at least six digits of it, recipe@digits or recipe:channel)"
        )

    def _channel_image(self, recipe: str, channel: str) -> Image:
        digest = self.channel(recipe, channel)
        if digest:
            return self.image(digest)
        query = sa.select(channels.c.recipe, channels.c.channel).order_by(*channels.primary_key)
        with self.read() as connection:
            known = [f"{row.recipe}:{row.channel}" for row in connection.execute(query)]
        raise SaltInvocationError(
            f"no image is in {recipe}:{channel}; there are: {', '.join(known) or 'none'}"
            f" (salt-run image.bake {recipe} makes one)"
        )

    def revoked(self) -> dict[str, Revocation]:
        """Return the images that must not be rolled, by digest: those that failed their tests are among them."""
        with self.read() as connection:
            return refused(connection)

    def revocations(self) -> dict[str, Revocation]:
        """Return the images that somebody revoked, by digest."""
        with self.read() as connection:
            return standing(connection)

    def usable(self, ref: str) -> Image:
        """Return the image that ``ref`` names, to roll or promote it; raise where it is revoked or failed its tests."""
        image = self.image(ref)
        if revocation := self.revoked().get(image.digest):
            recipe, colon, channel = str(ref).partition(":")
            promote = f"promote another: salt-run image.promote {recipe}@... channel={channel}"
            mend = promote if colon else f"take another: salt-run image.list {image.recipe} names them"
            raise CommandExecutionError(f"{revocation}; {mend}")
        return image

    def delete_image(
        self, digest: str, *, with_channels: bool = False, test: bool = False, who: str | None = None
    ) -> None:
        """Forget an image that nothing needs; ``with_channels``: channels that name it go too; ``test``: only check."""
        with self.write() as tx:
            if found := needed(tx, digest, with_channels):
                raise CommandExecutionError(f"image {digest[:12]} is needed by {', '.join(found)}")
            if test:
                return
            why = f"image {digest[:12]} was deleted"
            for row in tx.execute(sa.select(channels).where(channels.c.digest == digest)).all():
                move(tx, Move(row.recipe, row.channel, self.clock(), "delete", digest, None, why, who))
            tx.execute(sa.delete(images).where(images.c.digest == digest))
            tx.execute(sa.delete(contents).where(contents.c.digest == digest))
            tx.execute(sa.delete(proofs).where(proofs.c.digest == digest))
            tx.execute(sa.delete(tests).where(tests.c.digest == digest))

    def enrolled(self) -> set[str]:
        """Return the ids that bakes were given a key for, and not let go of."""
        with self.read() as connection:
            return set(connection.execute(sa.select(enrolled.c.minion_id)).scalars())

    def note_enrolled(self, minion_id: str) -> None:
        """Remember that a bake is about to get a key."""
        self.insert_absent(enrolled, {"minion_id": minion_id})

    def note_forgotten(self, minion_id: str) -> None:
        """Forget it: the key is deleted."""
        with self.write() as tx:
            tx.execute(sa.delete(enrolled).where(enrolled.c.minion_id == minion_id))

    def channels(self) -> dict[str, list[str]]:
        """Return the channels of each image that has one, by digest."""
        named: dict[str, list[str]] = {}
        with self.read() as connection:
            for row in connection.execute(sa.select(channels).order_by(channels.c.channel)):
                named.setdefault(row.digest, []).append(row.channel)
        return named

    def channel(self, recipe: str, channel: str) -> str | None:
        """Return the digest that a channel names."""
        where = (channels.c.recipe == recipe, channels.c.channel == channel)
        with self.read() as connection:
            return cast("str | None", connection.execute(sa.select(channels.c.digest).where(*where)).scalar())

    def set_channel(
        self,
        recipe: str,
        channel: str,
        digest: str,
        *,
        what: What = "bake",
        reason: str = "",
        who: str | None = None,
    ) -> Move | None:
        """Let a channel name an image that may be rolled, and write it down; None: it names that already."""
        with self.write() as tx:
            if revocation := refused(tx).get(digest):
                raise CommandExecutionError(f"{recipe}:{channel} stays as it is: {revocation}")
            return move(tx, Move(recipe, channel, self.clock(), what, None, digest, reason, who))

    @contextmanager
    def lease(
        self, name: str, ttl: float = 30.0, *, user: str | None = None, jid: str | None = None
    ) -> Iterator[Lease]:
        """Hold ``name`` while the block runs; raise ``Held`` where somebody else does."""
        lease = acquire(self, name, ttl, Holder.this(self.clock(), user, jid))
        try:
            yield lease
        finally:
            lease.release()

    def holder(self, name: str) -> Holder | None:
        """Return who holds ``name`` now."""
        return holder_of(self, name)

    def taken(self, beginning: str) -> list[str]:
        """Return the leases whose names begin so and that somebody took, who may be dead."""
        where = (leases.c.name.startswith(beginning), leases.c.holder.is_not(None))
        with self.read() as connection:
            return list(connection.execute(sa.select(leases.c.name).where(*where).order_by(leases.c.name)).scalars())

    def forget_lease(self, name: str) -> None:
        """Forget a lease that is over, and whose name nobody takes a second time."""
        with self.write() as tx:
            tx.execute(sa.delete(leases).where(leases.c.name == name))


def _names(found: list[Image]) -> str:
    names = [image.name for image in found[:10]] + (["..."] if len(found) > 10 else [])
    return ", ".join(names) or "none"

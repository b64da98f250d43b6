"""The store: images, channels and leases. Times are seconds since the epoch."""

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
from saltext.immutable.store.in_use import used_by
from saltext.immutable.store.leases import Holder, Lease, acquire, holder_of
from saltext.immutable.store.revocations import Revocation, active, unusable
from saltext.immutable.store.schema import channels, contents, enrolled, images, leases, meta, proofs, tests


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
        """Return the short name: ``web@3f2a9c1d04be``."""
        return f"{self.recipe}@{self.digest[:12]}"


class Store(Database):
    """The database with the operations on images, channels and leases. Any thread may call."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], float]) -> None:
        super().__init__(engine, clock)
        self.installation = self.get_or_create("installation", secrets.token_hex(8))
        """16 hexadecimal digits that identify the machines of this master, or of masters that share the store."""
        self.secret = bytes.fromhex(self.get_or_create("secret", secrets.token_hex(32)))
        """For keyed hashes."""
        self.proofs_since = float(self.get_or_create("proofs_since", repr(clock())))
        """When this store was first used by a version that makes machines prove their answers: those that were launched
        later can."""

    def adopt(self, installation: str) -> None:
        """Take over the machines that are tagged with another installation id: those of a store that was lost."""
        with self.write() as tx:
            tx.execute(sa.update(meta).where(meta.c.key == "installation").values(value=installation))
        self.installation = installation

    def add_image(self, image: Image) -> None:
        """Add an image; one that is there already stays as it is."""
        row = {**asdict(image), "layers": list(image.layers), "report": dict(image.report)}
        self.insert_absent(images, row)

    def images(self, recipe: str | None = None) -> list[Image]:
        """Return the images (of ``recipe``), the newest first."""
        query = sa.select(images).order_by(images.c.created.desc(), images.c.digest)
        with self.read() as connection:
            rows = connection.execute(query if recipe is None else query.where(images.c.recipe == recipe))
            return [Image(**{**row, "layers": tuple(row["layers"])}) for row in rows.mappings()]

    def image(self, ref: str) -> Image:
        """Return the image of a digest, its first digits (six or more), ``web@digits`` or ``web:channel``.

        Raises ``SaltInvocationError``, with the names of existing images, if there is none or more than one.
        """
        ref = str(ref)  # Salt's command line turns digits into a number
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
        """Return the images that must not be rolled, by digest: revoked ones and those that failed their tests."""
        with self.read() as connection:
            return unusable(connection)

    def revocations(self) -> dict[str, Revocation]:
        """Return the images that somebody revoked, by digest."""
        with self.read() as connection:
            return active(connection)

    def usable(self, ref: str) -> Image:
        """Return the image that ``ref`` names, to roll or promote it.

        Raises ``CommandExecutionError`` if it is revoked or failed its tests.
        """
        image = self.image(ref)
        if revocation := self.revoked().get(image.digest):
            recipe, colon, channel = str(ref).partition(":")
            if not colon:
                raise CommandExecutionError(
                    f"{revocation}; take another: salt-run image.list {image.recipe} names them"
                )
            raise CommandExecutionError(
                f"{revocation}; promote another: salt-run image.promote {recipe}@... channel={channel}"
            )
        return image

    def delete_image(
        self, digest: str, *, with_channels: bool = False, test: bool = False, who: str | None = None
    ) -> None:
        """Delete an image from the store; raise ``CommandExecutionError`` if it is in use.

        ``with_channels``: delete the channels that name it too; ``test``: only check.
        """
        with self.write() as tx:
            if found := used_by(tx, digest, with_channels):
                raise CommandExecutionError(
                    f"image {digest[:12]} is needed by {', '.join(found)}; give them another one first"
                )
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
        """Return the minion ids of bakes that have a key on the master."""
        with self.read() as connection:
            return set(connection.execute(sa.select(enrolled.c.minion_id)).scalars())

    def add_enrolled(self, minion_id: str) -> None:
        """Record that a bake is about to get a key."""
        self.insert_absent(enrolled, {"minion_id": minion_id})

    def remove_enrolled(self, minion_id: str) -> None:
        """Record that the key of a bake is deleted."""
        with self.write() as tx:
            tx.execute(sa.delete(enrolled).where(enrolled.c.minion_id == minion_id))

    def channels(self) -> dict[str, list[str]]:
        """Return digest to channels, of each image that has any."""
        named: dict[str, list[str]] = {}
        with self.read() as connection:
            for row in connection.execute(sa.select(channels).order_by(channels.c.channel)):
                named.setdefault(row.digest, []).append(row.channel)
        return named

    def channel(self, recipe: str, channel: str) -> str | None:
        """Return the digest that a channel names; None if there is no such channel."""
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
        """Point a channel to an image and record it; return None if it points there already.

        Raises ``CommandExecutionError`` if the image must not be rolled.
        """
        with self.write() as tx:
            if revocation := unusable(tx).get(digest):
                raise CommandExecutionError(
                    f"{recipe}:{channel} stays as it is: {revocation}; take another image "
                    f"(salt-run image.list {recipe} names them)"
                )
            return move(tx, Move(recipe, channel, self.clock(), what, None, digest, reason, who))

    @contextmanager
    def lease(
        self, name: str, ttl: float = 30.0, *, user: str | None = None, jid: str | None = None
    ) -> Iterator[Lease]:
        """Hold the lease ``name`` while the block runs; raise ``Held`` if another process holds it.

        ``ttl``: seconds after which it is lost unless it is renewed; ``user``, ``jid``: for the message of others.
        """
        lease = acquire(self, name, ttl, Holder.current(self.clock(), user, jid))
        try:
            yield lease
        finally:
            lease.release()

    def holder(self, name: str) -> Holder | None:
        """Return the process that holds the lease ``name`` now, or None."""
        return holder_of(self, name)

    def taken(self, prefix: str) -> list[str]:
        """Return the names with this prefix of the leases that were taken; their holders may have died."""
        where = (leases.c.name.startswith(prefix), leases.c.holder.is_not(None))
        with self.read() as connection:
            return list(connection.execute(sa.select(leases.c.name).where(*where).order_by(leases.c.name)).scalars())

    def forget_lease(self, name: str) -> None:
        """Delete a released lease whose name is never used again."""
        with self.write() as tx:
            tx.execute(sa.delete(leases).where(leases.c.name == name))


def _names(found: list[Image]) -> str:
    names = [image.name for image in found[:10]] + (["..."] if len(found) > 10 else [])
    return ", ".join(names) or "none"

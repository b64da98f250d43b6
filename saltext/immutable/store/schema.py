"""The tables. Times are seconds since the epoch."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

meta = sa.Table("meta", metadata, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text))

images = sa.Table(
    "images",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("recipe", sa.Text, nullable=False),
    sa.Column("layers", sa.JSON, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("read_only", sa.Boolean, nullable=False),
    sa.Column("report", sa.JSON, nullable=False),
)

channels = sa.Table(
    "channels",
    metadata,
    sa.Column("recipe", sa.Text, primary_key=True),
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("digest", sa.ForeignKey("images.digest"), nullable=False),
)

# What channels named, and since when. No foreign key: history outlives images.
channel_moves = sa.Table(
    "channel_moves",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("recipe", sa.Text, nullable=False, index=True),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("source", sa.Text),
    sa.Column("target", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("who", sa.Text),
)

# Images that must not be rolled any more, until that is lifted.
revocations = sa.Table(
    "revocations",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("who", sa.Text),
    sa.Column("lifted", sa.Float),
    sa.Column("lifted_reason", sa.Text),
    sa.Column("lifted_by", sa.Text),
)

# What went into an image, for comparing it with another one.
contents = sa.Table(
    "contents",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("made_from", sa.JSON, nullable=False),
)

# What bakes asked the master for, by what is known before anything is asked: the same answers lead to the same layer.
questions = sa.Table(
    "questions",
    metadata,
    sa.Column("ground", sa.Text, primary_key=True),
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("recipe", sa.Text, nullable=False, index=True),
    sa.Column("asked", sa.JSON, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)

# How all that images are made from looked when a recipe was baked, to answer at once while nothing has changed.
fingerprints = sa.Table(
    "fingerprints",
    metadata,
    sa.Column("recipe", sa.Text, primary_key=True),
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("image", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("layers", sa.JSON),  # by key, which digest it led to
)

# What the last bake of a recipe was made from, in parts, to tell what has changed since.
bakes = sa.Table(
    "bakes",
    metadata,
    sa.Column("recipe", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("told", sa.JSON, nullable=False),
)

# What vouches for an image: the signed statement about it, and where it comes from (None: not written down).
proofs = sa.Table(
    "proofs",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("signature", sa.JSON, nullable=False),
    sa.Column("provenance", sa.JSON(none_as_null=True)),
)

# What came of the tests of images, and of bakes that gave none (digest: None). ``failed``: why the image must not be
# rolled; ``key``: which tests were run on it.
tests = sa.Table(
    "tests",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("recipe", sa.Text, nullable=False, index=True),
    sa.Column("digest", sa.Text, index=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("results", sa.JSON, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("failed", sa.Text),
)

# Ids that bake at the moment, and have a key on the master: whoever comes after a kill deletes it.
enrolled = sa.Table("enrolled", metadata, sa.Column("minion_id", sa.Text, primary_key=True))

fleets = sa.Table(
    "fleets",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    # Good generations, the newest last: the last one runs now, the one before is what a rollback goes to.
    sa.Column("lineage", sa.JSON, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
)

generations = sa.Table(
    "generations",
    metadata,
    sa.Column("fleet", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    # No foreign key: history outlives images.
    sa.Column("image", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    # Who sent the visitors: also when the fleet has left the pillar they must be told.
    sa.Column("traffic", sa.JSON(none_as_null=True)),
)

rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("fleet", sa.Text, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("source", sa.Integer),
    sa.Column("target", sa.Integer),
    sa.Column("old_size", sa.Integer, nullable=False),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("progress_at", sa.Float, nullable=False),
    sa.Column("direction", sa.Text, nullable=False),
    sa.Column("failures", sa.JSON, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("ended", sa.Float),
    sa.Column("step", sa.Integer, nullable=False, server_default="0"),
    sa.Column("step_reached_at", sa.Float),
    sa.Column("approved", sa.Integer, nullable=False, server_default="0"),
    sa.Column("switched_at", sa.Float),
    sa.Column("replaces", sa.Integer, nullable=False, server_default="0"),
    sa.Column("paused_by", sa.Text),
    sa.Column("held_from", sa.Text),
)

journal = sa.Table(
    "journal",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("rollout", sa.ForeignKey("rollouts.id"), nullable=False, index=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("minion_id", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
)

machines = sa.Table(
    "machines",
    metadata,
    sa.Column("minion_id", sa.Text, primary_key=True),
    sa.Column("fleet", sa.Text, nullable=False, index=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("intent", sa.Text, nullable=False),
    sa.Column("ref", sa.Text),
    sa.Column("born", sa.Float, nullable=False),
    sa.Column("ready_since", sa.Float),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("healthy_since", sa.Float),
    # What we want of those who send the visitors: in, drain or out.
    sa.Column("traffic", sa.Text, nullable=False, server_default="in"),
    sa.Column("drain_since", sa.Float),
    sa.Column("kept_until", sa.Float),
)

# What ``fleet.plan`` foretold, and from what; a plan is good for one roll.
plans = sa.Table(
    "plans",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("fleet", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.Float, nullable=False),
    # None: the channel's.
    sa.Column("image", sa.Text),
    sa.Column("ground", sa.JSON, nullable=False),
    sa.Column("actions", sa.JSON, nullable=False),
    sa.Column("who", sa.Text),
    sa.Column("used", sa.Float),
)

# What nobody may take away while it is well.
protections = sa.Table(
    "protections",
    metadata,
    sa.Column("minion_id", sa.Text, primary_key=True),
    sa.Column("fleet", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("who", sa.Text),
)

# What operators want of a rollout that somebody else may be driving.
orders = sa.Table(
    "orders",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("fleet", sa.Text, nullable=False, index=True),
    sa.Column("rollout", sa.ForeignKey("rollouts.id"), nullable=False),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("who", sa.Text),
    sa.Column("taken", sa.Float),
    # At which step the rollout was.
    sa.Column("step", sa.Integer),
)

# Sizes that operators set in place of the pillar's. They hold until the pillar's own size changes.
sizes = sa.Table(
    "sizes",
    metadata,
    sa.Column("fleet", sa.Text, primary_key=True),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("instead_of", sa.Integer, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("who", sa.Text),
)

# What fleets may begin but have not written down yet; see fleet/budgets.py.
reservations = sa.Table(
    "reservations",
    metadata,
    sa.Column("fleet", sa.Text, primary_key=True),
    sa.Column("launches", sa.Integer, nullable=False),
    sa.Column("disruptions", sa.Integer, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)

# What is no longer what its image says. Adopted machines are of no fleet.
taints = sa.Table(
    "taints",
    metadata,
    sa.Column("minion_id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("fleet", sa.Text, index=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("who", sa.Text),
)

# When a fleet was looked at for its upkeep, and how many seconds are usual between two looks.
looks = sa.Table(
    "looks",
    metadata,
    sa.Column("fleet", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("usual", sa.Float),
)

# Machines that were sick at the last look at their fleet, and since when.
sickness = sa.Table(
    "sickness",
    metadata,
    sa.Column("minion_id", sa.Text, primary_key=True),
    sa.Column("fleet", sa.Text, nullable=False, index=True),
    sa.Column("ailment", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
)

# Keys and machines in no book, and since when they are seen.
orphans = sa.Table(
    "orphans",
    metadata,
    sa.Column("what", sa.Text, primary_key=True),
    sa.Column("minion_id", sa.Text, primary_key=True),
    sa.Column("fleet", sa.Text, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    # When its end was asked for; its key goes when no list shows it any more.
    sa.Column("ended", sa.Float),
)

# The journal of what is done outside rollouts. It outlives the machines.
deeds = sa.Table(
    "deeds",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("fleet", sa.Text, index=True),
    sa.Column("minion_id", sa.Text, index=True),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("who", sa.Text),
    sa.Column("jid", sa.Text),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("holder", sa.JSON(none_as_null=True)),
    sa.Column("until", sa.Float, nullable=False),
)

UNFINISHED = sa.or_(rollouts.c.outcome.is_(None), rollouts.c.outcome == "paused")

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

# The history of channels. No foreign key: history outlives images.
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

# Revoked images: they must not be rolled until the revocation is lifted.
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

# The inputs of an image, for comparing it with another one.
contents = sa.Table(
    "contents",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("made_from", sa.JSON, nullable=False),
)

# Which files and names each bake asked the master for, by the inputs known before (ground): with the same answers, a
# bake gives the same layer.
questions = sa.Table(
    "questions",
    metadata,
    sa.Column("ground", sa.Text, primary_key=True),
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("recipe", sa.Text, nullable=False, index=True),
    sa.Column("asked", sa.JSON, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)

# A fingerprint of all inputs at the last bake of a recipe, so that a bake without changes is answered at once.
fingerprints = sa.Table(
    "fingerprints",
    metadata,
    sa.Column("recipe", sa.Text, primary_key=True),
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("image", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("layers", sa.JSON),  # key to digest
)

# The inputs of the last bake of a recipe, in parts, to tell what has changed since.
bakes = sa.Table(
    "bakes",
    metadata,
    sa.Column("recipe", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("told", sa.JSON, nullable=False),
)

# The signed statement about an image, and its provenance (None: not recorded).
proofs = sa.Table(
    "proofs",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("signature", sa.JSON, nullable=False),
    sa.Column("provenance", sa.JSON(none_as_null=True)),
)

# Results of the tests of images, and of bakes that made no image (digest: None). ``failed``: why the image must not be
# rolled; ``key``: a hash of the tests that ran.
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

# Minion ids of bakes that have a key on the master. The next bake deletes the key of one that was killed.
enrolled = sa.Table("enrolled", metadata, sa.Column("minion_id", sa.Text, primary_key=True))

fleets = sa.Table(
    "fleets",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    # Good generations, the newest last: the last one is current, a rollback goes to the one before.
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
    # Name and settings of the traffic adapter: needed to detach machines of a fleet that has left the pillar.
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
    # What the traffic adapter should do with the machine: in, drain or out.
    sa.Column("traffic", sa.Text, nullable=False, server_default="in"),
    sa.Column("drain_since", sa.Float),
    sa.Column("kept_until", sa.Float),
    # When its host had started it again, as the provider said when it was last healthy.
    sa.Column("restarted", sa.Float),
)

# Saved results of ``fleet.plan``, with the state that they were made from (ground). A plan is good for one roll.
plans = sa.Table(
    "plans",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("fleet", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.Float, nullable=False),
    # None: the image of the channel.
    sa.Column("image", sa.Text),
    sa.Column("ground", sa.JSON, nullable=False),
    sa.Column("actions", sa.JSON, nullable=False),
    sa.Column("who", sa.Text),
    sa.Column("used", sa.Float),
)

# Protected machines: not removed while they are healthy.
protections = sa.Table(
    "protections",
    metadata,
    sa.Column("minion_id", sa.Text, primary_key=True),
    sa.Column("fleet", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("who", sa.Text),
)

# Orders of operators to a rollout that another process may drive: pause, abort, approve, back.
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
    # The step of the rollout when the order was given.
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

# Launches and disruptions that fleets reserved but have not recorded yet; see fleet/books/budgets.py.
reservations = sa.Table(
    "reservations",
    metadata,
    sa.Column("fleet", sa.Text, primary_key=True),
    sa.Column("launches", sa.Integer, nullable=False),
    sa.Column("disruptions", sa.Integer, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)

# Tainted machines: they no longer match their image. Adopted machines have no fleet.
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

# When ``fleet.reconcile`` last ran for a fleet, and its usual interval in seconds.
looks = sa.Table(
    "looks",
    metadata,
    sa.Column("fleet", sa.Text, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("usual", sa.Float),
)

# Machines that were sick when ``fleet.reconcile`` last ran, and since when.
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

# Orphans: keys and machines that no fleet needs, and when they were first seen.
orphans = sa.Table(
    "orphans",
    metadata,
    sa.Column("what", sa.Text, primary_key=True),
    sa.Column("minion_id", sa.Text, primary_key=True),
    sa.Column("fleet", sa.Text, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    # When its destruction was requested. Its key is deleted when no provider lists it any more.
    sa.Column("ended", sa.Float),
)

# The journal of interventions outside rollouts. It outlives the machines.
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

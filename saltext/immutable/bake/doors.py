"""What `_modules/image.py` offers, as a builder that is this process has it."""

from __future__ import annotations

from saltext.immutable.bake import (
    builder,
    compare,
    debian,
    garbage,
    shell,
    software,
    trial,
    verify,
)
from saltext.immutable.hosts import Doors

DOORS: Doors = {
    "sources": lambda host, **order: debian.sources(**order, cache=host.cache),
    "find_layer": builder.find_layer,
    "keep_layer": builder.keep_layer,
    "make_key": builder.make_key,
    "debian_layer": builder.debian_layer,
    "root_content": builder.root_content,
    "root_layer": builder.root_layer,
    "minion_layer": builder.minion_layer,
    "state_layer": builder.state_layer,
    "candidates": builder.candidates,
    "updates": builder.pending_updates,
    "make_image": builder.make_image,
    "keep_proof": builder.keep_proof,
    "test_image": trial.test_image,
    "verify_image": builder.verify_image,
    "require_image": verify.require,
    "find_image": builder.find_image,
    "has_image": builder.has_image,
    "software": software.software,
    "compare_images": compare.compare,
    "open_shell": shell.open_shell,
    "local_images": builder.local_images,
    "drop_image": builder.drop_image,
    "image_users": garbage.image_users,
    "collect": garbage.collect,
    "sweep": builder.sweep,
}

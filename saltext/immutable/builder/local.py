"""The functions of `_modules/image.py`, for a master that is the builder itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from saltext.immutable.builder import commands, garbage, shell
from saltext.immutable.builder.image_tests import run
from saltext.immutable.builder.sources import debian
from saltext.immutable.images import compare, software, verify

LOCAL: Mapping[str, Callable[..., Any]] = {
    "sources": lambda host, **order: debian.sources(**order, cache=host.cache),
    "find_layer": commands.find_layer,
    "keep_layer": commands.keep_layer,
    "make_key": commands.make_key,
    "debian_layer": commands.debian_layer,
    "root_content": commands.root_content,
    "root_layer": commands.root_layer,
    "minion_layer": commands.minion_layer,
    "apply_again": commands.apply_again,
    "state_layer": commands.state_layer,
    "candidates": commands.candidates,
    "updates": commands.pending_updates,
    "make_image": commands.make_image,
    "keep_proof": commands.keep_proof,
    "test_image": run.test_image,
    "verify_image": commands.verify_image,
    "require_image": verify.require,
    "find_image": commands.find_image,
    "has_image": commands.has_image,
    "software": software.software,
    "compare_images": compare.compare,
    "open_failed": shell.open_failed,
    "open_shell": shell.open_shell,
    "local_images": commands.local_images,
    "drop_image": commands.drop_image,
    "image_users": garbage.image_users,
    "collect": garbage.collect,
    "sweep": commands.sweep,
}

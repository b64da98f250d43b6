"""The functions of `_modules/image.py`, for a master that is the builder itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from saltext.immutable.builder import commands, garbage, image_commands, shell
from saltext.immutable.builder.image_tests import run
from saltext.immutable.builder.sources import debian
from saltext.immutable.builder.vm import bake as vm_bake
from saltext.immutable.builder.vm import tests
from saltext.immutable.images import compare, software, verify

LOCAL: Mapping[str, Callable[..., Any]] = {
    "sources": lambda host, **order: debian.sources(**order, cache=host.cache),
    "find_layer": commands.find_layer,
    "keep_layer": commands.keep_layer,
    "make_key": commands.make_key,
    "debian_layer": commands.debian_layer,
    "root_content": commands.root_content,
    "kernel_content": lambda host, order: vm_bake.kernel_content(order),
    "root_layer": commands.root_layer,
    "oci_content": commands.oci_content,
    "oci_layer": commands.oci_layer,
    "minion_layer": commands.minion_layer,
    "apply_again": commands.apply_again,
    "state_layer": commands.state_layer,
    "candidates": commands.candidates,
    "updates": commands.pending_updates,
    "make_image": image_commands.make_image,
    "keep_proof": image_commands.keep_proof,
    "test_image": run.test_image,
    "test_disk": tests.test_disk,
    "verify_image": image_commands.verify_image,
    "require_image": verify.require,
    "find_image": image_commands.find_image,
    "has_image": image_commands.has_image,
    "software": software.software,
    "compare_images": compare.compare,
    "open_failed": shell.open_failed,
    "open_shell": shell.open_shell,
    "local_images": image_commands.local_images,
    "drop_image": image_commands.drop_image,
    "image_users": garbage.image_users,
    "collect": garbage.collect,
    "sweep": commands.sweep,
}

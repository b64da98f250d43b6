"""``salt-call`` that asks the master for files as they were at the beginning of the bake.

Runs in the machine that bakes, with the image's own Python: ``python -m saltext.immutable.builder.pins salt-call ...``.
States do not notice: in requests to the master alone an environment has the name under which `bake.keys.git_remotes`
has it pinned.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

PINS = "IMMUTABLE_PINS"
"""Environment variable with the name of each environment, as JSON."""
_OF_FILES = (
    *("_serve_file", "_file_hash", "_file_find", "_file_hash_and_stat"),
    *("_file_list", "_file_list_emptydirs", "_dir_list", "_symlink_list"),
)


def environment(pins: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that `install` reads; none where nothing is pinned."""
    return {PINS: json.dumps(dict(pins))} if pins else {}


def install() -> None:
    """Have Salt's file client ask for what the environment variable names, if there is one."""
    pins = json.loads(os.environ.pop(PINS, "{}"))
    if pins:
        import salt.channel.client

        pin(salt.channel.client.AsyncReqChannel, pins)


def pin(channel: type, pins: Mapping[str, str]) -> None:
    """Replace the names of environments in requests by their pins. ``channel``: the class that sends them."""

    async def known() -> list[str]:
        return sorted(pins)

    original: Callable[..., Any] = vars(channel)["send"]

    @functools.wraps(original)
    def send(self: Any, load: Any, *args: Any, **kwargs: Any) -> Any:
        command = load.get("cmd") if isinstance(load, dict) else None
        if command == "_file_envs":
            return known()
        if command in _OF_FILES and load.get("saltenv") in pins:
            load = {**load, "saltenv": pins[load["saltenv"]]}
        return original(self, load, *args, **kwargs)

    setattr(channel, "send", send)  # noqa: B010 (mypy knows no such attribute)


def main() -> None:
    """Run ``salt-call`` with the arguments that follow."""
    import salt.scripts

    del sys.argv[0]
    install()
    salt.scripts.salt_call()


if __name__ == "__main__":
    main()

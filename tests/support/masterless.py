"""``salt-call state.highstate`` as a bake does it, traced, with the master's file server in the same process.

Standard input has a list of orders (config, master, trace, extmods), which are carried out one by one. Standard output
has a list with the results of their states.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import salt.channel.client
import salt.config
import salt.fileserver
import salt.state

from saltext.immutable.builder.states import traced_salt_call
from saltext.immutable.builder.states.trace import Trace

FILES = {
    "_file_find": "find_file",
    "_file_hash": "file_hash",
    "_file_list": "file_list",
    "_file_list_emptydirs": "file_list_emptydirs",
    "_dir_list": "dir_list",
    "_symlink_list": "symlink_list",
    "_serve_file": "serve_file",
    "_file_envs": "file_envs",
}


class Channel(salt.channel.client.AsyncReqChannel):  # type: ignore[misc]
    """Requests files from a file server in this process; `traced_salt_call` wraps the parent class."""

    served: dict[str, Any] = {}

    def __init__(self) -> None:
        self.auth = ""

    def close(self) -> None: ...

    def __del__(self) -> None: ...

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None: ...


def answer(self: Any, load: dict[str, Any], *_: Any, **__: Any) -> Any:
    """Answer as the master would."""
    master, server = Channel.served["opts"], Channel.served["server"]
    if load["cmd"] in FILES:
        return getattr(server, FILES[load["cmd"]])(load) if load["cmd"] != "_file_envs" else server.envs()
    if load["cmd"] == "_master_opts":
        names = ("renderer", "failhard", "state_top", "nodegroups", "state_auto_order", "file_roots", "hash_type")
        return {name: master[name] for name in names if name in master} | {"file_roots": dict(master["file_roots"])}
    if load["cmd"] == "_mine_get":
        return {"other": "10.0.0.7"}
    return {}


def pillar(self: Any, load: dict[str, Any], **_: Any) -> Any:
    """Give the pillar."""
    return dict(Channel.served["pillar"])


def apply(order: dict[str, Any], trace: Trace) -> Any:
    """Apply a highstate."""
    Channel.served["opts"] = {**salt.config.master_config(None), **order["master"]}
    Channel.served["server"] = salt.fileserver.Fileserver(copy.copy(Channel.served["opts"]))
    Channel.served["pillar"] = order["config"]["pillar"]
    trace.divert(order["trace"])
    for kind, folder in order["extmods"].items():
        target = Path(order["config"]["extension_modules"], kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(folder)
    opts = {**salt.config.minion_config(None), **order["config"], "file_client": "remote", "master_uri": ""}
    opts["autoload_dynamic_modules"] = False  # a bake has synced them before
    opts["optimization_order"] = [0]
    state = salt.state.HighState(opts)
    try:
        return state.call_highstate()
    finally:
        state.destroy()


def main() -> None:
    """Carry out the orders."""
    orders = json.load(sys.stdin)
    salt.channel.client.AsyncReqChannel.send = answer
    salt.channel.client.AsyncReqChannel.crypted_transfer_decode_dictentry = pillar
    salt.channel.client.ReqChannel.factory = staticmethod(lambda opts, **_: Channel())
    trace = Trace("/dev/null", "", b"key")
    traced_salt_call.watch(trace)
    json.dump([apply(order, trace) for order in orders], sys.stdout, default=repr)


main()

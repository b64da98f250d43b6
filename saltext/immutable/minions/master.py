"""The master itself: its keys, whether it runs, and the minion config by which a machine finds it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import salt.utils.sdb
from salt.exceptions import CommandExecutionError
from salt.utils.crypt import pem_finger


def machine_config(opts: Mapping[str, Any], master: str) -> dict[str, Any]:
    """Return the minion config by which a machine finds this master."""
    config = {"master": master, "master_port": opts["ret_port"], "publish_port": opts["publish_port"]}
    # Another machine on the bridge could pose as the master, but it does not have this key.
    hash_type = opts["hash_type"]
    config |= {"master_finger": pem_finger(_public_key(opts), sum_type=hash_type), "hash_type": hash_type}
    return config | ({"transport": opts["transport"]} if opts["transport"] != "zeromq" else {})


def _public_key(opts: Mapping[str, Any]) -> str:
    if opts.get("cluster_id"):
        return str(Path(opts["cluster_pki_dir"], "cluster.pub"))
    return str(Path(opts["pki_dir"], "master.pub"))


def public_key(opts: Mapping[str, Any]) -> str:
    """Return the master's public key (PEM), as a minion keeps it."""
    return Path(_public_key(opts)).read_text()


def private_key(opts: Mapping[str, Any]) -> tuple[bytes, str | None]:
    """Return the master's private key (PEM) and its passphrase, or None.

    Its public half is the key that every minion has. Raises ``CommandExecutionError`` if it cannot be read.
    """
    clustered = bool(opts.get("cluster_id"))
    path = Path(_public_key(opts)).with_suffix(".pem")
    try:
        pem = path.read_bytes()
    except OSError as err:
        raise CommandExecutionError(
            f"the master's key {path} cannot be read: {err}; let the master's user read it"
        ) from err
    phrase = opts.get("cluster_key_pass" if clustered else "key_pass")
    return pem, salt.utils.sdb.sdb_get(phrase, dict(opts)) if phrase else None


def require_running(opts: Mapping[str, Any]) -> None:
    """Raise ``CommandExecutionError`` unless a master listens. (Salt's clients would wait for it without a message.)"""
    if opts["ipc_mode"] == "tcp":
        return
    with socket.socket(socket.AF_UNIX) as bus:
        try:
            bus.connect(os.path.join(opts["sock_dir"], "master_event_pub.ipc"))
        except OSError as err:
            raise CommandExecutionError(
                f"no Salt master listens in {opts['sock_dir']} ({err}); start it with "
                "systemctl start salt-master, or name the config of the one that runs with salt-run -c"
            ) from err

"""Commit a layer to an ext4 with fs-verity, flip a byte of the disk below it, and read: what the kernel says, as JSON.

It is the first program of a machine in emulation (`test_disk.py`), because not every kernel on which tests run has
fs-verity. The file system is on the third disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

from saltext.immutable.host import Host
from saltext.immutable.images import layers, verify, verity

DEVICE, PLACE = "/dev/vdc", Path("/tmp/checked")
TEXT = b"as it was baked\n" * 4096
BEGINS = "what the kernel says: "


@contextmanager
def mounted():
    PLACE.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "ext4", DEVICE, PLACE], check=True)
    try:
        yield Host(PLACE / "immutable")
    finally:
        subprocess.run(["umount", PLACE], check=True)


def commit(host: Host) -> str:
    host.prepare()
    with host.workspace() as workspace:
        (workspace / "fs/etc").mkdir(parents=True)
        (workspace / "fs/etc/motd").write_bytes(TEXT)
        for number in range(100):
            (workspace / f"fs/etc/{number}").write_text(f"file {number}\n")
        return layers.commit(host, workspace, what="states of web").digest


def flip() -> None:
    """Change one byte of the file as the disk has it."""
    with open(DEVICE, "r+b") as disk:
        where = disk.read().index(TEXT) + len(TEXT) // 2
        disk.seek(where)
        disk.write(b"X")
        disk.flush()
        os.fsync(disk.fileno())


def error(action) -> str:
    """Return the error in which an action ends, or ''."""
    try:
        action()
    except Exception as err:
        return f"{type(err).__name__}: {err}"
    return ""


def main() -> dict[str, object]:
    told: dict[str, object] = {}
    with mounted() as host:
        digest = commit(host)
        tree = host.layers / digest / "fs"
        file = tree / "etc/motd"
        told["verity"] = verity.checked(host.layers, [tree])
        told["write"] = error(lambda: file.open("r+b"))
        told["again"] = verity.enable(tree)
    with mounted():
        told["before"] = error(file.read_bytes) or file.read_bytes() == TEXT
        told["unchanged"] = error(lambda: verify.require_layers(host, [digest]))
        (host.layers / digest / "seen.json").unlink(missing_ok=True)
        told["read"] = error(lambda: verify.require_layers(host, [digest]))
        (host.layers / digest / "seen.json").unlink(missing_ok=True)
    flip()
    with mounted():
        told["after"] = error(file.read_bytes)
        told["verify"] = error(lambda: verify.require_layers(host, [digest]))
    return told


if __name__ == "__main__":
    try:
        print(BEGINS + json.dumps(main()), flush=True)
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    time.sleep(1)  # the console is slower
    Path("/proc/sysrq-trigger").write_text("o")
    time.sleep(600)

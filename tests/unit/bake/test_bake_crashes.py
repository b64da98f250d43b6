"""kill -9 and a full disk at each step of making an image: what is there afterwards is whole, and the rest goes.

Each step is one that makes a name in the builder's folder, or changes one. A child process takes one step fewer than
the last one did, and then dies, or is told that the disk is full.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError
from support import slices

from saltext.immutable.builder import commands, garbage, image_commands
from saltext.immutable.builder.local import LOCAL
from saltext.immutable.host import Host
from saltext.immutable.images import layers, manifest, verify
from saltext.immutable.machines import images
from saltext.immutable.machines.cgroup import Cgroup
from saltext.immutable.spec.model import Settings
from saltext.immutable.worker import Worker

KEY = "k" * 64
POLICY: dict[str, Any] = {"writable": [], "at_launch": []}
EACH = 3
"""How many steps further it goes each time."""
STEPS_BETWEEN = slices.full("kills at the steps in between", minutes=0.3, apart=True)
PROOF = {"signature": {"payload": ""}, "provenance": {}}
_CREATES = {"os.mkdir": 0, "os.symlink": 1, "os.link": 1, "os.rename": 1}
"""Events of Python's audit, and which argument is the new name."""
_CHANGES = {"os.remove": 0, "os.rmdir": 0, "os.chmod": 0, "os.utime": 0, "os.chown": 0, **_CREATES}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Work in no cgroup of its own, and leave the disks of this host in peace."""
    monkeypatch.setattr(Cgroup, "start_command", lambda self: [])
    monkeypatch.setattr(commands, "_end_processes", lambda host, place: None)
    monkeypatch.setattr(layers, "run", lambda command: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    for folder in ("etc", "usr/bin", "usr/sbin", "usr/share/doc/a", "var/log", "var/cache/apt", "tmp"):
        (place / folder).mkdir(parents=True)
    place.chmod(0o755)
    for name in ("usr/bin/python3", "usr/sbin/init", "usr/share/doc/a/b", "var/log/c", "etc/passwd"):
        (place / name).write_text(name)
    for path in (*place.rglob("*"), place):
        os.utime(path, (1e9, 1e9))
    return place


def bake(host: Host, root: Path) -> str:
    """Do what a bake of one layer does on a builder, and return the digest of its image."""
    worker = Worker.__new__(Worker)
    worker._settings, worker._local = Settings(root=host.root), LOCAL
    found = worker("find_layer", key=KEY)
    if found is None:
        content = worker("root_content", order={"directory": str(root)})
        order = {"what": "directory root", "directory": str(root), "sha256": content, "slim": None}
        found = worker("root_layer", order=order)
        worker("keep_layer", key=KEY, digest=found["digest"], warnings=found["warnings"], about={"packages": {}})
    order = {"recipe": "web", "layers": [found["digest"]], "read_only": True, "grains": {"a": "b"}, "policy": POLICY}
    made = worker("make_image", order={**order, "salt": "1", "pack": "1"})
    if made["proof"] is None:
        worker("keep_proof", digest=made["image"], proof=PROOF)
    return str(made["image"])


class Step:
    """A hook of Python's audit: before one step, the first being 0, something happens."""

    def __init__(self, host: Host, number: int, events: dict[str, int], happens: Callable[[], None]) -> None:
        self._root, self.left, self._events, self._happens = str(host.root), number, events, happens

    def __call__(self, event: str, details: tuple[Any, ...]) -> None:
        if event == "open":
            path = details[0] if isinstance(details[2], int) and details[2] & (os.O_CREAT | os.O_WRONLY) else None
        else:
            path = details[self._events[event]] if event in self._events else None
        if path is not None and str(path).startswith(self._root):
            self.left -= 1
            if self.left == -1:
                self._happens()


def in_child(work: Callable[[], Any], step: Step) -> tuple[int, str]:
    """Do some work in a process of its own; return how that ended, and what it said."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            sys.addaudithook(step)
            work()
            os.write(write, b"done" if step.left < 0 else b"done before that step")
        except CommandExecutionError as err:
            os.write(write, f"refused: {err}".encode())
        except BaseException:
            os.write(write, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/srv/immutable")


def all_that_is_there_is_whole(host: Host) -> None:
    """What can be found by a name is all there."""
    for key in host.keys.glob("[!.]*"):
        assert layers.find(host, key.name) is not None
    for layer in host.layers.iterdir():
        assert layers.load(host, layer.name).digest == layer.name
        if (host.l / layer.name[:16]).exists():
            verify.require_layers(host, [layer.name])
    for digest in images.by_digest(host):
        assert manifest.image_digest(images.read(host, digest)) == digest
        assert not image_commands.has_image(host, digest) or verify.read_proof(host, digest) == PROOF


def files(host: Host) -> set[str]:
    """All that is on the builder, but for locks and what was merely looked at."""
    found = (str(path.relative_to(host.root)) for path in host.root.rglob("*"))
    return {path for path in found if not path.endswith((".lock", "/seen.json"))}


@pytest.mark.parametrize("first", [0, *(pytest.param(n, marks=STEPS_BETWEEN) for n in range(1, EACH))])
@pytest.mark.parametrize(
    ("happens", "events", "code", "says"),
    [
        pytest.param(killed, _CHANGES, -signal.SIGKILL, "", id="kill -9"),
        pytest.param(full, _CREATES, 0, "refused: No space left on device", id="full disk"),
    ],
)
def test_at_each_step_nothing_is_half_made_and_all_goes_or_is_carried_on(
    host, root, happens, events, code, says, first
):
    whole = Host(host.root.with_name("whole"))
    whole.prepare()
    empty = files(whole)
    digest = bake(whole, root)
    expected, number, left = files(whole), 0, set()
    for number in range(first, 500, EACH):
        ended = in_child(lambda: bake(host, root), Step(host, number, events, happens))
        if ended == (0, "done before that step"):
            break
        assert ended == (0, "done") or (ended[0] == code and ended[1].startswith(says)), (number, ended)
        left.add(frozenset(files(host) - expected))
        all_that_is_there_is_whole(host)
        if number % 2:  # by turns: all is removed, or the next bake carries on from what there is
            garbage.collect(host, [], [], [])
            assert files(host) == empty, number
        assert bake(host, root) == digest, number
        garbage.collect(host, [digest], [], [])
        assert files(host) == expected, number
        all_that_is_there_is_whole(host)
        assert image_commands.has_image(host, digest)
        garbage.collect(host, [], [], [])
    assert number > 40, "each step was one"
    assert (len(left) > 10) == (happens is killed), "only a kill leaves work undone"

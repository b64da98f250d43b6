"""The devices that processes of a cgroup may use, in cgroup v2: a program in the kernel, which it asks at each use.

Such a program is not text that anybody writes into a file, as in cgroup v1: bpf(2) takes it. A group below, and root in
a user namespace, cannot loosen what it says.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from salt.exceptions import CommandExecutionError

from saltext.immutable import kernel

_LOAD, _ATTACH = 5, 8
"""BPF_PROG_LOAD and BPF_PROG_ATTACH."""
_FOR_DEVICES, _AT_DEVICES, _AND_THOSE_BELOW = 15, 6, 2
"""BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE and BPF_F_ALLOW_MULTI."""
_SYSTEM_CALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
"""The number of bpf(2), by machine of uname(2)."""
_TYPES = {"b": 1, "c": 2}
_RIGHTS = {"m": 1, "r": 2, "w": 4}
"""BPF_DEVCG_ACC_MKNOD, _READ and _WRITE."""
_LOAD_WORD, _COPY, _SHIFT, _AND, _SET, _UNLESS, _EXIT = 0x61, 0xBF, 0x77, 0x57, 0xB7, 0x55, 0x95
"""Operations, as Documentation/bpf/standardization/instruction-set.rst numbers them; the names are of what they do."""
_ANSWER, _ASKED, _TYPE, _WANTED, _MAJOR, _MINOR = range(6)
"""Registers: the answer, the kernel's question (struct bpf_cgroup_dev_ctx), and the parts of it."""
_RULE = re.compile(r"([bc]) (\d+):(\d+|\*) ([rwm]+)")


def program(rules: Iterable[str]) -> bytes:
    """Return the program that allows what one of ``rules`` allows, as cgroup v1 writes them (``c 1:3 rwm``)."""
    parts = [
        _step(_LOAD_WORD, _TYPE, _ASKED, offset=0),  # rights in the upper half, type in the lower
        _step(_LOAD_WORD, _MAJOR, _ASKED, offset=4),
        _step(_LOAD_WORD, _MINOR, _ASKED, offset=8),
        _step(_COPY, _WANTED, _TYPE),
        _step(_SHIFT, _WANTED, value=16),
        _step(_AND, _TYPE, value=0xFFFF),
        *(step for rule in rules for step in _allow(rule)),
        _step(_SET, _ANSWER, value=0),
        _step(_EXIT),
    ]
    return b"".join(parts)


def _allow(rule: str) -> Iterator[bytes]:
    """Yield the steps that answer "yes" to what a rule allows, and go on behind themselves otherwise."""
    found = _RULE.fullmatch(rule)
    assert found, rule
    kind, major, minor, rights = found.groups()
    others = ~sum(_RIGHTS[right] for right in rights)
    tests = [(_TYPE, _TYPES[kind]), (_MAJOR, int(major)), *([] if minor == "*" else [(_MINOR, int(minor))])]
    left = len(tests) + 5
    for register, value in tests:
        left -= 1
        yield _step(_UNLESS, register, value=value, offset=left)
    yield _step(_COPY, _ANSWER, _WANTED)
    yield _step(_AND, _ANSWER, value=others)
    yield _step(_UNLESS, _ANSWER, value=0, offset=2)
    yield _step(_SET, _ANSWER, value=1)
    yield _step(_EXIT)


def _step(operation: int, target: int = 0, source: int = 0, *, offset: int = 0, value: int = 0) -> bytes:
    registers = source << 4 | target if sys.byteorder == "little" else target << 4 | source
    return struct.pack("=BBhi", operation, registers, offset, value)


def limit(folder: Path, rules: Iterable[str]) -> None:
    """Let the processes of a v2 cgroup use no other devices than those of ``rules``, for as long as it exists.

    Raises CommandExecutionError where the kernel does not take the program.
    """
    number = _SYSTEM_CALLS.get(platform.machine())
    try:
        if number is None:
            raise OSError(f"the number of bpf(2) on {platform.machine()} is not known to this pack")
        _attach(number, folder, program(rules))
    except OSError as err:
        raise CommandExecutionError(
            f"cannot keep the processes of the cgroup {folder} from this host's disks: {err}; use a kernel with "
            "CONFIG_CGROUP_BPF, and root with CAP_BPF and CAP_NET_ADMIN, or a host whose pid 1 is systemd"
        ) from err


def _attach(number: int, folder: Path, steps: bytes) -> None:
    code = ctypes.create_string_buffer(steps, len(steps))
    license_ = ctypes.create_string_buffer(b"")
    places = (ctypes.addressof(code), ctypes.addressof(license_))
    loaded = kernel.bpf(number, _LOAD, struct.pack("=IIQQIIQI", _FOR_DEVICES, len(steps) // 8, *places, 0, 0, 0, 0))
    try:
        group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            kernel.bpf(number, _ATTACH, struct.pack("=IIII", group, loaded, _AT_DEVICES, _AND_THOSE_BELOW))
        finally:
            os.close(group)
    finally:
        os.close(loaded)

"""The filter of system calls, in a process of its own."""

from __future__ import annotations

import errno
import os
import platform
import struct
import subprocess
import sys

import pytest

from saltext.immutable import seccomp

TRIES = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall({number}, 0, 0, 0, 0, 0)
sys.exit(100 + ctypes.get_errno())
"""
COLUMN = {"x86_64": 0, "aarch64": 2, "riscv64": 2}.get(platform.machine())
needs_filter = pytest.mark.skipif(
    COLUMN is None or os.geteuid() != 0, reason="only root sets filters, and where the numbers of calls are known"
)


def after_filter(code: str) -> int:
    line = f"from saltext.immutable import seccomp; seccomp.confine()\n{code}"
    return subprocess.run([sys.executable, "-c", line], check=False).returncode


@needs_filter
@pytest.mark.parametrize("name", seccomp._CALLS)
def test_these_calls_fail_after_it(name):
    """Without it they fail otherwise: nothing is at address 0, and 0 is no file of a quota."""
    number = seccomp._CALLS[name][COLUMN]
    assert after_filter(TRIES.format(number=number)) == 100 + errno.EPERM


@needs_filter
def test_all_else_goes_on_and_programs_that_are_started_have_it_as_well():
    assert after_filter("import subprocess; subprocess.run(['true'], check=True)") == 0
    number = seccomp._CALLS["swapoff"][COLUMN]
    inner = TRIES.format(number=number)
    code = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {inner!r}]).returncode)"
    assert after_filter(code) == 100 + errno.EPERM


def run(program: bytes, architecture: int, number: int) -> int:
    """What the kernel would do with a program, by its own rules."""
    steps, at, value = list(struct.iter_unpack("=HBBI", program)), 0, 0
    while True:
        operation, yes, no, k = steps[at]
        at += 1
        if operation == 0x06:
            return k
        if operation == 0x20:
            value = {0: number, 4: architecture}[k]
        else:
            at += yes if (value == k if operation == 0x15 else value >= k) else no


ALLOWED, FAILS, UNKNOWN = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS


@pytest.mark.parametrize(
    ("machine", "architecture", "number", "answer"),
    [
        ("x86_64", 0xC000003E, 167, FAILS),
        ("x86_64", 0xC000003E, 0, ALLOWED),
        ("x86_64", 0xC000003E, 87, ALLOWED),
        ("x86_64", 0xC000003E, 0x40000000 | 167, UNKNOWN),
        ("x86_64", 0x40000003, 87, FAILS),
        ("x86_64", 0x40000003, 167, ALLOWED),
        ("x86_64", 0xC00000B7, 0, UNKNOWN),
        ("aarch64", 0xC00000B7, 224, FAILS),
        ("aarch64", 0xC00000B7, 167, ALLOWED),
        ("aarch64", 0x40000028, 0, UNKNOWN),
        ("riscv64", 0xC00000F3, 225, FAILS),
    ],
)
def test_programs_of_each_architecture_have_its_own_numbers(machine, architecture, number, answer):
    assert run(seccomp.program(machine), architecture, number) == answer


def test_on_a_machine_whose_numbers_are_not_known_there_is_none():
    assert seccomp.program("s390x") == b""

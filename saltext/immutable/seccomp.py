"""A filter of system calls for commands that enter a machine: root there must not change the kernel of the host.

What a machine starts has such a filter from systemd-nspawn; a command that enters from outside, as a bake's salt-call
and the shell of an operator do, would have none. Capabilities do not tell these calls from what root of a machine does
by right (CAP_SYS_ADMIN mounts, and switches swap off). See seccomp(2), and for the numbers syscalls(2). Standard
library only.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

_CALLS = {
    "add_key": (248, 286, 217),
    "bpf": (321, 357, 280),
    "kexec_file_load": (320, None, 294),
    "kexec_load": (246, 283, 104),
    "keyctl": (250, 288, 219),
    "open_by_handle_at": (304, 342, 265),
    "perf_event_open": (298, 336, 241),
    "quotactl": (179, 131, 60),
    "quotactl_fd": (443, 443, 443),
    "request_key": (249, 287, 218),
    "swapoff": (168, 115, 225),
    "swapon": (167, 87, 224),
}
"""The calls that fail, with their numbers on x86_64, on i386, and on newer architectures."""
_X86_64, _I386, _AARCH64, _RISCV64 = 0xC000003E, 0x40000003, 0xC00000B7, 0xC00000F3
"""AUDIT_ARCH_*: how the kernel names architectures."""
_ARCHITECTURES = {"x86_64": ((_X86_64, 0), (_I386, 1)), "aarch64": ((_AARCH64, 2),), "riscv64": ((_RISCV64, 2),)}
"""By machine of uname(2): the architectures whose programs it runs, each with its column of numbers."""
_X32 = 0x40000000
"""The first number of the x32 ABI, which has x86_64's name."""
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ and BPF_JGE | BPF_K, BPF_RET | BPF_K."""
_NUMBER, _ARCHITECTURE = 0, 4
"""Where both are in struct seccomp_data."""
_ALLOWED, _FAILS = 0x7FFF0000, 0x00050000
"""SECCOMP_RET_ALLOW, and SECCOMP_RET_ERRNO, to which the error is added."""
_SET_SECCOMP, _FILTER = 22, 2
"""PR_SET_SECCOMP and SECCOMP_MODE_FILTER."""
_libc = ctypes.CDLL(None, use_errno=True)


def program(machine: str) -> bytes:
    """Return the filter for programs on a machine (as of uname(2)); b"" for one whose numbers are not known."""
    blocks = [_block(name, column) for name, column in _ARCHITECTURES.get(machine, ())]
    return b"".join([*blocks, _answer(_FAILS | errno.ENOSYS)]) if blocks else b""


def _block(architecture: int, column: int) -> bytes:
    """Return what answers for programs of an architecture, and steps over itself for others."""
    calls = [_step(_LOAD, _NUMBER)]
    if architecture == _X86_64:
        calls += [_step(_AT_LEAST, _X32, no=1), _answer(_FAILS | errno.ENOSYS)]
    for numbers in _CALLS.values():
        if (number := numbers[column]) is not None:
            calls += [_step(_EQUAL, number, no=1), _answer(_FAILS | errno.EPERM)]
    calls.append(_answer(_ALLOWED))
    return b"".join([_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, architecture, no=len(calls)), *calls])


def _step(operation: int, value: int, no: int = 0) -> bytes:
    """Return an instruction. ``no``: how many it steps over where its answer is no."""
    return struct.pack("=HBBI", operation, 0, no, value)


def _answer(value: int) -> bytes:
    return _step(_RETURN, value)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


_steps = program(platform.machine())
_program = _Program(len(_steps) // 8, _steps)


def confine() -> None:
    """Let this process, and all that it starts, make none of these calls any more. Does nothing on other machines.

    Nor where the kernel has no filters: systemd-nspawn goes without them then, too. Raises OSError.
    """
    if not _steps or not _libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(_program), 0, 0):
        return
    if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(ctypes.get_errno(), "no filter of system calls could be set")

"""System calls that an agent's process has no use for, refused by the kernel (seccomp).

Run by the engine's Python, which has no skillsd. Landlock knows nothing of sockets that are files, and nothing of
processes; here no socket can be made or connected at all, no process started, and none outside be sent a signal.
"""

from __future__ import annotations

import ctypes
import platform
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000  # the latter with an errno
_EPERM, _ENOSYS = 1, 38
# linux/bpf_common.h: load a word at an offset, jump if equal, jump if any bit is set, return.
_LOAD, _EQUAL, _BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24  # struct seccomp_data, low words
_CLONE_THREAD, _SOCK_STREAM, _SOCK_TYPES, _X32 = 0x10000, 1, 0xF, 0x40000000

#: What the calls are called, by machine: the architecture's own number first.
_TABLES = {
    "x86_64": {
        "architecture": 0xC000003E, "socket": 41, "connect": 42, "socketpair": 53, "clone": 56, "fork": 57, "vfork": 58,
        "execve": 59, "kill": 62, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "execveat": 322,
        "pidfd_send_signal": 424, "io_uring_setup": 425, "clone3": 435, "pidfd_getfd": 438,
    },
    "aarch64": {
        "architecture": 0xC00000B7, "ptrace": 117, "kill": 129, "socket": 198, "socketpair": 199, "connect": 203,
        "clone": 220, "execve": 221, "process_vm_readv": 270, "process_vm_writev": 271, "execveat": 281,
        "pidfd_send_signal": 424, "io_uring_setup": 425, "clone3": 435, "pidfd_getfd": 438,
    },
}  # fmt: skip


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def refuse() -> bool:
    """Refuse them in this thread, and in those that it starts, for good. False where the system cannot."""
    table = _TABLES.get(platform.machine())
    if table is None or not sys.platform.startswith("linux") or sys.maxsize < 2**32:
        return False
    made = _program(table)
    steps = (_Instruction * len(made))(*(_Instruction(*step) for step in made))
    program = _Program(len(made), ctypes.cast(steps, ctypes.POINTER(_Instruction)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def _program(table: dict[str, int]) -> list[tuple[int, int, int, int]]:
    """(code, steps to skip if so, steps to skip if not, operand) each; another architecture's calls are refused too."""
    no, gone, fine = (_RETURN, 0, 0, _REFUSE | _EPERM), (_RETURN, 0, 0, _REFUSE | _ENOSYS), (_RETURN, 0, 0, _ALLOW)
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, table["architecture"]), no, (_LOAD, 0, 0, _NUMBER)]
    if table["architecture"] == _TABLES["x86_64"]["architecture"]:
        steps += [(_BITS, 0, 1, _X32), no]
    for name, number in table.items():
        if name == "socketpair":  # event loops need one; datagrams could be sent to any socket's path
            steps += [(_EQUAL, 0, 5, number), (_LOAD, 0, 0, _SECOND_ARGUMENT), (0x54, 0, 0, _SOCK_TYPES),
                      (_EQUAL, 1, 0, _SOCK_STREAM), no, fine]  # fmt: skip
        elif name == "clone":  # of threads only
            steps += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_BITS, 1, 0, _CLONE_THREAD), no, fine]
        elif name == "clone3":  # its flags are out of sight: the C library falls back to clone
            steps += [(_EQUAL, 0, 1, number), gone]
        elif name != "architecture":
            steps += [(_EQUAL, 0, 1, number), no]
    return [*steps, fine]

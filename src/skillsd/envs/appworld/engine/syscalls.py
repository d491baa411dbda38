"""System calls that an agent's process has no use for, refused by the kernel (seccomp).

Run by the engine's Python, which has no skillsd. Landlock knows nothing of sockets that are files, of processes, of
memory that they share, and of a file's owner, mode and times; here none of it can be had or changed, no process be
started, and none outside be sent a signal.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000  # the latter with an errno
_EPERM, _ENOSYS = 1, 38
# linux/bpf_common.h: load a word at an offset, jump if equal, from a value on, if any bit is set; and, return.
_LOAD, _EQUAL, _FROM, _BITS, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # struct seccomp_data; the low words of both machines come first
#: (code, steps to skip if so, steps to skip if not, operand).
_Step = tuple[int, int, int, int]
_NO, _GONE, _FINE = (_RETURN, 0, 0, _REFUSE | _EPERM), (_RETURN, 0, 0, _REFUSE | _ENOSYS), (_RETURN, 0, 0, _ALLOW)
_CLONE_THREAD, _NAMESPACES, _SOCK_STREAM, _SOCK_TYPES, _X32 = 0x10000, 0x7E020000, 1, 0xF, 0x40000000

#: The architecture's own number, and which of the calls' numbers are its.
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
#: The first number that is too new to be judged here: the C library does without.
_NEWER = 451
#: Their numbers on x86_64 and aarch64, None where there is no such call.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # Programs and processes; threads come through clone.
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "unshare": (272, 97),
    "setns": (308, 268), "setpgid": (109, 154), "setsid": (112, 157),
    # Signals to others (tgkill to itself goes on: that is how a process ends itself).
    "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    # The insides and the pace of other processes.
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272), "get_robust_list": (274, 100),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122), "setrlimit": (160, 164),
    # Memory, queues and notices that are shared with others.
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semtimedop": (220, 192), "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181), "mq_timedsend": (242, 182),
    "mq_timedreceive": (243, 183), "mq_notify": (244, 184), "mq_getsetattr": (245, 185), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27), "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
    # Sockets; those that are there are used on.
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200),
    # What Landlock lets through on any file.
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None), "lchown": (94, None),
    "fchown": (93, 55), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "truncate": (76, 45), "flock": (73, 32),
    "sync": (162, 81), "syncfs": (306, 267), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    # Mounts and roots.
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "swapon": (167, 224), "swapoff": (168, 225),
    # Who one is, and further rules.
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setresuid": (117, 147), "setresgid": (119, 149), "setfsuid": (122, 151), "setfsgid": (123, 152),
    "setgroups": (116, 159), "capset": (126, 91), "personality": (135, 92), "seccomp": (317, 277),
    "landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446),
    # The kernel's own: keys, rings, programs, faults, modules, clocks, the machine.
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "io_setup": (206, 0),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "lookup_dcookie": (212, 18),
    "create_module": (174, None), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
    "reboot": (169, 142), "syslog": (103, 116), "vhangup": (153, 58), "nfsservctl": (180, 42), "uselib": (134, None),
    "ustat": (136, None), "sysfs": (139, None), "_sysctl": (156, None), "modify_ldt": (154, None),
    "iopl": (172, None), "ioperm": (173, None), "remap_file_pages": (216, 234),
}  # fmt: skip
#: Those that depend on what they are asked for.
_SIFTED = {
    "clone": (56, 220), "clone3": (435, 435), "socketpair": (53, 199), "tgkill": (234, 131), "prlimit64": (302, 261),
    "fcntl": (72, 25), "ioctl": (16, 29),
}  # fmt: skip
#: Commands that have a file's news signalled to others, lease or watch it, or type into a terminal.
_COMMANDS = {
    "fcntl": {"F_SETOWN": 8, "F_SETSIG": 10, "F_SETOWN_EX": 15, "F_SETLEASE": 1024, "F_NOTIFY": 1026},
    "ioctl": {"FIOSETOWN": 0x8901, "SIOCSPGRP": 0x8902, "TIOCSTI": 0x5412, "TIOCLINUX": 0x541C},
}


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def refuse() -> bool:
    """Refuse them in this thread, and in those that it starts, for good. False where the system cannot."""
    machine = platform.machine()
    if machine not in _MACHINES or not sys.platform.startswith("linux") or sys.maxsize < 2**32:
        return False
    made = program(machine)
    steps = (_Instruction * len(made))(*(_Instruction(*step) for step in made))
    filled = _Program(len(made), ctypes.cast(steps, ctypes.POINTER(_Instruction)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filled), 0, 0) == 0)


def program(machine: str) -> list[_Step]:
    """The filter for ``machine`` and this process; another architecture's calls are refused too."""
    architecture, column = _MACHINES[machine]
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), _NO, (_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        steps += [(_BITS, 0, 1, _X32), _NO]
    steps += [(_FROM, 0, 1, _NEWER), _GONE]
    for numbers in _REFUSED.values():
        if (number := numbers[column]) is not None:
            steps += [(_EQUAL, 0, 1, number), _NO]
    for name, numbers in _SIFTED.items():
        body = _sift(name)
        steps += [(_EQUAL, 0, len(body), numbers[column]), *body]
    return [*steps, _FINE]


def _sift(name: str) -> list[_Step]:
    """What becomes of a call by its arguments."""
    own = os.getpid()
    if name == "clone":  # of threads only
        return [_argument(0), (_BITS, 0, 1, _NAMESPACES), _NO, (_BITS, 1, 0, _CLONE_THREAD), _NO, _FINE]
    if name == "clone3":  # its flags are out of sight: the C library falls back to clone
        return [_GONE]
    if name == "socketpair":  # event loops need one; datagrams could be sent to any socket's path
        return [_argument(1), (_AND, 0, 0, _SOCK_TYPES), (_EQUAL, 1, 0, _SOCK_STREAM), _NO, _FINE]
    if name == "tgkill":  # abort and raise are that; to nobody else
        return [_argument(0), (_EQUAL, 1, 0, own), _NO, _FINE]
    if name == "prlimit64":  # its own limits may be read: threads ask for the stack's
        limits = [step for high in (0, 4) for step in (_argument(2, high), (_EQUAL, 1, 0, 0), _NO)]
        return [_argument(0), (_EQUAL, 2, 0, 0), (_EQUAL, 1, 0, own), _NO, *limits, _FINE]
    commands = [step for command in _COMMANDS[name].values() for step in ((_EQUAL, 0, 1, command), _NO)]
    return [_argument(1), *commands, _FINE]


def _argument(index: int, high: int = 0) -> _Step:
    """Load a word of an argument."""
    return _LOAD, 0, 0, _ARGUMENTS + 8 * index + high

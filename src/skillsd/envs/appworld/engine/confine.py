"""Put this process into a cage that it cannot leave; called before any of an agent's code runs.

Run by the engine's Python, which has no skillsd. Each layer is used where the system has it, and reported.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress

from syscalls import refuse

#: What an agent's code has no access to, where the system can see to that.
HELD = ("files", "network", "sockets", "processes")
#: Bytes of address space, and of the largest file that may be written.
MEMORY = 4 * 2**30
FILE = 64 * 2**20

# linux/landlock.h; the rights to read are EXECUTE, READ_FILE and READ_DIR.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_READ = 1 | 1 << 2 | 1 << 3
_OF_FILES = 1 | 1 << 1 | 1 << 2 | 1 << 14  # a rule for a file may name no others
_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many rights of the file system there are
_TCP = 1 | 1 << 1
_SCOPES = 1 | 1 << 1  # abstract sockets, signals to processes outside
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def confine(readable: Sequence[str], writable: Sequence[str]) -> dict[str, object]:
    """Limit memory, files and core dumps; no network; no files but ``readable`` and ``writable`` and what is in them;
    no sockets, those that are files either, and no other process.

    Returns what of it holds here, {"files": bool, ...}. Must be called before any thread is started, and after
    sockets are made.
    """
    for limit, value in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, FILE), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(limit, (value, value))
        except (OSError, ValueError):  # macOS has no limit of the address space
            continue
    if not sys.platform.startswith("linux"):
        return dict.fromkeys(HELD, False)
    network = _no_network()
    version = _landlock(readable, writable)
    calls = refuse()
    return dict(zip(HELD, (version > 0, network or calls, calls, calls), strict=True))


def _no_network() -> bool:
    """An empty network of one's own, where users may have namespaces."""
    user, group = os.getuid(), os.getgid()
    if _libc().unshare(_NEW_USER | _NEW_NET) != 0:
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        # Where that is forbidden the user has no name in the new namespace, and the same rights on files as before.
        with suppress(OSError), open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return True


def _landlock(readable: Sequence[str], writable: Sequence[str]) -> int:
    """Restrict files (and TCP, and signals) for good; the version of Landlock, 0 where the kernel has none."""
    libc = _libc()
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return 0
    everything = (1 << _RIGHTS_BY_ABI[min(version, 5)]) - 1
    rules = _Ruleset(everything, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return 0
    for paths, rights in ((readable, _READ), (writable, everything)):
        for path in paths:
            if not os.path.exists(path):
                continue
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            allowed = rights & everything if os.path.isdir(path) else rights & everything & _OF_FILES
            rule = _PathRule(allowed, place)
            failed = libc.syscall(_ADD, ruleset, 1, ctypes.byref(rule), ctypes.c_uint32(0))
            os.close(place)
            if failed:
                raise OSError(ctypes.get_errno(), f"landlock refuses a rule for {path}")
    if libc.prctl(38, 1, 0, 0, 0) or libc.syscall(_RESTRICT, ruleset, ctypes.c_uint32(0)):  # PR_SET_NO_NEW_PRIVS
        raise OSError(ctypes.get_errno(), "landlock cannot be put into force")
    os.close(ruleset)
    return int(version)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":  # what would hold here: told, and tried
    print(json.dumps(confine([], [])))

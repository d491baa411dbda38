"""The system calls that an agent's process is refused: their numbers, the filter's verdicts, and a process in it."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import skillsd.envs.appworld.guard

ENGINE = Path(skillsd.envs.appworld.guard.__file__).with_name("engine")
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
FINE, REFUSED, GONE = 0x7FFF0000, 0x00050001, 0x00050026


@pytest.fixture
def syscalls(monkeypatch):
    monkeypatch.syspath_prepend(str(ENGINE))
    return importlib.import_module("syscalls")


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_those_of_the_systems_own_headers(syscalls, machine):
    if not HEADERS[machine].is_file():
        pytest.skip("no headers here")
    pairs = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[machine].read_text())
    there = {name: int(number) for name, number in pairs}
    column = list(HEADERS).index(machine)
    for name, numbers in (syscalls._REFUSED | syscalls._SIFTED).items():
        assert numbers[column] == there.get(name), name


def verdict(syscalls, machine, number, *arguments, architecture=None):
    """What the filter says: its program, run here as the kernel does."""
    words = {0: number, 4: architecture or syscalls._MACHINES[machine][0]}
    for index in range(6):
        value = (arguments[index] if index < len(arguments) else 0) & 2**64 - 1
        words[16 + 8 * index], words[20 + 8 * index] = value & 2**32 - 1, value >> 32
    steps, at, held = syscalls.program(machine), 0, 0
    while True:
        code, yes, no, operand = steps[at]
        assert max(yes, no) < 256
        at += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            held = words[operand]
        elif code == 0x54:
            held &= operand
        else:
            at += yes if {0x15: held == operand, 0x35: held >= operand, 0x45: held & operand}[code] else no


@pytest.mark.parametrize("machine", HEADERS)
def test_the_filter_lets_through_what_a_process_does_to_itself(syscalls, machine):
    def asked(name, *arguments):
        numbers = (syscalls._REFUSED | syscalls._SIFTED)[name]
        return verdict(syscalls, machine, numbers[list(HEADERS).index(machine)], *arguments)

    own, other = os.getpid(), os.getppid()
    for name, numbers in syscalls._REFUSED.items():
        if numbers[list(HEADERS).index(machine)] is not None:
            assert asked(name) == REFUSED, name
    assert asked("clone", 0x3D0F00) == FINE
    assert [asked("clone", flags) for flags in (17, 0x10000000, 0x3D0F00 | 0x20000)] == [REFUSED] * 3
    assert asked("clone3") == GONE == verdict(syscalls, machine, 451)
    assert [asked("socketpair", 1, kind) for kind in (1, 0x80001, 2, 5)] == [FINE, FINE, REFUSED, REFUSED]
    assert [asked("tgkill", pid, pid, 6) for pid in (own, other, 0, 1)] == [FINE, REFUSED, REFUSED, REFUSED]
    assert [asked("prlimit64", pid, 3, 0, 99) for pid in (own, 0, other)] == [FINE, FINE, REFUSED]
    assert [asked("prlimit64", own, 3, new) for new in (8, 2**40)] == [REFUSED, REFUSED]
    assert [asked("fcntl", 3, command) for command in (1, 2, 3, 4, 6, 1030)] == [FINE] * 6
    assert [asked("fcntl", 3, command) for command in (8, 10, 15, 1024, 1026)] == [REFUSED] * 5
    assert [asked("ioctl", 0, command) for command in (0x5401, 0x5413, 0x5412)] == [FINE, FINE, REFUSED]
    assert verdict(syscalls, machine, 63, architecture=0x40000003) == REFUSED, "another machine's calls"
    if machine == "x86_64":
        assert verdict(syscalls, machine, 0x40000000) == REFUSED, "the calls of x32"


CAGED = """
import ctypes, errno, fcntl, json, os, resource, signal, sys, sysconfig, threading
sys.path.insert(0, sys.argv[1])
import syscalls
from confine import confine
other, folder, numbers = os.getppid(), sys.argv[2], {}
column = list(syscalls._MACHINES).index(os.uname().machine)
there = folder + "/outside"
libraries = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
held = confine(["/lib", "/lib64", "/usr/lib", *libraries], [folder + "/mine"])
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    numbers = (syscalls._REFUSED | syscalls._SIFTED)[name]
    if libc.syscall(numbers[column], *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def tried(what):
    try:
        what()
    except (OSError, ValueError) as error:
        return "refused" if isinstance(error, ValueError) or error.errno == errno.EPERM else error.strerror
    return "done"
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
mine = open(folder + "/mine/file", "w")
signal.signal(signal.SIGUSR1, lambda *given: None)
thread = threading.Thread(target=lambda: None)
print(json.dumps({"held": held, **{name: tried(what) for name, what in {
    "another's limits": lambda: resource.prlimit(other, resource.RLIMIT_CORE, limits),
    "reads another's limits": lambda: resource.prlimit(other, resource.RLIMIT_CORE),
    "more for itself": lambda: call("setrlimit", 7, 0), "signals": lambda: os.kill(other, 0),
    "signals a thread": lambda: call("tkill", other, 0), "signals a thread of": lambda: call("tgkill", other, other, 0),
    "queues": lambda: call("rt_sigqueueinfo", other, 0, 0), "queues to a thread": lambda: call("rt_tgsigqueueinfo",
    other, other, 0, 0), "takes hold of": lambda: call("pidfd_open", other, 0),
    "has it signalled": lambda: fcntl.fcntl(mine, fcntl.F_SETOWN, other),
    "leases": lambda: fcntl.fcntl(mine, fcntl.F_SETLEASE, fcntl.F_WRLCK),
    "shares memory": lambda: call("shmget", 0, 4096, 0o1600), "shares queues": lambda: call("msgget", 0, 0o1600),
    "memory without a file": lambda: os.memfd_create("x"), "slows others": lambda: os.setpriority(0, other, 19),
    "binds others": lambda: os.sched_setaffinity(other, {0}), "compares": lambda: call("kcmp", other, other, 0, 0, 0),
    "changes a mode": lambda: os.chmod(there, 0o777), "changes an owner": lambda: os.chown(there, -1, -1),
    "changes times": lambda: os.utime(there), "cuts": lambda: call("truncate", 0, 0),
    "watches": lambda: call("inotify_init1", 0), "a key": lambda: call("keyctl", 0, -3, 0),
    "a new place": lambda: call("unshare", 0x10000000), "a mount": lambda: call("mount", 0, 0, 0, 0, 0),
    "a ring": lambda: call("io_uring_setup", 1, 0), "a program of the kernel's": lambda: call("bpf", 0, 0, 0),
    "its own limits": lambda: resource.getrlimit(resource.RLIMIT_NOFILE), "its own signal": lambda: signal.raise_signal(
    signal.SIGUSR1), "threads": thread.start, "writes": lambda: mine.write("x") and mine.flush(),
    "removes": lambda: os.unlink(folder + "/mine/file"), "marks": lambda: os.set_inheritable(mine.fileno(), True),
}.items()}}))
"""
OWN = {"its own limits", "its own signal", "threads", "writes", "removes", "marks"}


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
def test_a_process_in_it_does_nothing_to_others_and_goes_on_itself(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "outside").touch()
    command = [sys.executable, "-c", CAGED, str(ENGINE), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    held = found.pop("held")
    if not all(held.values()):
        pytest.skip(f"this system has not all of it: {held}")
    assert {name for name, result in found.items() if result == "done"} == OWN, found
    assert {result for name, result in found.items() if name not in OWN} == {"refused"}, found

"""Signals that ask a program to stop, and do not throw an iteration's work away."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

#: ctrl-C, ``kill`` (and whoever else manages processes), a terminal that was closed, and the warnings of schedulers
#: (Slurm's ``--signal=USR1@120``; the soft limit of processor time).
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)
#: Seconds after which an interrupt comes again if it went nowhere.
AGAIN = 0.5
#: Seconds within which several signals are one: ``timeout``, job schedulers and closing terminals send more than one.
ONE_PRESS = 0.3

_stopped_by = signal.SIGINT
_at_once = False


def exit_code() -> int:
    """What a process that was asked to stop exits with: 128 and the signal's number, as shells have it."""
    return 128 + _stopped_by


def cut_short() -> bool:
    """Whether what was being done was not finished: a signal has raised ``KeyboardInterrupt``."""
    return _at_once


@contextmanager
def on_interrupt(first: Callable[[], None]) -> Iterator[None]:
    """Within the block the first signal to stop calls ``first``, a second one raises ``KeyboardInterrupt``."""
    pressed: float | None = None

    def handler(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed is not None:
            if time.monotonic() - pressed > ONE_PRESS:
                _cut()
            return
        pressed = time.monotonic()
        _note(number)
        # What it says may find its reader gone, for which rich ends the program, or itself in the middle of a print.
        with suppress(OSError, RuntimeError, SystemExit):
            first()

    with _handled_by(handler):
        yield


@contextmanager
def at_once() -> Iterator[None]:
    """Within the block every signal to stop raises ``KeyboardInterrupt``, so that what is open gets closed.

    It comes again until the block is left: what is raised in a callback of the garbage collector, of a weak reference
    or of a C library goes nowhere.
    """
    global _at_once
    _at_once = False  # what a signal ended before, in the same process, is over
    left = threading.Event()

    def remind(number: int) -> None:
        while not left.wait(AGAIN):
            os.kill(os.getpid(), number)

    def handler(number: int, frame: object) -> None:
        if cut_short() and _on_its_way(sys.exc_info()[1]):
            return
        _note(number)
        if not cut_short():
            threading.Thread(target=remind, args=(number,), daemon=True).start()
        _cut()

    with _handled_by(handler):
        try:
            yield
        finally:
            left.set()


def _on_its_way(error: BaseException | None) -> bool:
    """Whether what is being closed now is closed because of an interrupt."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _cut() -> NoReturn:
    global _at_once
    _at_once = True
    raise KeyboardInterrupt


def _note(number: int) -> None:
    global _stopped_by
    _stopped_by = signal.Signals(number)


@contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    before = {}
    try:
        with suppress(ValueError):  # not in the main thread: whoever runs us handles signals
            for number in STOPPING:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # nohup
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)

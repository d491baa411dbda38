"""Signals that ask a program to stop, and do not throw an iteration's work away."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

#: ctrl-C, ``kill`` (and whoever else manages processes), a terminal that was closed, and the warnings of schedulers
#: (Slurm's ``--signal=USR1@120``; the soft limit of processor time).
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)
#: Seconds after which an interrupt comes again if it went nowhere.
AGAIN = 0.2
#: Seconds that it waits for imports and the like to end.
PATIENCE = 30.0
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
    interrupt = _Interrupt()

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed is not None:
            if time.monotonic() - pressed > ONE_PRESS:
                interrupt.deliver(number, frame)
            return
        pressed = time.monotonic()
        _note(number)
        # What it says may find its reader gone, for which rich ends the program, or itself in the middle of a print.
        with suppress(OSError, RuntimeError, SystemExit):
            first()

    with _handled_by(handler, interrupt):
        yield


@contextmanager
def at_once() -> Iterator[None]:
    """Within the block every signal to stop raises ``KeyboardInterrupt``, so that what is open gets closed."""
    global _at_once
    _at_once = False  # what a signal ended before, in the same process, is over
    interrupt = _Interrupt()

    def handler(number: int, frame: FrameType | None) -> None:
        _note(number)
        interrupt.deliver(number, frame)

    with _handled_by(handler, interrupt):
        yield


class _Interrupt:
    """``KeyboardInterrupt``, which comes again until the block is left: where it is raised in a callback of the garbage
    collector, of a weak reference or of a C library it goes nowhere.

    What comes again does not disturb what is being closed, nor what :func:`_exposed` names. A signal that is sent again
    does: somebody is in a hurry.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self.reminded = self.over = False

    def deliver(self, number: int, frame: FrameType | None) -> None:
        """Raise it, now or soon; called by a handler of signals."""
        global _at_once
        reminded, self.reminded = self.reminded, False
        if self.over:
            return
        now = time.monotonic()
        if self.since is None:
            self.since = now
            _thread.start_new_thread(self._remind, (number,))  # threading's would wait for locks that we may hold here
        age = now - self.since
        hurried = not reminded and age > ONE_PRESS
        if not hurried and (_on_its_way(sys.exc_info()[1]) or (age < PATIENCE and _exposed(frame))):
            return
        _at_once = True
        raise KeyboardInterrupt

    def _remind(self, number: int) -> None:
        time.sleep(AGAIN)
        while not self.over:
            self.reminded = True
            os.kill(os.getpid(), number)
            time.sleep(AGAIN)


def _on_its_way(error: BaseException | None) -> bool:
    """Whether what is being closed now is closed because of an interrupt."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _exposed(frame: FrameType | None) -> bool:
    """Whether an exception does harm here: ``__del__`` prints it, and C++ that is being imported may abort."""
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _note(number: int) -> None:
    global _stopped_by
    _stopped_by = signal.Signals(number)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None], interrupt: _Interrupt) -> Iterator[None]:
    before = {}
    try:
        with suppress(ValueError):  # not in the main thread: whoever runs us handles signals
            for number in STOPPING:
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # nohup
                before[number] = signal.signal(number, handler)
        yield
    finally:
        interrupt.over = True  # first, so that nothing is raised in here
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)

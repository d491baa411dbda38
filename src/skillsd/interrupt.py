"""Ctrl-C that does not throw an iteration's work away."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_interrupt(first: Callable[[], None]) -> Iterator[None]:
    """Within the block the first ctrl-C calls ``first``, a second one raises ``KeyboardInterrupt``."""
    pressed = False

    def handler(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        first()

    try:
        previous = signal.signal(signal.SIGINT, handler)
    except ValueError:  # not in the main thread: whoever runs us handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)

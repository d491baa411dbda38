"""Play at the keyboard what the agent plays."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from skillsd.envs.base import Environment, Task, TaskSet
from skillsd.envs.sokoban.game import GLYPHS
from skillsd.errors import UsageError

_KEYS = {"w": "up", "s": "down", "a": "left", "d": "right",
         "\x1b[A": "up", "\x1b[B": "down", "\x1b[D": "left", "\x1b[C": "right"}  # fmt: skip
_KEY = re.compile(r"\x1b\[[A-Z]|.", re.DOTALL)
_STYLES = {"#": "grey50", "_": "grey30", "O": "red", "X": "yellow", "T": "green", "P": "bold cyan", "S": "bold cyan"}
_HELP = "move: arrows or w a s d (or type a whole answer)   u undo   r restart   n next   q quit"


def play(taskset: TaskSet, split: str, index: int = 0) -> None:
    """Play levels of ``split`` from ``index`` on, until ``q`` or the end of input.

    Raises :class:`UsageError` for an index outside the split.
    """
    tasks = taskset.tasks(split)
    if not 0 <= index < len(tasks):
        raise UsageError(f"{split} has tasks 0 to {len(tasks) - 1}, not {index}")
    console, environment = Console(highlight=False), taskset.make()
    try:
        with _keyboard() as keys:
            following: int | None = index
            while following is not None and following < len(tasks):
                following = _level(console, environment, tasks[following], following, taskset.max_turns, keys)
    finally:
        environment.close()


def _level(
    console: Console, environment: Environment, task: Task, index: int, limit: int, keys: Iterator[str]
) -> int | None:
    """Play one level; the number of the next one, or None to stop."""
    _show(console, f"{task.id}\n{_HELP}\n\n{environment.reset(task)}")
    actions: list[str] = []
    over = False
    for key in keys:
        if key in ("q", "r", "n"):
            return None if key == "q" else index + (key == "n")
        if key == "u":  # play all but the last action again: works for whatever resets to the same start
            actions = actions[:-1]
            observation, over = environment.reset(task), False
            for action in actions:
                observation = environment.step(action).observation
        elif over:
            continue
        else:
            actions.append(f"```{_KEYS[key]}```" if key in _KEYS else key)
            step = environment.step(actions[-1])
            observation, over = step.observation, step.done or len(actions) >= limit
        _show(console, f"\n{observation}\nturn {len(actions)} of {limit}")
        if over:
            score = environment.score()
            outcome = "solved" if score.success else "over"
            console.print(f"{outcome}: reward {score.reward:g}. n: next, r: again, u: undo, q: quit")
    return None


def _show(console: Console, message: str) -> None:
    for line in message.splitlines():
        board = bool(line) and not set(line) - GLYPHS
        text = Text()
        for glyph in line:
            text.append(glyph + " " * board, _STYLES.get(glyph, "") if board else "")
        console.print(text)


@contextmanager
def _keyboard() -> Iterator[Iterator[str]]:
    """Single keys from a terminal; lines from a pipe."""
    if not sys.stdin.isatty():
        yield (line.strip() for line in sys.stdin if line.strip())
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield _single_keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _single_keys(descriptor: int) -> Iterator[str]:
    while typed := os.read(descriptor, 1024):
        for key in _KEY.findall(typed.decode(errors="ignore").replace("\x1bO", "\x1b[")):
            if key == "\x04":  # ctrl-D
                return
            if key in _KEYS or key in "urnq":
                yield key

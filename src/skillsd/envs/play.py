"""Play at the keyboard what the agent plays."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from skillsd.envs import boundary
from skillsd.envs.answers import task_of
from skillsd.envs.base import HasRenderText, TaskSet
from skillsd.errors import SkillSDError, UsageError, reason
from skillsd.system.terminal import Screen
from skillsd.types import Task

_ARROWS = {"\x1b[A": "↑", "\x1b[B": "↓", "\x1b[D": "←", "\x1b[C": "→"}
_KEY = re.compile(r"\x1b\[[A-Z]|.", re.DOTALL)
_COMMANDS = "u undo   r restart   n next   q quit"


def play(taskset: TaskSet, split: str, index: int = 0) -> None:
    """Play levels of ``split`` from ``index`` on, until ``q`` or the end of input.

    Raises :class:`UsageError` for an index outside the split, and :class:`SkillSDError` where the environment fails.
    """
    tasks = boundary.lazily(taskset, split)
    if not 0 <= index < len(tasks):
        raise UsageError(f"{split} has tasks 0 to {len(tasks) - 1}, not {index}")
    player = _Player(taskset)
    try:
        with _keyboard(player.keys) as typed:
            following: int | None = index
            while following is not None and following < len(tasks):
                following = player.level(task_of(tasks[following]), following, typed)
    except (SkillSDError, OSError):
        raise
    except (Exception, SystemExit) as error:  # ours are told above
        raise SkillSDError(f"env {taskset.name} raised {reason(error)}") from None
    finally:
        with suppress(Exception):
            player.environment.close()


class _Player:
    """A task set at the terminal, drawn and steered as the task set says, if it does."""

    def __init__(self, taskset: TaskSet) -> None:
        self.taskset = taskset
        self.console = Screen()
        self.keys = boundary.keys(taskset)
        self.environment = boundary.make(taskset)

    def level(self, task: Task, index: int, typed: Iterator[str]) -> int | None:
        """Play one level; the number of the next one, or None to stop."""
        environment, limit = self.environment, self.taskset.max_turns
        way = f"keys: {' '.join(self.keys)}" if self.keys else "type an answer and Enter"
        self.console.print(f"{task.id}\n{way}   {_COMMANDS}\n")
        self.show(boundary.reset(environment, task))
        actions: list[str] = []
        over = False
        for key in typed:
            if key in ("q", "r", "n"):
                return None if key == "q" else index + (key == "n")
            if key == "u":  # play all but the last action again: works for whatever resets to the same start
                actions = actions[:-1]
                observation, over = boundary.reset(environment, task), False
                for action in actions:
                    observation = boundary.step(environment, action).observation
            elif over:
                continue
            else:
                actions.append(self.keys.get(key, key))
                step = boundary.step(environment, actions[-1])
                observation, over = step.observation, step.done or len(actions) >= limit
            self.console.print()
            self.show(observation)
            self.console.print(f"turn {len(actions)} of {limit}")
            if over:
                score = boundary.score(environment)
                outcome = "solved" if score.success else "over"
                self.console.print(f"{outcome}: reward {score.reward:g}. n: next, r: again, u: undo, q: quit")
        return None

    def show(self, observation: str) -> None:
        drawn = self.taskset.render_text(observation) if isinstance(self.taskset, HasRenderText) else observation
        self.console.print(drawn)


@contextmanager
def _keyboard(keys: Collection[str]) -> Iterator[Iterator[str]]:
    """Single keys from a terminal; lines from a pipe, or where there are no ``keys``."""
    if not (keys and sys.stdin.isatty()):
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        yield (line.strip() for line in sys.stdin if line.strip())
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield _single_keys(descriptor, keys)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _single_keys(descriptor: int, keys: Collection[str]) -> Iterator[str]:
    while typed := os.read(descriptor, 1024):
        for key in _KEY.findall(typed.decode(errors="ignore").replace("\x1bO", "\x1b[")):
            if key == "\x04":  # ctrl-D
                return
            name = _ARROWS.get(key, key)
            if name in keys or name in "urnq":
                yield name

"""Live progress of a run on the terminal: a line an iteration, and what is going on right now."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.status import Status

from skillsd.config import Config

#: What happened, for whoever watches: kind ("iteration", "evaluation", "turn", "warning") and its data.
Listener = Callable[[str, dict[str, Any]], None]


class Progress:
    """A :data:`Listener` that prints. Without a terminal it prints the lines alone."""

    def __init__(self, console: Console, config: Config) -> None:
        self.console, self.total = console, config.trainer.iterations
        self.console.print(f"{config.method} on {config.env.name}, seed {config.seed}, {self.total} iterations")
        self.status = Status("loading", console=console)
        self.started: tuple[float, int] | None = None
        self.headed = False
        self.label = "evaluating"

    def __enter__(self) -> Progress:
        self.status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.status.stop()

    def __call__(self, kind: str, data: dict[str, Any]) -> None:
        """Print what happened."""
        if kind == "turn":
            self.status.update(f"{self.label}: {data['done']} of {data['total']} episodes done")
        elif kind == "iteration":
            self._iteration(data)
        elif kind == "evaluation":
            result = data["result"]
            low, high = result.accuracy_interval
            self.console.print(
                f"{data['name']} training: greedy accuracy {result.accuracy:.1%} ({low:.1%} to {high:.1%}) "
                f"on {result.tasks} {result.split} tasks"
            )
            self.label = f"iteration 1 of {self.total}"
        elif kind == "warning":
            self.console.print(f"warning: {data['text']}", style="yellow", markup=False, soft_wrap=True)

    def _iteration(self, row: dict[str, Any]) -> None:
        now, done = time.monotonic(), row["iteration"]
        if self.started is None:
            self.started = (now - row["seconds"], done - 1)
        if not self.headed:
            self.console.print(" iter reward   acc valid  loss_pg loss_sdl l_rms skills teacher  s/it   left")
            self.headed = True
        pace = (now - self.started[0]) / (done - self.started[1])
        left = int(pace * (self.total - done))
        teacher = row.get("teacher_accuracy")
        self.console.print(
            f"{done:5d} {row['reward']:6.3f} {row['accuracy']:5.2f} {row['valid_actions']:5.2f} "
            f"{row['loss_policy']:8.4f} {row['loss_distill']:8.4f} {row['l_rms']:5.2f} {row['bank_size']:6d} "
            f"{'' if teacher is None else f'{teacher:.2f}':>7} {row['seconds']:5.1f} {left // 60:3d}:{left % 60:02d}"
        )
        self.label = f"iteration {done + 1} of {self.total}" if done < self.total else "evaluating"

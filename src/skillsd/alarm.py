"""Notices a collapse early: accuracy or valid actions at half of their best (TRAPS, "Numbers")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: Iterations over which both are averaged; single iterations are too noisy to judge.
WINDOW = 5


class CollapseAlarm:
    """Follows moving means of training accuracy and valid-action rate."""

    def __init__(self, recent: Sequence[Sequence[float]] = (), best: Sequence[float] = (0.0, 0.0)) -> None:
        self.recent = [tuple(pair) for pair in recent]
        self.best = list(best)
        self.at_best = False

    def update(self, accuracy: float, valid_actions: float) -> str | None:
        """Take one iteration's rates; returns a warning, or None. Silent until the window is full."""
        self.recent = [*self.recent, (accuracy, valid_actions)][-WINDOW:]
        if len(self.recent) < WINDOW:
            self.at_best = False
            return None
        means = [sum(values) / WINDOW for values in zip(*self.recent, strict=True)]
        self.at_best = means[0] > self.best[0]
        warning = None
        for name, mean, best in zip(("accuracy", "valid-action rate"), means, self.best, strict=True):
            if best >= 0.05 and mean <= best / 2:
                warning = f"collapse: {name} fell to {mean:.2f} from its best {best:.2f}; see checkpoints/best"
        self.best = [max(old, new) for old, new in zip(self.best, means, strict=True)]
        return warning

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the constructor takes it back."""
        return {"recent": self.recent, "best": self.best}

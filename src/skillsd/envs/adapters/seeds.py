"""Tasks that are seeds of another library's environment."""

from __future__ import annotations

from collections.abc import Sequence

from skillsd.errors import UsageError
from skillsd.types import Score, Task

#: Where the test split's seeds begin; those of the training split begin at 0.
TEST_SEEDS = 1_000_000


class SeededTasks:
    """The tasks NAME-SPLIT-I, one a seed. Raises :class:`UsageError` for counts that are not whole and positive."""

    def __init__(self, name: str, train_tasks: int, test_tasks: int, max_turns: int) -> None:
        counts = {"train_tasks": train_tasks, "test_tasks": test_tasks, "max_turns": max_turns}
        for what, count in counts.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise UsageError(f"{what} must be a whole number of at least 1, not {count!r}")
        if train_tasks > TEST_SEEDS:
            raise UsageError(f"train_tasks must be at most {TEST_SEEDS}, where the seeds of test begin")
        self.name, self.max_turns = name, max_turns
        self._seeds = {"train": range(train_tasks), "test": range(TEST_SEEDS, TEST_SEEDS + test_tasks)}

    def tasks(self, split: str) -> Sequence[Task]:
        """One task a seed. Raises :class:`UsageError` for another split than train and test."""
        if split not in self._seeds:
            raise UsageError(f"{self.name} has no split {split!r}: train or test")
        return [Task(f"{self.name}-{split}-{i}", {"seed": seed}) for i, seed in enumerate(self._seeds[split])]


def score_of(total: float, success_reward: float) -> Score:
    """The score of an episode that returned ``total``: solved from ``success_reward`` on."""
    return Score(total, total >= success_reward, min(1.0, max(0.0, total / success_reward)))


def positive(success_reward: float) -> float:
    """``success_reward`` itself. Raises :class:`UsageError` unless it is a positive number."""
    if isinstance(success_reward, bool) or not isinstance(success_reward, int | float) or not success_reward > 0:
        raise UsageError(f"success_reward must be a number above 0, not {success_reward!r}")
    return float(success_reward)

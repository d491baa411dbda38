"""Which skill the teacher reads: UCB1 over a task's skills (PAPER section 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """What retrieval looks at; ``id`` grows with age."""

    @property
    def id(self) -> int:
        """Its number in the bank."""
        ...

    @property
    def mean_reward(self) -> float:
        """Its credit so far."""
        ...

    @property
    def chosen(self) -> int:
        """How often it was retrieved."""
        ...


C = TypeVar("C", bound=Candidate)


def ucb_score(mean_reward: float, count: int, total: int, c: float) -> float:
    """``mean_reward + c * sqrt(ln(total) / count)``; infinite for a skill never chosen (``count`` 0).

    ``total`` is the number of retrievals for the task, ``count`` those that chose this skill.
    """
    if count == 0:
        return math.inf
    return mean_reward + c * math.sqrt(math.log(max(total, 1)) / count)


def choose(candidates: Sequence[C], total: int, c: float) -> C | None:
    """The best candidate: unseen ones first and newest among them, then by UCB score, ties to the newest."""
    return max(candidates, key=lambda e: (ucb_score(e.mean_reward, e.chosen, total, c), e.id), default=None)

"""Which skill the teacher reads: UCB1 over a task's skills (arXiv:2604.10674)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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


def separation(favours: Sequence[float], rewards: Sequence[float]) -> float | None:
    """How well a skill's reader tells better trajectories from worse, in [0, 1]; 0.5 is chance.

    The share of pairs with different ``rewards`` in which the better one has the larger ``favours`` (the teacher's mean
    log-prob of its tokens less the student's); ties count half. None where all rewards are equal.
    """
    pairs = [(favours[i] - favours[j]) for i, a in enumerate(rewards) for j, b in enumerate(rewards) if a > b]
    return sum((gap > 0) + (gap == 0) / 2 for gap in pairs) / len(pairs) if pairs else None


def choose(candidates: Sequence[C], total: int, c: float) -> C | None:
    """The best candidate: unseen ones first and newest among them, then by UCB score, ties to the newest."""
    return max(candidates, key=lambda e: (ucb_score(e.mean_reward, e.chosen, total, c), e.id), default=None)


def choose_among_best(best: Sequence[C], below: Callable[[C], C | None], total: int, c: float) -> C | None:
    """What :func:`choose` gives for all skills of a task, from the ``best`` of each count.

    The bonus depends on the count alone, so of equal counts the best mean has the best score, the newest if means are
    equal. ``below`` gives the best of that count with a lower mean: its score may be the same by rounding.
    """
    found = choose(best, total, c)
    if found is None or found.chosen == 0:
        return found
    score = ucb_score(found.mean_reward, found.chosen, total, c)
    ties = []
    for one in best:
        other: C | None = one
        while other is not None and ucb_score(other.mean_reward, other.chosen, total, c) == score:
            ties.append(other)
            other = below(other)
    return choose(ties, total, c)

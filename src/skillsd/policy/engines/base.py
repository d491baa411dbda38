"""What generates: token ids in, token ids and their log-probs out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass
class Request:
    """The next turn of one episode. ``ids`` is its whole history; an engine may cache any prefix of it.

    ``most``: tokens that history and turn may have together; None: as many as the engine allows.
    """

    episode: Hashable
    ids: list[int]
    rng: np.random.Generator
    most: int | None = None


@dataclass
class Generation:
    """One turn: its ids (the end-of-turn token included when ``ended``), their natural-log probabilities under
    the sampling distribution, and the summed entropy (nats) of that distribution."""

    ids: list[int]
    logps: list[float]
    entropy: float
    ended: bool


class Engine(Protocol):
    """Generates for many episodes at once. Weights may change between rollouts, never within one."""

    #: Whether every live episode must be among the requests of a call. If not, calls may come from many threads.
    lockstep: bool
    #: Tokens that an episode may have in all; None: no limit but the rollout's.
    max_length: int | None

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One turn for each request, in order."""
        ...

    def release(self, episodes: Sequence[Hashable]) -> None:
        """These episodes are over."""
        ...

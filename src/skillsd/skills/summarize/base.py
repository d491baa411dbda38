"""What a summariser is: one finished trajectory in, one skill out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from skillsd.envs.base import Task
from skillsd.errors import SkillSDError
from skillsd.skills.skill import Skill
from skillsd.trajectory import Trajectory


@dataclass(frozen=True)
class SummaryRequest:
    """A finished trajectory (its conversation, result, number of steps, completion) and its task."""

    trajectory: Trajectory
    task: Task


@runtime_checkable
class Summarizer(Protocol):
    """May be slow and may raise: it runs in the background, and a failure is counted, never fatal."""

    name: str

    def summarize(self, request: SummaryRequest) -> Skill:
        """The skill that this trajectory teaches."""
        ...


@runtime_checkable
class BatchSummarizer(Summarizer, Protocol):
    """One that uses the policy's weights: asked for many at once, in the trainer's thread, while they stand still."""

    def summarize_all(self, requests: Sequence[SummaryRequest]) -> list[Skill | SkillSDError]:
        """For each request a skill, or why there is none."""
        ...


@runtime_checkable
class Metered(Protocol):
    """A summariser that counts what it does."""

    def drain(self) -> tuple[dict[str, int], list[str]]:
        """Metrics since the last call, by name, and lines that somebody should be told."""
        ...

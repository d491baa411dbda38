"""What a summariser is: one finished trajectory in, one skill out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from skillsd.envs.base import Task
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

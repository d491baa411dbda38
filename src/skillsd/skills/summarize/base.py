"""What a summariser is: one finished trajectory in, one skill out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from skillsd.errors import SkillSDError
from skillsd.types import Skill, Summarizer, SummaryRequest


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

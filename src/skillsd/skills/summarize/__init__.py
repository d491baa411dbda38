"""Trajectory to skill."""

from __future__ import annotations

from skillsd.errors import UsageError
from skillsd.skills.summarize.base import Summarizer, SummaryRequest

__all__ = ["Summarizer", "SummaryRequest", "make_summarizer"]


def make_summarizer(name: str) -> Summarizer:
    """The summariser ``name``: ``rules`` (Sokoban, no LLM) or ``trajectory`` (the attempt itself, a control).

    Raises :class:`UsageError` for another name.
    """
    if name == "rules":
        from skillsd.skills.summarize.sokoban_rules import SokobanRules

        return SokobanRules()
    if name == "trajectory":
        from skillsd.skills.summarize.raw import RawTrajectory

        return RawTrajectory()
    raise UsageError(f"skills.summarizer: unknown summariser {name!r}; known: rules, trajectory")

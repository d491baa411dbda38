"""Trajectory to skill."""

from __future__ import annotations

from skillsd.errors import UsageError
from skillsd.plugins import find
from skillsd.skills.summarize.base import Summarizer, SummaryRequest

__all__ = ["Summarizer", "SummaryRequest", "make_summarizer"]


def make_summarizer(name: str) -> Summarizer:
    """``rules`` (Sokoban, no LLM), ``trajectory`` (the attempt itself, a control), or a user's own as ``module:Class``.

    Raises :class:`UsageError` for another name, or a class that makes no summariser.
    """
    if name == "rules":
        from skillsd.skills.summarize.sokoban_rules import SokobanRules

        return SokobanRules()
    if name == "trajectory":
        from skillsd.skills.summarize.raw import RawTrajectory

        return RawTrajectory()
    if ":" not in name:
        raise UsageError(
            f"skills.summarizer: unknown summariser {name!r}; known: rules, trajectory, or module:Class of your own"
        )
    try:
        made = find("skills.summarizer", name)()
    except TypeError as error:
        raise UsageError(f"skills.summarizer {name!r}: {error}") from None
    if not isinstance(made, Summarizer):
        raise UsageError(f"skills.summarizer {name!r} made no summariser: it needs name and summarize(request)")
    return made

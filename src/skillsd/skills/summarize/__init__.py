"""Trajectory to skill."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skillsd.errors import UsageError
from skillsd.plugins import find
from skillsd.skills.summarize.base import Summarizer, SummaryRequest

if TYPE_CHECKING:
    from skillsd.config import Config
    from skillsd.policy.loading import Policy

__all__ = ["Summarizer", "SummaryRequest", "check_summarizer", "make_summarizer"]


def make_summarizer(
    name: str, config: Config | None = None, *, policy: Policy | None = None, folder: Path | None = None
) -> Summarizer:
    """A summariser by its name (``skills.summarizer``; docs/summarisers.md), or a user's own as ``module:Class``.

    ``openai`` and ``policy`` need ``config``; ``policy`` that policy too, with the weights that it is to use.
    ``folder``: where ``openai`` keeps its cache unless ``summarizer.cache`` says so; None: in memory. Raises
    :class:`UsageError` for another name, a class that makes no summariser, or settings that are missing.
    """
    if name == "rules" and config is not None and config.env.name == "appworld":
        from skillsd.skills.summarize.appworld_rules import AppWorldRules

        return AppWorldRules()
    if name == "rules":
        from skillsd.skills.summarize.sokoban_rules import SokobanRules

        return SokobanRules()
    if name == "trajectory":
        from skillsd.skills.summarize.raw import RawTrajectory

        return RawTrajectory()
    if name == "openai" and config is not None:
        from skillsd.skills.summarize.openai import OpenAISummarizer
        from skillsd.skills.summarize.store import SummaryStore

        default = folder / "summaries.sqlite" if folder else None
        return OpenAISummarizer(config.summarizer, SummaryStore(config.summarizer.cache or default))
    if name == "policy" and config is not None and policy is not None:
        from skillsd.skills.summarize.policy import PolicySummarizer

        return PolicySummarizer(policy, config)
    return _own(name)


def check_summarizer(config: Config) -> None:
    """Raise :class:`UsageError` for what a run would find missing only later: a setting, a key, a prompt."""
    if config.skills.summarizer in ("openai", "policy"):
        from skillsd.skills.summarize.endpoint import Endpoint
        from skillsd.skills.summarize.prompting import Prompt
        from skillsd.skills.summarize.store import SummaryStore

        Prompt(config.summarizer.prompt)
        if config.skills.summarizer == "openai":
            Endpoint(config.summarizer, SummaryStore(None))


def _own(name: str) -> Summarizer:
    if ":" not in name:
        raise UsageError(
            f"skills.summarizer: unknown summariser {name!r}; known: rules, trajectory, openai, policy, "
            "or module:Class of your own"
        )
    try:
        made = find("skills.summarizer", name)()
    except TypeError as error:
        raise UsageError(f"skills.summarizer {name!r}: {error}") from None
    if not isinstance(made, Summarizer):
        raise UsageError(f"skills.summarizer {name!r} made no summariser: it needs name and summarize(request)")
    return made

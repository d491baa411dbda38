"""From a finished trajectory to a skill: by rules, by an LLM, or as it is.

Uses the task set's own rules where it has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skillsd.envs.base import HasRules, TaskSet
from skillsd.errors import SkillSDError, UsageError, reason, shown
from skillsd.plugins import find
from skillsd.types import Summarizer, SummaryRequest

if TYPE_CHECKING:
    from skillsd.config import Config
    from skillsd.policy.loading import Policy

__all__ = ["Summarizer", "SummaryRequest", "check_knows", "check_summarizer", "make_summarizer"]


#: What is told of a task set without rules.
_NO_RULES = (
    "brings no rules, as Sokoban and AppWorld do: set skills.summarizer to openai, policy, trajectory, or "
    "module:Class of your own (docs/summarisers.md)"
)


def make_summarizer(
    name: str,
    config: Config | None = None,
    *,
    taskset: TaskSet | None = None,
    policy: Policy | None = None,
    folder: Path | None = None,
) -> Summarizer:
    """A summariser by its name (``skills.summarizer``; docs/summarisers.md), or a user's own as ``module:Class``.

    ``rules`` are those of ``taskset``. ``openai`` and ``policy`` need ``config``; ``policy`` that policy too, with the
    weights that it is to use.
    ``folder``: where ``openai`` keeps its cache unless ``summarizer.cache`` says so; None: in memory. Raises
    :class:`UsageError` for another name, a class that makes no summariser, or settings that are missing.
    """
    if name == "rules":
        if isinstance(taskset, HasRules):
            return taskset.rules()
        raise UsageError(f"skills.summarizer = rules: {taskset.name if taskset else 'no task set'} {_NO_RULES}")
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


def check_knows(config: Config, taskset: TaskSet) -> None:
    """Raise :class:`UsageError` where every summary would fail: ``rules`` with a task set that brings none."""
    if config.spec.uses_bank and config.skills.summarizer == "rules" and not isinstance(taskset, HasRules):
        raise UsageError(f"skills.summarizer = rules: env {shown(config.env.name)} {_NO_RULES}")


def _own(name: str) -> Summarizer:
    if ":" not in name:
        raise UsageError(
            f"skills.summarizer: unknown summariser {shown(name)}; known: rules, trajectory, openai, policy, "
            "or module:Class of your own"
        )
    try:
        made = find("skills.summarizer", name)()
    except SkillSDError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"skills.summarizer {shown(name)} cannot be made: {reason(error)}") from None
    if not isinstance(made, Summarizer):
        raise UsageError(f"skills.summarizer {shown(name)} made no summariser: it needs name and summarize(request)")
    return made

"""Skill-SD: skill-conditioned self-distillation for multi-turn LLM agents (arXiv:2604.10674).

The public API; heavy imports happen on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skillsd.errors import SkillSDError, UsageError
from skillsd.moved import install

if TYPE_CHECKING:
    from skillsd.analysis.evaluate import evaluate
    from skillsd.config import Config, load_config
    from skillsd.rollouts.results import EvalResult
    from skillsd.training.loop import RunResult, train

install()
_HOMES = {
    "Config": "config", "load_config": "config", "train": "training.loop", "RunResult": "training.loop",
    "evaluate": "analysis.evaluate", "EvalResult": "rollouts.results",
}  # fmt: skip

__all__ = ["Config", "EvalResult", "RunResult", "SkillSDError", "UsageError", "evaluate", "load_config", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'skillsd' has no attribute {name!r}")
    return getattr(import_module(f"skillsd.{_HOMES[name]}"), name)

"""Skill-SD: skill-conditioned self-distillation for multi-turn LLM agents (arXiv:2604.10674).

The public API; heavy imports happen on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skillsd.errors import SkillSDError, UsageError

if TYPE_CHECKING:
    from skillsd.config import Config, load_config
    from skillsd.evaluation import EvalResult, evaluate
    from skillsd.training import RunResult, train

_HOMES = {
    "Config": "config", "load_config": "config", "train": "training", "RunResult": "training",
    "evaluate": "evaluation", "EvalResult": "evaluation",
}  # fmt: skip

__all__ = ["Config", "EvalResult", "RunResult", "SkillSDError", "UsageError", "evaluate", "load_config", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'skillsd' has no attribute {name!r}")
    return getattr(import_module(f"skillsd.{_HOMES[name]}"), name)

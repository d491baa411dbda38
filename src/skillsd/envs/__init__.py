"""Environments: what an agent acts in, made by name, checked, and played by hand.

Uses ``types`` and ``system``; nothing here imports torch or transformers.
"""

from skillsd.envs.base import Environment, HasKeys, HasReference, HasRender, HasRenderText, TaskSet
from skillsd.envs.registry import make_taskset, register
from skillsd.types import Score, Step, Task

__all__ = [
    "Environment",
    "HasKeys",
    "HasReference",
    "HasRender",
    "HasRenderText",
    "Score",
    "Step",
    "Task",
    "TaskSet",
    "make_taskset",
    "register",
]

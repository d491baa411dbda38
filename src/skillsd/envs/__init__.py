"""Environments: what an agent acts in. Nothing here imports torch or transformers."""

from skillsd.envs.base import Environment, HasKeys, HasReference, HasRender, HasRenderText, Score, Step, Task, TaskSet
from skillsd.envs.registry import make_taskset, register

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

"""Task sets by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from skillsd.envs.base import TaskSet
from skillsd.errors import UsageError
from skillsd.plugins import find

_FACTORIES: dict[str, Callable[..., TaskSet]] = {}


def register(name: str, factory: Callable[..., TaskSet]) -> None:
    """Make ``factory(**options)`` known as ``name``; a later registration replaces an earlier one."""
    _FACTORIES[name] = factory


def names() -> list[str]:
    """The names that :func:`make_taskset` knows."""
    return sorted({"sokoban", *_FACTORIES})


def make_taskset(name: str, **options: Any) -> TaskSet:
    """The task set ``name``, or a user's own as ``module:attribute``.

    A module is looked for in the current folder too. Raises :class:`UsageError` for an unknown name, a module that
    cannot be imported, a wrong option, or an object that is no task set.
    """
    factory = _FACTORIES.get(name) or _find(name)
    try:
        taskset = factory(**options)
    except TypeError as error:
        raise UsageError(f"env {name!r}: {error}; options: {_options(factory)}") from None
    if not isinstance(taskset, TaskSet):
        raise UsageError(f"env {name!r} made no task set: it needs name, max_turns, tasks and make")
    return taskset


def _options(factory: Callable[..., TaskSet]) -> str:
    try:
        return ", ".join(inspect.signature(factory).parameters) or "none"
    except ValueError:  # built-ins tell nothing
        return "unknown"


def _find(name: str) -> Callable[..., TaskSet]:
    if name == "sokoban":
        from skillsd.envs.sokoban.taskset import SokobanTasks

        return SokobanTasks
    if ":" not in name:
        raise UsageError(f"no task set {name!r}; known: {', '.join(names())}, or module:attribute of your own")
    return find("env", name)

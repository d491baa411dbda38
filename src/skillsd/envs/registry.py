"""Task sets by name."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skillsd.envs.base import TaskSet
from skillsd.errors import UsageError
from skillsd.plugins import find

#: What is imported when it is asked for, as module:attribute; those of integrations need the extra of their name.
_SHIPPED = {
    "appworld": "skillsd.envs.appworld.environment:AppWorldTasks",
    "sokoban": "skillsd.envs.sokoban.taskset:SokobanTasks",
    "gymnasium": "skillsd.integrations.gymnasium:GymnasiumTasks",
    "openenv": "skillsd.integrations.openenv:OpenEnvTasks",
    "textarena": "skillsd.integrations.textarena:TextArenaTasks",
}
_FACTORIES: dict[str, Callable[..., TaskSet]] = {}


def register(name: str, factory: Callable[..., TaskSet]) -> None:
    """Make ``factory(**options)`` known as ``name``; a later registration replaces an earlier one."""
    _FACTORIES[name] = factory


def names() -> list[str]:
    """The names that :func:`make_taskset` knows."""
    return sorted({*_SHIPPED, *_FACTORIES})


def make_taskset(name: str, **options: Any) -> TaskSet:
    """The task set ``name``, or a user's own as ``module:attribute``.

    A module is looked for in the current folder too. Raises :class:`UsageError` for an unknown name, a module that
    cannot be imported, a wrong option, or an object that is no task set.
    """
    taskset = build(name, options)
    if not isinstance(taskset, TaskSet):
        raise UsageError(f"env {name!r} made no task set: it needs name, max_turns, tasks and make")
    return taskset


def build(name: str, options: Mapping[str, Any]) -> Any:
    """What the factory of ``name`` makes, task set or not. Raises :class:`UsageError` as :func:`make_taskset` does."""
    factory = _FACTORIES.get(name) or _find(name)
    try:
        return factory(**options)
    except TypeError as error:
        raise UsageError(f"env {name!r}: {error}; options: {_options(factory)}") from None


def fingerprint(taskset: TaskSet, splits: Sequence[str]) -> str:
    """A hash of the ids and data of all tasks in ``splits``, in their order: the same in every process."""
    tasks = [[task.id, dict(task.data)] for split in splits for task in taskset.tasks(split)]
    return hashlib.sha256(json.dumps(tasks, sort_keys=True).encode()).hexdigest()


def _options(factory: Callable[..., TaskSet]) -> str:
    try:
        return ", ".join(inspect.signature(factory).parameters) or "none"
    except ValueError:  # built-ins tell nothing
        return "unknown"


def _find(name: str) -> Callable[..., TaskSet]:
    if name in _SHIPPED:
        return find("env", _SHIPPED[name])
    if ":" not in name:
        raise UsageError(f"no task set {name!r}; known: {', '.join(names())}, or module:attribute of your own")
    return find("env", name)

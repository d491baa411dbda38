"""Task sets by name."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skillsd.envs import boundary
from skillsd.envs.base import TaskSet
from skillsd.errors import UsageError, reason, shown
from skillsd.plugins import find
from skillsd.types import Task

#: What is imported when it is asked for, as module:attribute; those of integrations need the extra of their name.
_SHIPPED = {
    "appworld": "skillsd.envs.appworld.environment:AppWorldTasks",
    "office": "skillsd.envs.office.environment:OfficeTasks",
    "sokoban": "skillsd.envs.sokoban.taskset:SokobanTasks",
    "gymnasium": "skillsd.envs.adapters.gymnasium:GymnasiumTasks",
    "openenv": "skillsd.envs.adapters.openenv:OpenEnvTasks",
    "textarena": "skillsd.envs.adapters.textarena:TextArenaTasks",
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
    cannot be imported, a wrong option, or an object that is no task set, and :class:`SkillSDError` for one that fails.
    """
    return boundary.attributes(name, build(name, options))


def build(name: str, options: Mapping[str, Any]) -> Any:
    """What the factory of ``name`` makes, task set or not. Raises what :func:`make_taskset` does."""

    def make() -> Any:
        factory = _FACTORIES.get(name) or _find(name)  # a module may do anything when it is imported
        try:
            return factory(**options)
        except TypeError as error:
            told = reason(error).removeprefix("TypeError: ")
            raise UsageError(f"env {shown(name)}: {told}; options: {_options(factory)}") from None

    return boundary.built(name, make)


def fingerprint(taskset: TaskSet, splits: Sequence[str]) -> str:
    """A hash of the ids and data of all tasks in ``splits``, in their order: the same in every process."""
    tasks = [task for split in splits for task in boundary.tasks_of(taskset, split)]
    return digest(tasks)


def digest(tasks: Sequence[Task]) -> str:
    """A hash of the ids and data of ``tasks``, in their order: the same in every process."""
    pairs = [[task.id, dict(task.data)] for task in tasks]
    return hashlib.sha256(json.dumps(pairs, sort_keys=True).encode()).hexdigest()


def _options(factory: Callable[..., TaskSet]) -> str:
    try:
        return ", ".join(inspect.signature(factory).parameters) or "none"
    except ValueError:  # built-ins tell nothing
        return "unknown"


def _find(name: str) -> Callable[..., TaskSet]:
    if name in _SHIPPED:
        return find("env", _SHIPPED[name])
    if ":" not in name:
        raise UsageError(f"no task set {shown(name)}; known: {', '.join(names())}, or module:attribute of your own")
    return find("env", name)

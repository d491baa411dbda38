"""Task sets by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from skillsd.envs.base import TaskSet
from skillsd.errors import UsageError

_FACTORIES: dict[str, Callable[..., TaskSet]] = {}


def register(name: str, factory: Callable[..., TaskSet]) -> None:
    """Make ``factory(**options)`` known as ``name``; a later registration replaces an earlier one."""
    _FACTORIES[name] = factory


def names() -> list[str]:
    """The names that :func:`make_taskset` knows."""
    return sorted({"sokoban", *_FACTORIES})


def make_taskset(name: str, **options: Any) -> TaskSet:
    """The task set ``name``, or a user's own as ``module:attribute``.

    Raises :class:`UsageError` for an unknown name, a module that cannot be imported, or a wrong option.
    """
    factory = _FACTORIES.get(name) or _find(name)
    try:
        return factory(**options)
    except TypeError as error:
        raise UsageError(f"env {name!r}: {error}") from None


def _find(name: str) -> Callable[..., TaskSet]:
    if name == "sokoban":
        from skillsd.envs.sokoban.taskset import SokobanTasks

        return SokobanTasks
    module, separator, attribute = name.partition(":")
    if not separator:
        raise UsageError(f"no task set {name!r}; known: {', '.join(names())}, or module:attribute of your own")
    try:
        found: Callable[..., TaskSet] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"env {name!r} cannot be imported: {error}") from None
    return found

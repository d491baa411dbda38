"""Agents' code gets what is public of its modules, not the modules: another way to a name does not help.

Run by the engine's Python, which has no skillsd, in the agent's process.
"""

from __future__ import annotations

import builtins
import copy
import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

from public import BUILTINS, MODULES, names, reaches

#: What the engine and IPython leave in the shell and need there no more.
_SHELL = frozenset({"ApiCollection", "Requester", "get_ipython", "requester"})


class Refusals:
    """How often what is not public was asked for."""

    def __init__(self) -> None:
        self.count = 0

    def take(self) -> int:
        """The count since the last call."""
        count, self.count = self.count, 0
        return count


class Public(SimpleNamespace):
    """A module's public names, each agent's own."""


def fence(namespace: dict[str, Any], refusals: Refusals) -> None:
    """Give the code that runs in ``namespace`` such modules, in place of those that are there already and whenever it
    imports one, and of the built-in functions those that it may use."""
    made: dict[str, Public] = {}

    def public(name: str) -> Public:
        if name not in made:
            made[name] = _public(name, namespace.get(name), refusals)
        return made[name]

    def load(name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] = (), level: int = 0) -> Any:
        if level == 0 and name in MODULES:
            if fromlist:
                return public(name)
            parent = public(name.partition(".")[0])
            if "." in name:
                setattr(parent, name.rpartition(".")[2], public(name))
            return parent
        # Whether a statement may import it was decided before; libraries do so on their own, from here.
        return builtins.__import__(name, globals, locals, fromlist, level)

    allowed = {name: value for name, value in vars(builtins).items() if name in BUILTINS}
    allowed |= {name: getattr(builtins, name) for name in ("__build_class__", "__name__", "__debug__")}
    for name, value in list(namespace.items()):
        if name.startswith("_"):
            continue
        if isinstance(value, ModuleType) and name in MODULES:
            namespace[name] = public(name)
        elif isinstance(value, ModuleType) or name in _SHELL or (hasattr(builtins, name) and name not in BUILTINS):
            del namespace[name]
    namespace["builtins"] = SimpleNamespace(print=print)  # for the engine's own print, which calls it
    namespace["__builtins__"] = {**allowed, "__import__": load}


def _public(name: str, there: Any, refusals: Refusals) -> Public:
    """The public part of a module; ``there``: what the engine put in its place."""
    module = there if isinstance(there, ModuleType) else importlib.import_module(name)
    found = {key: getattr(module, key) for key in names(name) if hasattr(module, key)}
    found |= {key: safe for (of, key), safe in _SAFE.items() if of == name}

    class Module(Public):
        def __getattr__(self, key: str) -> Any:
            if not key.startswith("_") and hasattr(module, key):
                refusals.count += reaches(name, key, getattr(module, key))
                raise AttributeError(f"{name}.{key} is not allowed")
            raise AttributeError(f"module {name!r} has no attribute {key!r}")

    return Module(**found)


def _wraps(wrapped: Callable[..., Any]) -> Callable[..., Any]:
    """Without the names of the attributes to copy, which would reach any; functools' own result takes them later."""
    return lambda wrapper: functools.wraps(wrapped)(wrapper)


def _dataclass(cls: type | None = None, **options: bool) -> Any:
    """Python writes a dataclass's methods from its fields' names, as text, and takes attributes by them later: the
    fields that are looked at then are out of the agent's hands."""
    if cls is None:
        return lambda cls: _dataclass(cls, **options)
    for base in cls.__mro__:
        fields: Mapping[str, Any] = vars(base).get("__annotations__", {})
        if not all(isinstance(name, str) and name.isidentifier() for name in fields):
            raise TypeError("a field's name must be an identifier")
    made: Any = dataclasses.dataclass(cls, **options)
    made.__dataclass_fields__ = {name: copy.copy(field) for name, field in made.__dataclass_fields__.items()}
    return made


def _fields(of: Any) -> tuple[Any, ...]:
    return tuple(map(copy.copy, dataclasses.fields(of)))


_SAFE = {
    ("functools", "wraps"): _wraps,
    ("dataclasses", "dataclass"): _dataclass,
    ("dataclasses", "fields"): _fields,
}

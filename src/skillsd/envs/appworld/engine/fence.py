"""Agents' code gets what is public of its modules, not the modules: another way to a name does not help.

Run by the engine's Python, which has no skillsd, in the agent's process.
"""

from __future__ import annotations

import builtins
import calendar
import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

from public import BUILTINS, MODULES, names, reaches
from written import Views, Written

#: What the engine and IPython leave in the shell and need there no more.
_SHELL = frozenset({"ApiCollection", "In", "Out", "Requester", "exit", "get_ipython", "quit", "requester"})
#: What Python needs of the names that begin with an underscore.
_NEEDED = frozenset({"__builtins__", "__name__"})


class Refusals:
    """How often what is not public was asked for."""

    def __init__(self) -> None:
        self.count = 0

    def take(self) -> int:
        """The count since the last call."""
        count, self.count = self.count, 0
        return count


class Public(Views):  # type: ignore[misc]
    """A module's public names, each agent's own."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        kept = dict(found)  # an agent's mapping might answer otherwise when it is asked again
        if any(type(name) is not str or name.startswith("_") for name in kept):
            raise TypeError("a public name begins with a letter")
        self.__dict__.update(kept)


def fence(namespace: dict[str, Any], refusals: Refusals) -> None:
    """Give the code that runs in ``namespace`` such modules, in place of those that are there already and whenever it
    imports one, and of the built-in functions those that it may use."""
    made: dict[str, Public] = {}
    written = Written(namespace)
    calendar.setfirstweekday(calendar.MONDAY)  # another agent may have set it

    def public(name: str) -> Public:
        if name not in made:
            made[name] = _public(name, namespace.get(name), refusals, written)
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
    allowed |= {"__name__": "builtins", "__debug__": __debug__, **written.builtins}
    kinds = {(of, key): getattr(importlib.import_module(of), key, None) for of, key in written.public}
    for name, value in list(namespace.items()):
        if name.startswith("_") and name not in _NEEDED:
            del namespace[name]  # IPython's: folders, say, with all that can be done to them
            continue
        namespace[name] = next((written.public[key] for key, kind in kinds.items() if kind is value), value)
        if isinstance(value, ModuleType) and name in MODULES:
            namespace[name] = public(name)
        elif isinstance(value, ModuleType) or name in _SHELL or (hasattr(builtins, name) and name not in BUILTINS):
            del namespace[name]
    namespace["builtins"] = SimpleNamespace(print=print)  # for the engine's own print, which calls it
    namespace["__builtins__"] = {**allowed, "__import__": load}


def _public(name: str, there: Any, refusals: Refusals, written: Written) -> Public:
    """The public part of a module; ``there``: what the engine put in its place."""
    module = there if isinstance(there, ModuleType) else importlib.import_module(name)
    found = {key: getattr(module, key) for key in names(name) if hasattr(module, key)}
    found |= {key: safe for (of, key), safe in written.public.items() if of == name and key in found}

    class Module(Public):
        def __getattr__(self, key: str) -> Any:
            if not key.startswith("_") and hasattr(module, key):
                refusals.count += reaches(name, key, getattr(module, key))
                raise AttributeError(f"{name}.{key} is not allowed")
            raise AttributeError(f"module {name!r} has no attribute {key!r}")

    return Module(found)

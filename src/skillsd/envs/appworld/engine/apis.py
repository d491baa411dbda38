"""The apps as an agent is given them: names of apps, names of their APIs, and calls that take plain values.

Run by the engine's Python, which has no skillsd, in the agent's process. The engine's own objects stay behind: what
they raise is told in words, and what they would take besides the APIs' parameters is not passed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from written import Views

#: Parameters of the engine's own: another client, other errors, no record.
_ENGINES = frozenset({"client", "raise_on_failure", "show", "track"})
#: Apps of the engine's own.
_HIDDEN = frozenset({"admin"})
#: Where the kinds of dates and numbers come from that hold nothing but a value.
_VALUES = frozenset({"appworld", "datetime", "decimal", "freezegun", "pendulum", "uuid"})
_KINDS = (KeyError, MemoryError, RecursionError, TypeError, ValueError)
_INVALID = "Response status code is 405:\nAPI not found or some of the passed parameters are invalid."


class Names(Views, dict[str, Any]):  # type: ignore[misc]
    """Apps, or the APIs ``of`` one, as attributes and as items."""

    def __init__(self, found: Mapping[str, Any], of: str = "") -> None:
        super().__init__(found)
        self._of = of

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_"):
            raise AttributeError(key)
        if key in self:
            return self[key]
        raise Exception(
            f"No API named '{key}' found in the {self._of} app." if self._of else f"No app named '{key}' found."
        )


def view(apis: dict[str, Any], path: Callable[[str, str], str], passing: tuple[type[Exception], ...]) -> Names:
    """The engine's ``apis`` for an agent. ``path`` tells an API's address; ``passing`` errors are let through."""
    apps = {app: found for app, found in dict.items(apis) if app not in _HIDDEN and isinstance(found, Mapping)}
    return Names(
        {
            app: Names({name: _call(function, path(app, name), passing) for name, function in found.items()}, app)
            for app, found in apps.items()
        }
    )


def _call(function: Callable[..., Any], path: str, passing: tuple[type[Exception], ...]) -> Callable[..., Any]:
    parts = re.findall(r"{(\w+)}", path)

    def api_request(*args: Any, **given: Any) -> Any:
        sent = plain(given)
        for name in sent:
            if name in _ENGINES or name.startswith("_"):
                raise TypeError(f"there is no parameter {name}")
        if any(_leads_away(sent[name]) for name in parts if name in sent):
            raise Exception(_INVALID)
        try:
            return function(*args, **sent)
        except passing:
            raise
        except Exception as error:
            told = _told(error)
        raise told

    return api_request


def plain(value: Any) -> Any:
    """A copy of ``value`` that is made of Python's own types, with no code of an agent's in it."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str, bytes):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in dict.items(value)}
    for container in (list, tuple, set, frozenset):
        if isinstance(value, container):
            return container(map(plain, value))
    if kind.__module__.partition(".")[0] in _VALUES:
        return value
    raise TypeError(f"Object of type {kind.__name__} is not JSON serializable")  # as the engine says


def _leads_away(value: Any) -> bool:
    """Whether a part of an address would make it another one; it is decoded twice on its way."""
    text = unquote(unquote(str(value)))
    return text in (".", "..") or any(character in text for character in "/\\?#")


def _told(error: Exception) -> Exception:
    """The same in words: the engine's errors hold its objects."""
    for kind in _KINDS:
        if type(error) is kind:
            return kind(*map(str, error.args))
    return Exception(str(error))

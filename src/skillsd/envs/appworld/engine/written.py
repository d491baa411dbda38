"""What an agent's code gets in place of what makes classes, and sets or takes attributes, by names that are text.

Run by the engine's Python, which has no skillsd, in the agent's process. Reading the code tells which names it writes
out; here a class comes of a ``class`` statement alone, and only what the agent made itself is changed.
"""

from __future__ import annotations

import ast
import builtins
import calendar
import collections
import copy
import dataclasses
import decimal
import enum
import functools
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, NamedTuple, TypedDict
from weakref import WeakSet

#: The built-in function that an agent's code cannot name, through which it changes attributes.
OWN = "__own__"
#: Instances that people set attributes of, although their classes are Python's.
_TOOLS = (BaseException, calendar.Calendar, decimal.Context)
_SHARED = (decimal.BasicContext, decimal.DefaultContext, decimal.ExtendedContext)


class Views:
    """A base of the objects that stand for the engine's: an agent may change its own."""


class _TypeOf(type):
    """``type`` tells what something is; of a class it tells only that."""

    def __call__(cls, of: Any) -> Any:
        kind = builtins.type(of)
        return cls if issubclass(kind, builtins.type) else kind

    def __instancecheck__(cls, other: Any) -> bool:
        return isinstance(other, builtins.type)

    def __subclasscheck__(cls, other: type) -> bool:
        return other is cls or issubclass(other, builtins.type)

    def __repr__(cls) -> str:
        return "<class 'type'>"


class TypeOf(metaclass=_TypeOf):
    """In place of ``type``."""


class Written:
    """One world's classes and functions: those whose ``namespace`` the agent's code runs in."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace
        self._classes: WeakSet[type] = WeakSet()
        self.builtins = {"type": TypeOf, "__build_class__": self._build, OWN: self._own}
        self.public = {
            ("dataclasses", "dataclass"): self._dataclass, ("dataclasses", "fields"): _fields,
            ("functools", "total_ordering"): lambda cls: functools.total_ordering(self._own(cls)),
            ("functools", "wraps"): self._wraps, ("functools", "cached_property"): _CachedProperty,
            ("collections", "namedtuple"): self._namedtuple,
            ("copy", "copy"): _copy, ("copy", "deepcopy"): _deepcopy,
            ("typing", "NamedTuple"): _Base(NamedTuple), ("typing", "TypedDict"): _Base(TypedDict),
            **{("enum", name): kind for name, kind in _ENUMS.items()},
        }  # fmt: skip

    def _own(self, value: Any) -> Any:
        """``value``, whose attribute is to be set or deleted. Raises ``TypeError`` for what others use too."""
        if isinstance(value, builtins.type):
            mine = value in self._classes
        elif isinstance(value, FunctionType):
            mine = value.__globals__ is self._namespace
        else:
            tool = isinstance(value, _TOOLS) and not any(value is one for one in _SHARED)
            mine = tool or isinstance(value, Views) or builtins.type(value) in self._classes
        if not mine:
            raise TypeError(f"attributes of {value!r:.80} cannot be changed")
        return value

    def _build(self, body: Callable[[], Any], name: str, *bases: Any, **keywords: Any) -> Any:
        if keywords or any(isinstance(base, builtins.type) and issubclass(base, TypeOf) for base in bases):
            raise TypeError("a class may have bases, nothing else, and no classes of classes")
        made = builtins.__build_class__(body, name, *bases)
        if isinstance(made, builtins.type):
            self._classes.add(made)
            _shield(made)
        return made

    def _wraps(self, wrapped: Callable[..., Any]) -> Callable[..., Any]:
        """Without the names of the attributes to copy; functools' own result takes them later."""
        return lambda wrapper: functools.wraps(wrapped)(self._own(wrapper))

    def _dataclass(self, cls: type | None = None, **options: bool) -> Any:
        """Python writes a dataclass's methods from its fields' names, as text, and takes attributes by them later: the
        fields that are looked at then are out of the agent's hands."""
        if cls is None:
            return lambda cls: self._dataclass(cls, **options)
        self._own(cls)
        for base in cls.__mro__:
            fields: Mapping[str, Any] = vars(base).get("__annotations__", {})
            if not all(_is_plain(name) for name in fields):
                raise TypeError("a field's name must be an identifier")
        made: Any = dataclasses.dataclass(cls, **options)
        made.__dataclass_fields__ = {name: _field(name, field) for name, field in made.__dataclass_fields__.items()}
        self._classes.add(made)  # with slots it is another class
        return made

    def _namedtuple(self, name: str, fields: str | Iterable[str], *, defaults: Iterable[Any] | None = None) -> Any:
        names = fields.replace(",", " ").split() if type(fields) is str else list(fields)
        if type(name) is not str or not all(map(_is_plain, names)):
            raise TypeError("a field's name must be an identifier")
        return collections.namedtuple(name, names, defaults=defaults, module="__main__")


def _is_plain(name: Any) -> bool:
    """Whether a name is no text that pretends (a class of its own may answer anything), and none of Python's."""
    return type(name) is str and name.isidentifier() and not name.startswith("__")


def _field(name: str, field: Any) -> Any:
    made = copy.copy(field)
    made.name = name  # its own may have been changed meanwhile
    return made


def _fields(of: Any) -> tuple[Any, ...]:
    return tuple(map(copy.copy, dataclasses.fields(of)))


def _shield(made: type) -> None:
    """Python's own attributes are asked of objects by copy and others: a class does not make them up."""
    asked = vars(made).get("__getattr__")
    if asked is None:
        return
    if type(asked) is not FunctionType:
        raise TypeError("__getattr__ must be a plain method")

    @functools.wraps(asked)
    def answer(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return asked(self, name)

    made.__getattr__ = answer  # type: ignore[attr-defined]


def _copy(x: Any) -> Any:
    return copy.copy(x)


def _deepcopy(x: Any) -> Any:
    """Without a memo of the agent's, which could put anything in the place of an object's state."""
    return copy.deepcopy(x)


class _CachedProperty:
    """Python's own keeps the name that it reads and writes where it could be changed."""

    def __init__(self, func: Callable[[Any], Any]) -> None:
        self._func, self._name = func, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        kept = vars(instance)
        if self._name not in kept:
            kept[self._name] = self._func(instance)
        return kept[self._name]


class _Base:
    """A base for a class statement, which makes no classes when it is called."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        entries: tuple[Any, ...] = self._kind.__mro_entries__(
            tuple(base._kind if type(base) is _Base else base for base in bases)
        )
        return entries

    def __call__(self, *given: Any, **named: Any) -> None:
        raise TypeError(f"write it out: class Name({self._kind.__name__}): ...")


class _Enumeration(enum.EnumMeta):
    """An Enum's members are written out: called, it looks one up."""

    def __call__(cls, *value: Any, **named: Any) -> Any:
        if len(value) != 1 or named or not cls.__members__:
            raise TypeError("write the members out: class Name(Enum): ...")
        return super().__call__(value[0])

    # An IntEnum is an Enum, although ours has another base.
    def __instancecheck__(cls, other: Any) -> bool:
        return cls.__subclasscheck__(builtins.type(other))

    def __subclasscheck__(cls, other: type) -> bool:
        return builtins.type.__subclasscheck__(_KINDS.get(cls, cls), other)


_KINDS: dict[type, type] = {}
_ENUMS = {
    name: _Enumeration(name, (kind,), _Enumeration.__prepare__(name, (kind,)))
    for name in ("Enum", "Flag", "IntEnum", "IntFlag", "StrEnum")
    if (kind := getattr(enum, name, None))
}
_KINDS |= {kind: kind.__bases__[0] for kind in _ENUMS.values()}


def changes(tree: ast.Module) -> ast.Module:
    """The code, which changes attributes of what :data:`OWN` lets through alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            own = ast.copy_location(ast.Name(OWN, ast.Load()), node.value)
            node.value = ast.copy_location(ast.Call(own, [node.value], []), node.value)
    return tree

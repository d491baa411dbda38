"""Anything at all as plain JSON values, so that what an environment tells beside its text can be recorded."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import numbers
import pathlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Set
from enum import Enum
from itertools import islice
from typing import Any

from skillsd.errors import shown

#: Bounds of one record: levels, values (32 characters count as one), values of a container, characters of a text.
DEPTH, VALUES, ITEMS, CHARACTERS = 20, 20_000, 1_000, 100_000
_TOLD_AS_TEXT = (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, pathlib.PurePath, uuid.UUID)


def text(value: str) -> str:
    """An exact ``str`` that can be written as UTF-8: halves of characters are joined, lone ones replaced."""
    exact = str.__str__(value)
    if exact.isascii():
        return exact
    return exact.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain(value: Any) -> Any:
    """``value`` as dicts with text keys, lists, texts, numbers, booleans and None, which share nothing with it.

    NumPy's and torch's values become numbers and lists, sets sorted lists, bytes text, NaN and infinity None, dates and
    paths text, a value inside itself ``"(itself)"``, and anything else its shortened ``repr``. What exceeds the bounds
    above is cut, and a last item tells how much. Never raises.
    """
    return _Writer().write(value, 0)


class _Writer:
    def __init__(self) -> None:
        self.left = VALUES
        self.inside: set[int] = set()  # the containers that are being written

    def write(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if id(value) in self.inside:
            return "(itself)"
        try:
            return self._write(value, depth)
        except Exception:  # of its own methods
            return shown(value)

    def _write(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._text(bytes(value).decode("utf-8", "replace"))
        if isinstance(value, Enum):
            return self.write(value.value, depth)
        if isinstance(value, numbers.Integral):
            whole = int(value)
            return whole if whole.bit_length() <= 64 else shown(whole)
        if isinstance(value, numbers.Real):
            number = float(value)
            return number if math.isfinite(number) else None
        if isinstance(value, _TOLD_AS_TEXT):
            return self._text(str(value))
        return self._container(value, depth)

    def _text(self, value: str) -> str:
        told = _cut(text(value))
        self.left -= len(told) // 32
        return told

    def _container(self, value: Any, depth: int) -> Any:
        write: Callable[[Any, int], Any]
        if isinstance(value, Mapping):
            write = self._dict
        elif isinstance(value, Set):
            write = self._set
        elif isinstance(value, list | tuple):
            write = self._list
        elif callable(getattr(value, "tolist", None)):  # arrays and scalars of NumPy, torch and their like
            write = self._array
        else:
            return shown(value)
        if depth >= DEPTH or self.left <= 0:
            return "..."
        self.inside.add(id(value))
        try:
            return write(value, depth + 1)
        finally:
            self.inside.discard(id(value))

    def _dict(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        items = islice(value.items(), ITEMS)
        found = {_key(key): self.write(item, depth) for key, item in items if self.left > 0}
        if (more := len(value) - len(found)) > 0:
            found["..."] = f"{more} more"
        return found

    def _list(self, value: Iterable[Any], depth: int) -> list[Any]:
        size = len(value)  # type: ignore[arg-type]
        found = [self.write(item, depth) for item in islice(value, ITEMS) if self.left > 0]
        return found if len(found) >= size else [*found, f"{size - len(found)} more"]

    def _set(self, value: Set[Any], depth: int) -> list[Any]:
        found = [self.write(item, depth) for item in islice(value, ITEMS) if self.left > 0]
        try:
            found.sort()
        except TypeError:  # of several kinds
            found.sort(key=lambda item: json.dumps(item, sort_keys=True))
        return found if len(found) >= len(value) else [*found, f"{len(value) - len(found)} more"]

    def _array(self, value: Any, depth: int) -> Any:
        shape = tuple(getattr(value, "shape", ()))
        if math.prod(shape) > ITEMS:
            return f"{type(value).__name__} of shape {shape}"
        return self.write(value.tolist(), depth)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return _cut(text(key))
    return str(key) if key is None or isinstance(key, int | float) else shown(key)


def _cut(told: str) -> str:
    more = len(told) - CHARACTERS
    return told if more <= 0 else f"{told[:CHARACTERS]}... {more} more characters"

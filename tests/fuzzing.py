"""What the fuzz tests share: how many examples, and values that no program expects."""

import datetime
import decimal
import os
import pathlib

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

#: `make fuzz`: another seed every time, and many more examples.
LONG = os.environ.get("SKILLSD_FUZZ") == "long"


def examples(count):
    """Settings for a test: ``count`` examples, always the same; ``make fuzz`` tries others, thirty times as many."""
    return settings(
        max_examples=count * (30 if LONG else 1),
        derandomize=not LONG,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


class Hostile:
    """Nothing can be told of it."""

    def __repr__(self):
        raise SystemExit("no")

    def __str__(self):
        raise KeyboardInterrupt

    def __eq__(self, other):
        raise ValueError("no")

    __hash__ = None
    __bool__ = __len__ = __iter__ = __float__ = __int__ = __eq__


class Word(str):
    """A text that says something else when it is asked."""

    __slots__ = ()

    def __str__(self):
        return "another"

    def __repr__(self):
        raise RuntimeError("no")


class Untellable(Exception):
    def __str__(self):
        raise ValueError("no")


def ring():
    inside = {"list": []}
    inside["list"].append(inside)
    return inside


def deep(levels=3000):
    value = []
    for _ in range(levels):
        value = [value]
    return value


#: Text with everything in it, halves of characters too.
texts = st.text(st.characters() | st.sampled_from("\ud800\udfff\x00\x1b\x9b\u2028\u202e`{}<|"), max_size=40)
_PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=20)
_STRANGE = st.sampled_from(
    [Hostile, object, Word, lambda: Word("word"), lambda: 10**5000, lambda: 1j, lambda: np.bool_(True), ring, deep,
     lambda: np.float32("nan"), lambda: np.int64(3), lambda: np.str_("x"), lambda: np.array([[1.5, np.inf]]),
     lambda: np.zeros((300, 300)), lambda: np.array([object()]), lambda: np.datetime64("2026-01-01"),
     lambda: torch.tensor(2.5), lambda: torch.ones(2, device="meta"), lambda: torch.zeros(3, dtype=torch.bfloat16),
     lambda: datetime.datetime(2026, 1, 2), lambda: pathlib.Path("/a"), lambda: decimal.Decimal("NaN"),
     lambda: {3, "a", None}, lambda: {1: 2, None: 3, (1, 2): b"\xff"}, lambda: (1, (2,)), lambda: "x" * 300_000,
     lambda: list(range(5000)), lambda: (i for i in range(3)), lambda: memoryview(b"ab"), lambda: int]
).map(lambda make: make())  # fmt: skip
#: Any value, of any type, also inside others.
anything = st.recursive(
    _PLAIN | _STRANGE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=8,
)
failures = st.sampled_from(
    [ValueError("two\nlines \x1b[31mred\x1b[0m"), Untellable(), SystemExit(3), KeyboardInterrupt(),
     RuntimeError("x" * 10**6), StopIteration(), MemoryError(), RecursionError("\ud800"), Untellable]
)  # fmt: skip


def raising(error):
    def call(*arguments):
        raise error

    return call

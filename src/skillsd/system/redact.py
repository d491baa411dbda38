"""A secret taken out of text, in whatever form it stands there."""

from __future__ import annotations

import html
import re
import string
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

#: Shorter words are placeholders (EMPTY, none, x), which local servers want as keys; and they occur in any text.
SHORTEST = 8
#: So many characters of a secret, one after the other, are a part of it that is hidden too. Fewer may be a word of it,
#: and servers repeat a few at the beginning and the end to say which key they mean.
PART = 12
_STARS = "***"
#: How often escapes are undone, and what was packed in base64 or hexadecimal is unpacked.
_PASSES, _DEPTH = 12, 3
#: What wrapping puts in between, also within an escape: so this goes first.
_BLANK = re.compile(r"((?<!\\)\\++[nrt]|[\s\0\xad\u200b-\u200d\u2060\ufeff]+)")
#: JSON's escapes, those of URLs and of HTML, each at any depth.
_ESCAPE = re.compile(
    r"""\\+(?:u(?P<json>[0-9a-fA-F]{4})|x(?P<byte>[0-9a-fA-F]{2})|)
    | %(?:25)*(?P<url>[0-9a-fA-F]{2})
    | &(?:amp;)*(?P<html>\#[0-9]{1,7};?|\#[xX][0-9a-fA-F]{1,6};?|[A-Za-z][A-Za-z0-9]{1,31};)
    """,
    re.VERBOSE,
)
_ESCAPED = re.compile(f"({re.sub(r'[?]P<[a-z]+>', '?:', _ESCAPE.pattern)})", re.VERBOSE)
Array = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
#: Places in a text: [n, 2], where each begins and ends.
Spans = Array
_NOWHERE: Spans = np.zeros((0, 2), np.int64)
#: Of the hash that windows of characters are compared by; two that differ are equal in it once in 2**64.
_BASE = 0x9E3779B97F4A7C15
_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
#: Stands in no secret, and is no white space.
_BETWEEN = 1
#: What is text among unpacked bytes, and how much of it in a row.
_PRINTABLE = np.isin(np.arange(256), [*range(32, 127), *b"\t\n\r\f\v"])
_LEAST_TEXT = 8


class Redactor:
    """Puts stars in the place of ``secret`` and of any part of it from ``PART`` characters on.

    Found as it is, in other case, broken by white space, escaped (JSON, URLs, HTML), in hexadecimal or base64, as
    in a Basic header or behind other bytes, and in these upon each other. None, or a placeholder: nothing is hidden.
    The time that it takes is in proportion to the text, whatever that is: servers may send anything.
    """

    def __init__(self, secret: str | None) -> None:
        self._secret = secret if secret is not None and len(secret) >= SHORTEST else None
        forms = [_fold(form) for form in (self._secret, _undone(self._secret)[0])] if self._secret else []
        #: By the length of the parts: their hashes.
        self._parts: dict[int, Hashes] = {}
        for form in forms:
            if size := min(PART, len(form)):
                found = _hashes(form, size)
                self._parts[size] = np.union1d(self._parts.get(size, found), found)

    def __call__(self, text: str) -> str:
        """``text`` without the secret. Of text that was cut a shorter part may be left: redact before cutting."""
        if not self._secret:
            return text
        text = text.replace(self._secret, _STARS)
        kept, at = [], 0
        for start, end in _merged(self._spans(text, _DEPTH)).tolist():
            kept += [text[at:start], _STARS]
            at = end
        return "".join([*kept, text[at:]])

    def _spans(self, text: str, depth: int) -> Spans:
        """Where in ``text`` parts of the secret stand, in no order."""
        plain, steps = _undone(text)
        spans = _merged(np.concatenate([self._found(plain), *self._packed(plain, depth)]))
        for step in reversed(steps):
            spans = step.back(spans)
        return np.concatenate([spans, self._found(text)]) if steps else spans

    def _found(self, text: str) -> Spans:
        folded = _fold(text)
        found = [_NOWHERE]
        for size, parts in self._parts.items():
            at = np.flatnonzero(_among(_hashes(folded, size), parts))
            found.append(_merged(np.stack([at, at + size], 1)))
        return np.concatenate(found)

    def _packed(self, text: str, depth: int) -> Iterator[Spans]:
        for code in (_HEX, _BASE64) if depth else ():
            inner, starts, ends = code.unpacked(text)
            if inner:
                spans = _merged(self._spans(inner, depth - 1))
                yield np.stack([starts[spans[:, 0]], ends[spans[:, 1] - 1]], 1)


def _hashes(text: str, size: int) -> Hashes:
    """A number for each window of ``size`` characters."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)

    def windows(size: int) -> Hashes:
        if size == 1:
            return codes
        half = windows(size // 2)
        factor = np.uint64(pow(_BASE, size // 2, 1 << 64))
        whole = half[: -(size // 2)] * factor + half[size // 2 :]
        return whole[:-1] * np.uint64(_BASE) + codes[size - 1 :] if size % 2 else whole

    return windows(size) if len(codes) >= size else codes[:0]


def _among(hashes: Hashes, wanted: Hashes) -> Mask:
    """Which of ``hashes`` are ``wanted`` (sorted): those whose first bits are, few as a rule, are looked up."""
    first = np.zeros(1 << 16, bool)
    first[wanted >> np.uint64(48)] = True
    found: Mask = first[hashes >> np.uint64(48)]
    at = np.flatnonzero(found)
    place = np.searchsorted(wanted, hashes[at])
    found[at] = wanted[np.minimum(place, len(wanted) - 1)] == hashes[at]
    return found


class _Code(NamedTuple):
    """Bytes as text: ``unit`` digits of ``bits`` bits are some bytes; fewer than ``least`` digits hold no part."""

    digits: str
    bits: int
    unit: int
    least: int

    def unpacked(self, text: str) -> tuple[str, Array, Array]:
        """Whatever text may be packed in ``text``, and for each of its characters where in ``text`` it begins and ends.

        Words before it, run together with it, shift its digits: every shift is tried. ``_BETWEEN`` stands where one
        piece ends.
        """
        table = np.full(256, 255, np.uint8)
        for value, digits in enumerate(self.digits.split()):
            table[list(digits.encode())] = value
        values = table[np.frombuffer(text.encode("latin-1", "replace"), np.uint8)]
        starts, stops = _runs(values < 255, self.least)
        if not len(starts):
            return "", starts, stops
        parts = [self._pieces(values, starts + shift, stops) for shift in range(self.unit)]
        inner, begins, ends = zip(*parts, strict=True)
        return np.concatenate(inner).tobytes().decode("ascii"), np.concatenate(begins), np.concatenate(ends)

    def _pieces(self, values: Bytes, starts: Array, stops: Array) -> tuple[Bytes, Array, Array]:
        """What the digits from ``starts`` to ``stops`` say: characters, where they begin, where they end."""
        counts = np.maximum(stops - starts, 0) // self.unit + 1  # so there is always a byte too many, which parts runs
        at = np.repeat(starts - self.unit * (np.cumsum(counts) - counts), counts) + self.unit * np.arange(counts.sum())
        stop = np.repeat(stops, counts)
        number = np.zeros(len(at), np.uint32)
        for digit in range(self.unit):
            number = number << np.uint32(self.bits) | values[np.minimum(at + digit, len(values) - 1)]
        size = self.unit * self.bits // 8
        found = np.full((len(at), size), _BETWEEN, np.uint8)
        for byte in range(size):
            whole = at + -(-8 * (byte + 1) // self.bits) <= stop
            found[whole, byte] = (number[whole] >> np.uint32(8 * (size - 1 - byte))) & 255
        flat = np.append(found, np.uint8(_BETWEEN))
        flat[~_PRINTABLE[flat]] = _BETWEEN
        first, last = _runs(_PRINTABLE[flat], _LEAST_TEXT)
        kept = _ranges(first, last + 1)
        group, place = at[np.minimum(kept // size, len(at) - 1)], kept % size
        return flat[kept], group + 8 * place // self.bits, group - (-8 * (place + 1) // self.bits)


_HEX = _Code("0 1 2 3 4 5 6 7 8 9 aA bB cC dD eE fF", 4, 2, 16)
_BASE64 = _Code(" ".join([*string.ascii_uppercase, *string.ascii_lowercase, *string.digits, "+-", "/_"]), 6, 4, 11)


def _runs(mask: Mask, least: int) -> tuple[Array, Array]:
    """Where ``mask`` is true at least so many times in a row: begins and ends."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    starts, stops = edges[::2], edges[1::2]
    return starts[stops - starts >= least], stops[stops - starts >= least]


def _ranges(starts: Array, stops: Array) -> Array:
    """All numbers from each start to its stop."""
    counts = stops - starts
    return np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())


class _Undone:
    """``text`` is another text without white space, or one layer of escapes; it tells where a part of it was.

    ``what``: where that is; split by it, texts are put together at the speed of C.
    """

    def __init__(self, other: str, what: re.Pattern[str]) -> None:
        self._other, self._what = other, what
        parts = what.split(other)
        parts[1::2] = map(_meant, parts[1::2])
        self.text = "".join(parts)
        self.changed = self.text != other

    @cached_property
    def _places(self) -> tuple[Array, Array, Array]:
        """Of each place that was replaced: its ends in the other text, its end in this one."""
        parts = self._what.split(self._other)
        sizes = np.fromiter(map(len, parts), np.int64)
        meant = np.fromiter(map(len, map(_meant, parts[1::2])), np.int64)
        ends = np.cumsum(sizes)[1::2]
        return ends - sizes[1::2], ends, ends + np.cumsum(meant - sizes[1::2])

    def back(self, spans: Spans) -> Spans:
        """Where in the other text that was which stands at ``spans`` in this one."""
        if not len(spans):
            return spans
        starts, ends, _ = self._places
        start, last = self._start(spans[:, 0]), self._start(spans[:, 1] - 1)
        # The last character may be what a place stood for, or a part of it: then all of that place is meant.
        place = np.minimum(np.searchsorted(starts, last), len(starts) - 1)
        return np.stack([start, np.where(starts[place] == last, ends[place], last + 1)], 1)

    def _start(self, at: Array) -> Array:
        """Where the characters ``text[at]`` began in the other text."""
        _, ends, here = self._places
        place = np.searchsorted(here, at, side="right") - 1
        return np.where(place < 0, at, ends[place] + at - here[place])


def _undone(text: str) -> tuple[str, list[_Undone]]:
    """``text`` without escapes and white space, and the steps to there."""
    steps: list[_Undone] = []
    for _ in range(_PASSES):
        steps.append(_Undone(text, _BLANK))
        steps.append(_Undone(steps[-1].text, _ESCAPED))
        text = steps[-1].text
        if text == steps[-2].text:
            break
    return text, [step for step in steps if step.changed]


@lru_cache(1 << 16)
def _meant(escape: str) -> str:
    """What an escape stands for, itself where it is none; white space stands for nothing."""
    match = _ESCAPE.fullmatch(escape)
    if match and (code := match["json"] or match["byte"] or match["url"]):
        return chr(int(code, 16))
    if match and (name := match["html"]):
        meant = html.unescape(f"&{name}")
        return escape if meant.startswith("&") and len(meant) > 1 else meant
    return ""


def _fold(text: str) -> str:
    """``text`` in lower case, as long as it was."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text.translate(_ASCII_LOWER)


def _merged(spans: Spans) -> Spans:
    """The same places in order, each once, those that touch as one."""
    if not len(spans):
        return spans
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    ends = np.maximum.accumulate(spans[:, 1])
    first = np.flatnonzero(np.append(True, spans[1:, 0] > ends[:-1]))
    return np.stack([spans[first, 0], ends[np.append(first[1:], len(ends)) - 1]], 1)

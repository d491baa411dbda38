"""A secret taken out of text, in whatever form it stands there."""

from __future__ import annotations

import base64
import html
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property

#: Shorter words are placeholders (EMPTY, none, x), which local servers want as keys; and they occur in any text.
SHORTEST = 8
#: So many characters of a secret, one after the other, are a part of it that is hidden too. Fewer may be a word of it,
#: and servers repeat a few at the beginning and the end to say which key they mean.
PART = 12
_STARS = "***"
#: How often escapes are undone, and what was packed in base64 or hexadecimal is unpacked.
_PASSES, _DEPTH = 12, 3
#: What wrapping puts in between, also within an escape: so this goes first.
_BLANK = re.compile(r"(?<!\\)\\++[nrt]|[\s\0\xad\u200b-\u200d\u2060\ufeff]+")
#: JSON's escapes, those of URLs and of HTML, each at any depth.
_ESCAPE = re.compile(
    r"""\\+(?:u(?P<json>[0-9a-fA-F]{4})|x(?P<byte>[0-9a-fA-F]{2})|)
    | %(?:25)*(?P<url>[0-9a-fA-F]{2})
    | &(?:amp;)*(?P<html>\#[0-9]{1,7};?|\#[xX][0-9a-fA-F]{1,6};?|[A-Za-z][A-Za-z0-9]{1,31};)
    """,
    re.VERBOSE,
)
_BASE64, _HEX = re.compile(r"[A-Za-z0-9+/_-]{11,}"), re.compile(r"[0-9a-fA-F]{16,}")
_PRINTABLE = re.compile(rb"[\s -~]{8,}")
#: Stands in no secret, and is no white space.
_BETWEEN = "\x01"
_STANDARD = str.maketrans("-_", "+/")

Span = tuple[int, int]


class Redactor:
    """Puts stars in the place of ``secret`` and of any part of it from ``PART`` characters on.

    Found as it is, in other case, broken by white space, escaped (JSON, URLs, HTML), in hexadecimal or base64, as
    in a Basic header or behind other bytes, and in these upon each other. None, or a placeholder: nothing is hidden.
    """

    def __init__(self, secret: str | None) -> None:
        self._secret = secret if secret is not None and len(secret) >= SHORTEST else None
        forms = [_fold(form) for form in (self._secret, _undone(self._secret)[0])] if self._secret else []
        self._parts = {form[at : at + PART] for form in forms for at in range(max(1, len(form) - PART + 1))}

    def __call__(self, text: str) -> str:
        """``text`` without the secret. Of text that was cut a shorter part may be left: redact before cutting."""
        if not self._secret:
            return text
        text = text.replace(self._secret, _STARS)
        kept, at = [], 0
        for start, end in _merged(self._spans(text, _DEPTH)):
            kept += [text[at:start], _STARS]
            at = end
        return "".join([*kept, text[at:]])

    def _spans(self, text: str, depth: int) -> Iterator[Span]:
        """Where in ``text`` parts of the secret stand, in no order."""
        yield from self._found(text)
        plain, steps = _undone(text)
        for start, end in _merged([*self._found(plain), *self._packed(plain, depth)]):
            for step in reversed(steps):
                start, end = step.start(start), step.end(end)
            yield start, end

    def _found(self, text: str) -> Iterator[Span]:
        folded = _fold(text)
        for part in self._parts:
            at = folded.find(part)
            while at >= 0:
                yield at, at + len(part)
                at = folded.find(part, at + 1)

    def _packed(self, text: str, depth: int) -> Iterator[Span]:
        # All pieces at once, as there may be a great many: each with the place that it has among the others.
        pieces, places, size = list[tuple[int, float, int, str]](), list[int](), 0
        for begin, digits, packed in _unpacked(text) if depth else ():
            for run in _PRINTABLE.finditer(packed):
                pieces.append((begin, digits, run.start(), run[0].decode("ascii")))
                places.append(size)
                size += len(run[0]) + len(_BETWEEN)
        whole = _BETWEEN.join(piece for *_, piece in pieces)
        for start, end in _merged(self._spans(whole, depth - 1)) if pieces else ():
            number = bisect_right(places, start) - 1
            begin, digits, at, _ = pieces[number]
            first, last = at + start - places[number], at + end - places[number]
            yield begin + int(first * digits), begin - int(-last * digits // 1)


def _unpacked(text: str) -> Iterator[tuple[int, float, bytes]]:
    """Whatever may stand in ``text`` in base64 or hexadecimal: where, in how many digits a byte, and the bytes.

    Words before it, run together with it, shift its digits: every shift is tried.
    """
    for run in _HEX.finditer(text):
        for shift in range(2):
            digits = run[0][shift:]
            yield run.start() + shift, 2, bytes.fromhex(digits[: len(digits) // 2 * 2])
    for run in _BASE64.finditer(text):
        for shift in range(4):
            digits = run[0][shift:].translate(_STANDARD)
            digits = digits[: len(digits) - (len(digits) % 4 == 1)]
            yield run.start() + shift, 4 / 3, base64.b64decode(digits + "=" * (-len(digits) % 4))


class _Undone:
    """``text`` is another text without white space, or one layer of escapes; it tells where a part of it was."""

    def __init__(self, other: str, what: re.Pattern[str]) -> None:
        self._other, self._what = other, what
        self.text = what.sub("" if what is _BLANK else _meant, other)
        self.changed = self.text != other

    @cached_property
    def _places(self) -> tuple[list[int], list[int], list[int]]:
        """Of each place that was replaced: its ends in the other text, its end in this one."""
        starts, ends, here, shift = [], [], [], 0
        for match in self._what.finditer(self._other):
            shift += len(_meant(match)) - len(match[0])
            starts.append(match.start())
            ends.append(match.end())
            here.append(match.end() + shift)
        return starts, ends, here

    def start(self, at: int) -> int:
        """Where the character ``text[at]`` began in the other text."""
        _, ends, here = self._places
        place = bisect_right(here, at) - 1
        return at if place < 0 else ends[place] + at - here[place]

    def end(self, at: int) -> int:
        """Where the character before ``text[at]`` ended in the other text."""
        starts, ends, here = self._places
        start, place = self.start(at - 1), bisect_right(here, at - 1)
        return ends[place] if place < len(starts) and starts[place] == start else start + 1


def _undone(text: str) -> tuple[str, list[_Undone]]:
    """``text`` without escapes and white space, and the steps to there."""
    steps: list[_Undone] = []
    for _ in range(_PASSES):
        steps.append(_Undone(text, _BLANK))
        steps.append(_Undone(steps[-1].text, _ESCAPE))
        text = steps[-1].text
        if text == steps[-2].text:
            break
    return text, [step for step in steps if step.changed]


def _meant(match: re.Match[str]) -> str:
    """What an escape stands for; itself where it is none."""
    if match.re is _BLANK:
        return ""
    if code := match["json"] or match["byte"] or match["url"]:
        return chr(int(code, 16))
    if name := match["html"]:
        meant = html.unescape(f"&{name}")
        return match[0] if meant.startswith("&") and len(meant) > 1 else meant
    return ""


def _fold(text: str) -> str:
    """``text`` in lower case, as long as it was."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c.lower() if c.isascii() else c for c in text)


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """The same places in order, each once, those that touch as one."""
    start = end = -1
    for first, last in sorted(spans):
        if first > end:
            if end > 0:
                yield start, end
            start = first
        end = max(end, last)
    if end > 0:
        yield start, end

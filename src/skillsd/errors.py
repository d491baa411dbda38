"""The one error type that users see: a line that says what is wrong and what to change."""

from __future__ import annotations

import re
import reprlib

#: Characters of a message, and of a value of somebody else's that is repeated in one.
LONGEST, LONGEST_VALUE = 480, 80
#: What a terminal would obey: escape sequences with their arguments.
_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class SkillSDError(Exception):
    """Bad input or a failed run, told in one line. The CLI prints it and exits with 1.

    Whatever the message was made of, it is one printable line of at most ``LONGEST`` characters.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message), LONGEST))


class UsageError(SkillSDError):
    """A wrong option, preset or path. The CLI prints it and exits with 2."""


def one_line(text: str, limit: int = 200) -> str:
    """``text`` without escape sequences and control characters, single-spaced; a long one loses its middle."""
    if len(text) > 20 * limit:  # before the work of cleaning it
        text = f"{text[: 10 * limit]} {text[-10 * limit :]}"
    plain = "".join(c if c.isprintable() else " " for c in _ESCAPES.sub(" ", text))
    plain = " ".join(plain.split())
    if len(plain) <= limit:
        return plain
    head = (limit - 3) * 2 // 3
    return f"{plain[:head]}...{plain[len(plain) - (limit - 3 - head) :]}"


def reason(error: BaseException, limit: int = 200) -> str:
    """What somebody else's code raised, in one line. Our own errors speak for themselves."""
    name = one_line(type(error).__name__, LONGEST_VALUE)
    try:
        text = one_line(str(error), limit)
    except BaseException:  # its __str__ is somebody else's too
        return f"{name}, which cannot be told"
    if isinstance(error, SkillSDError):
        return text
    return f"{name}: {text}" if text else name


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = LONGEST_VALUE
        self.maxlevel = 3

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write very long ones."""
        return repr(x) if x.bit_length() < 256 else f"a number of {x.bit_length()} bits"


_REPR = _Shown()


def shown(value: object, limit: int = LONGEST_VALUE) -> str:
    """``repr(value)`` for a message: one line, short, the same in every process, whatever the value is."""
    try:
        text = _REPR.repr(value)
    except BaseException:  # a __repr__ may raise anything
        text = f"<{type(value).__name__}>"
    return one_line(_ADDRESS.sub("", text), limit)

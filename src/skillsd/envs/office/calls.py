"""What the agent reads and how its answer is understood."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from skillsd.envs.office.tasks import ask
from skillsd.envs.office.world import TOOLS, call

#: Characters of a call that are looked at.
LONGEST = 400

_TOOLS = "\n".join(f"{tool.name}: {tool.operation} ({' and '.join(tool.slots)})" for tool in TOOLS.values())
PROMPT = f"""\
You work in an office and use its tools by calls, one call a message, in triple backticks, such as
```lamp.login(name="max moser")``` and, the next time, ```lamp.dim(room="hall")```
The next message is the answer. Log in to a tool before you use it. At the end, say that you are done: office.done()
{_TOOLS}
Every office has customs of its own: what arguments are called, how values are written, by what one logs in, what \
comes before and after. A tool that is called wrongly says what it wants.

Your """

#: For a model that was made for these tasks, and knows the rest.
SHORT = "You work in an office that has its own customs.\nYour "

_BLOCK = re.compile(r"```(?:\w*\n)?(.*?)(?:```|$)", re.DOTALL)
_START = re.compile(r"[a-z_]+\.[a-z_]+\(")


@dataclass(frozen=True)
class Call:
    """``tool.operation(arguments)``; ``more``: the message held other calls behind it."""

    tool: str
    operation: str
    arguments: Mapping[str, str]
    more: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return call(self.tool, self.operation, self.arguments)


def prompt(tool: str, values: Mapping[str, str], identity: Mapping[str, str], wording: int, short: bool = False) -> str:
    """The first message of a task."""
    you = ", ".join(f"{key} is {value}" for key, value in identity.items())
    return f"{SHORT if short else PROMPT}{you}.\n{ask(tool, values, wording)}."


def parse_call(message: str) -> Call | None:
    """The first call in the message's first block, or in the message if it has no block; None without one.

    Nothing is evaluated: arguments are texts and numbers by name, as written.
    """
    block = _BLOCK.search(message)
    text = block[1] if block else message
    start = _START.search(text)
    if not start:
        return None
    text = text[start.start() :][:LONGEST]
    for end in (place + 1 for place, letter in enumerate(text) if letter == ")"):
        try:
            node = ast.parse(text[:end], mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return _read(node, _START.search(text, end) is not None)
    return None


def _read(node: ast.expr, more: bool) -> Call | None:
    match node:
        case ast.Call(ast.Attribute(ast.Name(tool), operation), [], keywords):
            arguments: dict[str, str] = {}
            for keyword in keywords:
                if keyword.arg is None or not isinstance(keyword.value, ast.Constant):
                    return None
                arguments[keyword.arg] = str(keyword.value.value)
            return Call(tool, operation, arguments, more)
    return None

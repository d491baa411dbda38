"""What the commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from skillsd.errors import UsageError

console = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]

Set = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one setting; repeatable.")]


def pair(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as in TOML. Raises :class:`UsageError`."""
    from skillsd.config import toml_value

    name, separator, raw = text.partition("=")
    if not separator or not name:
        raise UsageError(f"option {text!r} is not of the form name=value")
    return name, toml_value(raw)

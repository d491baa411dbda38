"""What the commands share."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from skillsd.errors import UsageError, shown
from skillsd.system.terminal import Screen

#: Beyond it the system's timers end.
MOST_SECONDS = 1e8

console = Screen(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def finite(value: float) -> float:
    """For options: a number that is none, or longer than the system's timers, is a mistake."""
    if not abs(value) <= MOST_SECONDS:
        raise typer.BadParameter(f"{value} is not a number up to {MOST_SECONDS:g}")
    return value


def path(text: str | Path) -> Path:
    """For options: the working folder is ``.``; an empty text is a variable that was not set."""
    if not str(text).strip():
        raise typer.BadParameter("it is empty: name a path")
    return Path(text)


def output_file(file: Path) -> None:
    """Raises :class:`UsageError` where no file can be written, before the work whose result it would take."""
    try:
        parent = next(folder for folder in file.absolute().parents if folder.exists())
        if file.is_dir():
            raise UsageError(f"{file} is a folder: name a file")
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise UsageError(f"{file}: cannot be written ({parent} is no folder that you may write to)")
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be written ({error})") from None


Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override one setting; repeatable, of two for one setting the last."),
]


def warning(text: str) -> None:
    """Tell something that somebody should know, on standard error."""
    console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)


def options_of(texts: Sequence[str] | None) -> dict[str, Any]:
    """Each NAME=VALUE, the value as in TOML. Raises :class:`UsageError`."""
    from skillsd.config.overrides import toml_value

    found = {}
    for text in texts or ():
        name, separator, raw = text.partition("=")
        if not separator or not name.strip().isidentifier():
            raise UsageError(f"option {shown(text)} is not of the form name=value")
        found[name.strip()] = toml_value(raw)
    return found


@contextmanager
def foreign_prints() -> Iterator[None]:
    """Inside, whatever is printed goes to standard error, also by C code and by processes that are started.

    Environments may print, and standard output is for our result.
    """
    ours, fresh = sys.stdout, os.open(os.devnull, os.O_WRONLY)
    ours.flush()
    kept = os.dup(1 if _is_open(1) else fresh)
    aside = os.dup(2 if _is_open(2) else fresh)  # stays open: a thread of an environment may print later
    os.close(fresh)
    os.dup2(aside, 1)
    sys.stdout = open(aside, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    try:
        yield
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        with suppress(Exception):
            ctypes.CDLL(None).fflush(None)  # what C code has printed, and not written yet
        os.dup2(kept, 1)
        os.close(kept)
        sys.stdout = ours


def _is_open(descriptor: int) -> bool:
    with suppress(OSError):
        os.fstat(descriptor)
        return True
    return False

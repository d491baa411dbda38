"""Commands about task sets."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from skillsd.cli.common import Json, console, pair

env_app = typer.Typer(no_args_is_help=True, help="Look at task sets.")


@env_app.callback()
def _group() -> None:
    """A group, also while it has one command."""


@env_app.command("check")
def env_check(
    name: Annotated[str, typer.Argument(help="Task set: a known name or module:attribute.")],
    option: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of it; repeatable.")] = None,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds that one call may take.")] = 10.0,
    as_json: Json = False,
) -> None:
    """Exercise a task set and tell what is wrong with it, a line each; exits with 1 if training would suffer.

    Example: skillsd env check doors:Doors
    """
    from skillsd.envs.check import check

    found = check(name, dict(pair(text) for text in option or ()), timeout)
    errors = sum(finding.level == "error" for finding in found)
    if as_json:
        print(json.dumps({"ok": not errors, "findings": [asdict(finding) for finding in found]}))
    else:
        for finding in found:
            print(f"{finding.level:8}{finding.check}: {finding.message}")
        console.print(f"{name}: {errors} errors, {len(found) - errors} warnings", markup=False)
    if errors:
        raise typer.Exit(1)

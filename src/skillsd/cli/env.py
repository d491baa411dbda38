"""Commands about task sets."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from skillsd.cli.common import Json, console, finite, foreign_prints, options_of
from skillsd.system.terminal import printable

env_app = typer.Typer(no_args_is_help=True, help="Look at task sets.")


@env_app.callback()
def _group() -> None:
    """A group, also while it has one command."""


@env_app.command("check")
def env_check(
    name: Annotated[str, typer.Argument(help="Task set: a known name or module:attribute.")],
    option: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of it; repeatable.")] = None,
    timeout: Annotated[float, typer.Option(min=0.01, callback=finite, help="Seconds that one call may take.")] = 10.0,
    as_json: Json = False,
) -> None:
    """Exercise a task set and tell what is wrong with it, a line each; exits with 1 if training would suffer.

    Example: skillsd env check doors:Doors
    """
    from skillsd.envs.check import examine

    with foreign_prints():
        examined = examine(name, options_of(option), timeout)
    found = examined.findings
    errors = sum(finding.level == "error" for finding in found)
    if as_json:
        print(json.dumps({"ok": not errors, **asdict(examined)}))
    else:
        for finding in found:
            print(f"{finding.level:8}{finding.check}: {printable(finding.message, lines=False)}")
        for note in examined.notes:
            print(f"{'note':8}{printable(note, lines=False)}")
        console.print(f"{name}: {errors} errors, {len(found) - errors} warnings", markup=False)
    if errors:
        raise typer.Exit(1)


def play(
    env: Annotated[str, typer.Argument(help="Task set to play by hand.")],
    split: Annotated[str, typer.Option(help="Split to take levels from.")] = "test",
    index: Annotated[int, typer.Option(min=0, help="Number of the first level.")] = 0,
    env_option: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of the task set.")] = None,
) -> None:
    """Play at the keyboard what the agent plays.

    Example: skillsd play sokoban --env-option variant=one_box
    """
    from skillsd.envs import make_taskset
    from skillsd.envs.play import play as run

    run(make_taskset(env, **options_of(env_option)), split, index)

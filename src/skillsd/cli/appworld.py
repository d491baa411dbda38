"""``skillsd appworld``: the engine, its data, and our task pack."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from skillsd.cli.common import Json, console
from skillsd.system.terminal import Screen, printable

appworld_app = typer.Typer(no_args_is_help=True, help="AppWorld's engine and data (docs/appworld.md).")


@appworld_app.command()
def setup(
    data: Annotated[bool, typer.Option("--data/--no-data", help="Also try to fetch the official data.")] = True,
    python: Annotated[str | None, typer.Option(help="A Python 3.11 or 3.12 for the engine; default: this one.")] = None,
) -> None:
    """Install the engine into an environment of its own, build our task pack, fetch the official data.

    What is there already is kept. Everything goes to $SKILLSD_APPWORLD_HOME, or the user's cache.

    Example: skillsd appworld setup --no-data
    """
    from skillsd.envs.appworld.install import setup as run

    with console.status("setting up AppWorld") as status:

        def tell(text: str) -> None:
            status.update(Text(printable(text)))
            console.print(text, markup=False, highlight=False)

        run(tell, data=data, python=python)


@appworld_app.command()
def check(as_json: Json = False) -> None:
    """What of it is there, and what confines an agent's code on this machine.

    Example: skillsd appworld check
    """
    from skillsd.envs.appworld.status import state

    found = state(start=True)
    if as_json:
        print(json.dumps(found))
    else:
        table = Table(box=None, show_header=False)
        for name, value in found.items():
            table.add_row(name, str(value))
        Screen().print(table)
    if not found["ok"]:
        raise typer.Exit(1)

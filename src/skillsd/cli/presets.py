"""``skillsd presets``."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from skillsd.cli.common import Json
from skillsd.system.terminal import Screen


def presets(
    show: Annotated[str | None, typer.Option(help="Print every setting of this preset as TOML.")] = None,
    as_json: Json = False,
) -> None:
    """List the presets and the methods.

    Example: skillsd presets --show sokoban
    """
    import tomli_w

    from skillsd.config import load_config
    from skillsd.config import presets as all_presets
    from skillsd.methods import METHODS

    if show is not None:
        tree = load_config(show).model_dump(exclude_none=True)
        print(json.dumps(tree) if as_json else tomli_w.dumps(tree), end="\n" if as_json else "")
    elif as_json:
        print(json.dumps({"presets": all_presets(), "methods": {k: m.summary for k, m in METHODS.items()}}))
    else:
        for title, rows in (("preset", all_presets()), ("method", {k: m.summary for k, m in METHODS.items()})):
            table = Table(title, "what it is", box=None, title_justify="left")
            for name, text in rows.items():
                table.add_row(name, text)
            Screen().print(table)

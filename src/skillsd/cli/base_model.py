"""``skillsd base-model``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from skillsd.cli.common import console, path

base_model_app = typer.Typer(no_args_is_help=True, help="The embedded base model and its recipe.")


@base_model_app.command("build")
def base_model_build(
    out: Annotated[Path, typer.Option(help="Folder to write the model to.", parser=path)] = Path("base-model"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the data and the weights.")] = 0,
    episodes: Annotated[int | None, typer.Option(min=32, help="Training episodes; fewer is a quick try.")] = None,
    of: Annotated[Literal["sokoban", "plans", "office", "appworld"], typer.Option(help="Which one.")] = "sokoban",
) -> None:
    """Train an embedded base model from nothing (some 17 minutes on 2 idle cores).

    Example: skillsd base-model build --out base-model

    --of plans makes Sokoban's plan reader, which has no solver in it (half an hour), --of office the one for the task
    set office (half an hour), --of appworld the one for AppWorld's practice tasks (needs `skillsd appworld setup`).
    """
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from skillsd.base_model import build, clerk_build, plans, practice_build
    from skillsd.envs.sokoban.game import room_hash
    from skillsd.envs.sokoban.taskset import held_out_hashes

    size: dict[str, Any] = {"seed": seed, **({"episodes": episodes} if episodes else {})}
    with Bar(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("making data", total=None)

        def report(done: int, total: int, loss: float, seconds: float) -> None:
            bar.update(task, completed=done, total=total, description=f"loss {loss:.3f}")

        if of == "appworld":
            practice_build.build(out, practice_build.Recipe(**size), *practice_build.gather(), report)
        elif of == "office":
            clerk_build.build(out, clerk_build.Recipe(**size), report)
        elif of == "plans":
            build.build(out, plans.Recipe(**size), held_out_hashes(room_hash), report)
        else:
            build.build(out, build.Recipe(**size), held_out_hashes(), report)
    print(out)

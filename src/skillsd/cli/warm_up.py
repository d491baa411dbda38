"""``skillsd warm-up``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from skillsd.cli.common import Json, Set, console, finite, foreign_prints, path
from skillsd.system.interrupt import exit_code


def warm_up(
    preset: Annotated[str, typer.Argument(help="A preset or a TOML file: its model, env and seed count.")],
    out: Annotated[
        Path,
        typer.Option(help="Folder to write the model to; give it to a run as model.path.", parser=path),
    ],
    set_: Set = None,
    split: Annotated[str | None, typer.Option(help="Tasks to learn from; default: the task set's choice.")] = None,
    demonstrations: Annotated[int, typer.Option(min=1, help="At most so many.")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Demonstrations a step.")] = 16,
    lr: Annotated[float, typer.Option(callback=finite, help="Learning rate.")] = 1e-4,
    until: Annotated[
        float, typer.Option(callback=finite, help="Stop at this greedy accuracy on training tasks.")
    ] = 0.15,
    measure_every: Annotated[int, typer.Option(min=1, help="Steps between measurements.")] = 10,
    as_json: Json = False,
) -> None:
    """Imitate demonstrations until the model earns its first rewards.

    Example: skillsd warm-up sokoban-demo --set model.path=smollm2 --until 0.1 --out warm
    """
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from transformers.utils.logging import disable_progress_bar

    from skillsd.config import load_config
    from skillsd.config.overrides import only
    from skillsd.training.warm_up import USED
    from skillsd.training.warm_up import warm_up as run

    only(set_ or (), USED, "warm-up", {"optim.lr": "--lr", "trainer.iterations": "--demonstrations"})
    config = load_config(preset, set_ or ())
    disable_progress_bar()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with foreign_prints(), Bar(*columns, console=console) as bar:
        task = bar.add_task("loading", total=None)

        def report(step: int, steps: int, loss: float, accuracy: float | None) -> None:
            bar.update(task, total=steps, completed=step, description=f"loss {loss:.3f}")
            if accuracy is not None:
                bar.console.print(f"{step * batch:6d} demonstrations: loss {loss:.3f}, greedy accuracy {accuracy:.1%}")

        result = run(config, out, split=split, demonstrations=demonstrations, batch=batch, lr=lr, until=until,
                     measure_every=measure_every, report=report)  # fmt: skip
    print(json.dumps(asdict(result)) if as_json else out)
    if result.interrupted:
        raise typer.Exit(exit_code())

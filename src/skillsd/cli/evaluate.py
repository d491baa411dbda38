"""``skillsd evaluate`` and ``skillsd report``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from skillsd.cli.common import Json, console, foreign_prints, options_of, output_file, path, warning
from skillsd.cli.tables import results_table
from skillsd.system.terminal import Screen


def evaluate(
    model: Annotated[str, typer.Argument(help="A run, a checkpoint, a model folder or hub id, or `embedded`.")],
    env: Annotated[str | None, typer.Option(help="Task set; default: the run's own.")] = None,
    env_option: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of --env.")] = None,
    split: Annotated[str | None, typer.Option(help="Default: the test split.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N tasks.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="1: greedy; more: sampled, with pass@k.")] = 1,
    save: Annotated[
        Path | None,
        typer.Option(help="Also write the result, with per-task rows, to this file.", parser=path),
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate under the plain prompt.

    Example: skillsd evaluate runs/sokoban-demo --split test --json
    """
    from transformers.utils.logging import disable_progress_bar

    from skillsd.analysis.evaluate import evaluate as run

    disable_progress_bar()
    options = options_of(env_option) or None
    if save is not None:
        output_file(save)
    with foreign_prints(), console.status("evaluating") as status:
        result = run(
            model, env=env, env_options=options, split=split, limit=limit, samples=samples,
            on_turn=lambda done, total: status.update(f"evaluating: {done} of {total} episodes done"),
        )  # fmt: skip
    for reason, count in result.drop_reasons.items():
        console.print(
            f"{count} {'episode' if count == 1 else 'episodes'} dropped: {reason}", style="yellow", markup=False
        )
    if as_json:
        print(json.dumps(asdict(result)))
    else:
        Screen().print(results_table({model: result}))
    if save is not None:  # after it was shown, as it may fail
        result.save(save)


def report(run: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Write report.html anew from what is in a run's folder.

    Example: skillsd report runs/sokoban-demo
    """
    from skillsd.analysis.report import write_report

    with foreign_prints():
        page = write_report(run, warning)
    print(page)

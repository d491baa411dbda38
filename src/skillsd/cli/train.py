"""``skillsd train``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from skillsd.cli.common import Json, Set, console, foreign_prints, path, warning
from skillsd.cli.tables import numbers, results_table
from skillsd.errors import UsageError
from skillsd.system.interrupt import exit_code
from skillsd.system.terminal import Screen


def train(
    preset: Annotated[str, typer.Argument(help="A preset (see `skillsd presets`) or a TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/PRESET.", parser=path)] = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Train an agent.

    Example: skillsd train sokoban-demo --set method=grpo --set seed=1 --out runs/grpo-1
    """
    from skillsd.config import load_config
    from skillsd.runs.folder import RunDir

    out = out or Path("runs") / Path(preset).stem
    settings: str | Path = RunDir(out).config if resume else preset
    if resume and not Path(settings).is_file():
        raise UsageError(f"{out} holds no run to resume")
    if resume:
        RunDir(out).load_config()  # what is wrong with the file itself is told with its name
    config = load_config(settings, set_ or ())

    # Slow imports, after the settings are known to be good.
    from transformers.utils.logging import disable_progress_bar

    from skillsd.analysis.report import write_report
    from skillsd.runs.progress import Progress
    from skillsd.training.loop import train as run

    disable_progress_bar()  # ours is the one to look at
    main = os.environ.get("RANK", "0") == "0"  # of several processes, the one that reports
    where = out.absolute()  # an environment may change the working folder
    with foreign_prints():
        with Progress(console if main else Screen(quiet=True), config) as progress:
            result = run(config, where, resume=resume, listen=progress)
        if not main:
            raise typer.Exit(exit_code() if result.interrupted else 0)
        write_report(where, warning)
    if as_json:
        print(json.dumps({"out": str(out), "iterations": result.iterations, "interrupted": result.interrupted,
                          "before": numbers(result.before), "after": numbers(result.after)}))  # fmt: skip
    else:
        if result.before and result.after:
            console.print(results_table({"before": result.before, "after": result.after}))
        console.print(f"run     {out}\nreport  {out / 'report.html'}")
    if result.interrupted:
        console.print(f"stopped early; go on with: skillsd train {preset} --out {out} --resume", soft_wrap=True)
        raise typer.Exit(exit_code())

"""``skillsd compare``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from skillsd.cli.common import Json, console, foreign_prints, path
from skillsd.errors import UsageError
from skillsd.system.interrupt import exit_code
from skillsd.system.terminal import printable


def compare(
    file: Annotated[Path, typer.Argument(help="TOML file with rows and seeds (docs/compare.md).")],
    out: Annotated[
        Path,
        typer.Option(help="Folder of the comparison; finished cells in it are kept.", parser=path),
    ],
    jobs: Annotated[int | None, typer.Option(min=1, help="Cells at a time; default: one a GPU, or one a core.")] = None,
    keep_runs: Annotated[bool, typer.Option("--keep-runs", help="Keep checkpoints and trajectories.")] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing: report what is finished, also while another call runs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare methods over seeds; killed or extended, it goes on where it was.

    Example: skillsd compare comparisons/smoke.toml --out runs/smoke
    """
    import torch

    from skillsd.analysis.compare.live import Watcher
    from skillsd.analysis.compare.matrix import load_matrix
    from skillsd.analysis.compare.report import write
    from skillsd.analysis.compare.runner import Comparison

    matrix = load_matrix(file)
    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    jobs = jobs or gpus or cores
    with foreign_prints():
        comparison = Comparison(matrix, out, jobs=jobs, threads=max(1, cores // jobs), gpus=gpus, keep_runs=keep_runs)
    if report_only:
        cells = comparison.cells()
        if not cells:
            raise UsageError(f"{out}: no cell is finished")
        console.print(f"{len(cells)} of {len(comparison.progress)} cells are finished")
    else:
        with Watcher(console, comparison) as watch:
            cells = comparison.run(watch)
    primary = [(contrast.row, contrast.against, contrast.measure) for contrast in matrix.primary]
    summary = write(cells, out, baselines=matrix.baselines, splits=matrix.splits, primary=primary) if cells else {}
    if as_json:
        print(json.dumps(summary))
    elif cells:
        text = (out / "compare.md").read_text("utf-8")
        lines = [line for line in text.split("\n") if not line.startswith("![")]  # no images in a terminal
        print(printable("\n".join(lines)))
        console.print(f"page    {out / 'compare.html'}")
    failed = [p for p in comparison.progress if p.state == "failed"]
    for p in failed:
        console.print(f"failed  {p.spec.row}, seed {p.spec.seed}: {p.reason}", style="red", markup=False)
    if comparison.stopped:
        console.print("stopped early; the same command goes on")
        raise typer.Exit(exit_code())
    if failed:
        raise typer.Exit(1)

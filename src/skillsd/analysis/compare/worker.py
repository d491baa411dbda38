"""One cell in a process of its own: ``python -m skillsd.analysis.compare.worker FOLDER``, run by the comparison."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from skillsd.analysis.compare.cell import KEPT, Cell, Point, SplitResult, Status, save_cell
from skillsd.config import Config, ModelConfig, parse_config
from skillsd.config.idle import without_idle
from skillsd.envs import make_taskset
from skillsd.errors import SkillSDError
from skillsd.policy.loading import load_policy
from skillsd.rollouts.playing import evaluate_model
from skillsd.rollouts.results import EvalResult
from skillsd.runs import checkpoint
from skillsd.runs.folder import RunDir, versions
from skillsd.system.files import write_atomic
from skillsd.system.interrupt import at_once
from skillsd.training.loop import train

EXIT_INTERRUPTED = 130


def run_cell(folder: Path) -> int:
    """Train (or go on training) and evaluate the cell that ``folder``/spec.json describes."""
    spec = json.loads((folder / "spec.json").read_text("utf-8"))
    config = without_idle(parse_config(spec["config"]))  # rows share settings, of which each has its own use
    parent = os.getppid()

    def listen(kind: str, data: dict[str, Any]) -> None:
        if os.getppid() != parent:  # the comparison was killed: nobody waits for this cell
            raise KeyboardInterrupt
        if kind == "iteration":
            status = Status(iteration=data["iteration"], accuracy=data["accuracy"])
            write_atomic(folder / "status.json", status.model_dump_json().encode())

    run = RunDir(folder / "run")
    if spec["row"] != "base":
        # What ended before its first iteration did may have had other settings: it is started anew.
        if train(config, run.path, resume=run.begun, evaluate=False, listen=listen).interrupted:
            return EXIT_INTERRUPTED
        newest = checkpoint.latest(run)
        if newest is None:
            raise SkillSDError("the run ended without a checkpoint")
        config = config.model_copy(update={"model": ModelConfig(**{**config.model.model_dump(), "path": str(newest)})})
    metrics = _metrics(run, config)
    save_cell(
        Cell(
            row=spec["row"],
            seed=spec["seed"],
            method=config.method,
            overrides=spec["overrides"],
            after=_evaluate(config, spec["splits"]),
            curve=curve(metrics, config),
            episodes=sum(row["episodes"] for row in metrics),
            iterations=len(metrics),
            seconds=_seconds(metrics),
            versions=versions(),
            metrics=kept(metrics),
            machine=machine(),
        ),
        folder / "cell.json",
    )
    return 0


def _metrics(run: RunDir, config: Config) -> list[dict[str, Any]]:
    """Those of every iteration. Raises :class:`SkillSDError` where one is missing: a curve would not be the run's."""
    record = run.record()
    if not run.metrics.exists():
        return []  # the untrained model
    whole = [row["iteration"] for row in record.rows] == list(range(1, config.trainer.iterations + 1))
    lacking = [row for row in record.rows if type(row.get("episodes")) is not int or row.get("accuracy") is None]
    if not whole or lacking:
        reason = record.note if record.faults else "not a line for every iteration"
        raise SkillSDError(f"{run.metrics}: {reason}; delete {run.path} to run the cell anew")
    return record.rows


def _evaluate(config: Config, splits: list[str]) -> dict[str, SplitResult]:
    policy = load_policy(config.model)
    taskset = make_taskset(config.env.name, **config.env.options)
    return {s: _split(evaluate_model(policy.model, policy.chat, taskset, config, s)) for s in splits}


def _split(result: EvalResult) -> SplitResult:
    rows = result.per_task
    return SplitResult(
        task_ids=[row["task"] for row in rows],
        success=[int(row["successes"]) for row in rows],
        completion=[float(row["completion"]) for row in rows],
    )


def curve(metrics: list[dict[str, Any]], config: Config) -> list[Point]:
    """The learning curve that a run's metrics hold."""
    points, episodes = [], 0
    for row in metrics:
        episodes += row["episodes"]
        points.append(
            Point(
                iteration=row["iteration"],
                episodes=episodes,
                accuracy=row["accuracy"],
                eval_accuracy=row.get("eval_accuracy"),
                eval_completion=row.get("eval_completion"),
                teacher_accuracy=row.get("teacher_accuracy"),
            )
        )
    return points


def kept(metrics: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """What a cell keeps of a run's metrics, four digits of each; what no iteration measured is left out."""
    table = {name: [row.get(name) for row in metrics] for name in KEPT}
    rounded = {
        name: [None if value is None else float(f"{value:.4g}") for value in values] for name, values in table.items()
    }
    return {name: values for name, values in rounded.items() if any(value is not None for value in values)}


def machine() -> dict[str, str]:
    """The processor, how many threads torch used, and the commit of this code where it is a checkout."""
    model = next((line for line in _cpuinfo() if line.startswith("model name")), "").partition(":")[2].strip()
    found = {"cpu": model or platform.processor() or platform.machine(), "threads": str(torch.get_num_threads())}
    asked = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {**found, **({"commit": asked.stdout.strip()} if asked.returncode == 0 else {})}


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _seconds(metrics: list[dict[str, Any]]) -> dict[str, float]:
    """Total seconds by phase; "total" is the wall clock of all iterations."""
    total: dict[str, float] = {}
    for row in metrics:
        for key, value in row.items():
            if key == "seconds" or key.startswith("seconds_"):
                phase = key.removeprefix("seconds_") if key != "seconds" else "total"
                total[phase] = round(total.get(phase, 0.0) + (value or 0.0), 3)
    return total


def main() -> None:
    """Entry point: exits with 0, 1 (failed.txt says why) or 130 (interrupted)."""
    folder = Path(sys.argv[1])
    try:
        with at_once():
            sys.exit(run_cell(folder))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except (SkillSDError, OSError) as error:
        write_atomic(folder / "failed.txt", str(error).encode())
        sys.exit(1)


if __name__ == "__main__":
    main()

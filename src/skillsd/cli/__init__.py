"""The command line: thin. Parse, call, print; exit with 0 (fine), 1 (failed) or 2 (bad usage)."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from skillsd.cli.appworld import appworld_app
from skillsd.cli.common import Json, Set, console, pair
from skillsd.cli.env import env_app
from skillsd.cli.skills import explain, probe, skills_app
from skillsd.cli.warm_up import warm_up
from skillsd.errors import SkillSDError, UsageError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Skill-SD: train multi-turn LLM agents with skill-conditioned self-distillation.\n\n"
    "Example: skillsd train sokoban-demo --out runs/demo",
)
base_model_app = typer.Typer(no_args_is_help=True, help="The embedded base model and its recipe.")
app.add_typer(skills_app, name="skills")
app.add_typer(env_app, name="env")
app.add_typer(appworld_app, name="appworld")
app.add_typer(base_model_app, name="base-model")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"skillsd {version('skillsd')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def train(
    preset: Annotated[str, typer.Argument(help="A preset (see `skillsd presets`) or a TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/PRESET.")] = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Train an agent.

    Example: skillsd train sokoban-demo --set method=grpo --set seed=1 --out runs/grpo-1
    """
    from skillsd.config import load_config
    from skillsd.run_dir import RunDir

    out = out or Path("runs") / Path(preset).stem
    settings: str | Path = RunDir(out).config if resume else preset
    if resume and not Path(settings).is_file():
        raise UsageError(f"{out} holds no run to resume")
    config = load_config(settings, set_ or ())

    # Slow imports, after the settings are known to be good.
    from transformers.utils.logging import disable_progress_bar

    from skillsd.progress import Progress
    from skillsd.report import write_report
    from skillsd.training import train as run

    disable_progress_bar()  # ours is the one to look at
    main = os.environ.get("RANK", "0") == "0"  # of several processes, the one that reports
    with Progress(console if main else Console(quiet=True), config) as progress:
        result = run(config, out, resume=resume, listen=progress)
    if not main:
        raise typer.Exit(130 if result.interrupted else 0)
    page = write_report(out)
    if as_json:
        print(json.dumps({"out": str(out), "iterations": result.iterations, "interrupted": result.interrupted,
                          "before": _numbers(result.before), "after": _numbers(result.after)}))  # fmt: skip
    else:
        if result.before and result.after:
            console.print(results_table({"before": result.before, "after": result.after}))
        console.print(f"run     {out}\nreport  {page}")
    if result.interrupted:
        console.print(f"stopped early; go on with: skillsd train {preset} --out {out} --resume")
        raise typer.Exit(130)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A run, a checkpoint, a model folder or hub id, or `embedded`.")],
    env: Annotated[str | None, typer.Option(help="Task set; default: the run's own.")] = None,
    env_option: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of --env.")] = None,
    split: Annotated[str | None, typer.Option(help="Default: the test split.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N tasks.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="1: greedy; more: sampled, with pass@k.")] = 1,
    save: Annotated[Path | None, typer.Option(help="Also write the result, with per-task rows, to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Evaluate under the plain prompt.

    Example: skillsd evaluate runs/sokoban-demo --split test --json
    """
    from transformers.utils.logging import disable_progress_bar

    from skillsd.evaluation import evaluate as run

    disable_progress_bar()
    options = dict(pair(text) for text in env_option or ()) or None
    with console.status("evaluating") as status:
        result = run(
            model, env=env, env_options=options, split=split, limit=limit, samples=samples,
            on_turn=lambda done, total: status.update(f"evaluating: {done} of {total} episodes done"),
        )  # fmt: skip
    if save is not None:
        result.save(save)
    if as_json:
        print(json.dumps(asdict(result)))
    else:
        Console().print(results_table({model: result}))


@app.command()
def compare(
    file: Annotated[Path, typer.Argument(help="TOML file with rows and seeds (docs/compare.md).")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison; finished cells in it are kept.")],
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

    from skillsd.compare.live import Watcher
    from skillsd.compare.matrix import load_matrix
    from skillsd.compare.report import write
    from skillsd.compare.runner import Comparison

    matrix = load_matrix(file)
    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    jobs = jobs or gpus or cores
    comparison = Comparison(matrix, out, jobs=jobs, threads=max(1, cores // jobs), gpus=gpus, keep_runs=keep_runs)
    if report_only:
        cells = comparison.cells()
        if not cells:
            raise UsageError(f"{out}: no cell is finished")
        console.print(f"{len(cells)} of {len(comparison.progress)} cells are finished")
    else:
        with Watcher(console, comparison) as watch:
            cells = comparison.run(watch)
    summary = write(cells, out, baselines=matrix.baselines, splits=matrix.splits) if cells else {}
    if as_json:
        print(json.dumps(summary))
    elif cells:
        text = (out / "compare.md").read_text("utf-8")
        print("\n".join(line for line in text.splitlines() if not line.startswith("![")))  # no images in a terminal
        console.print(f"page    {out / 'compare.html'}")
    failed = [p for p in comparison.progress if p.state == "failed"]
    for p in failed:
        console.print(f"failed  {p.spec.row}, seed {p.spec.seed}: {p.reason}", style="red", markup=False)
    if comparison.stopped:
        console.print("stopped early; the same command goes on")
        raise typer.Exit(130)
    if failed:
        raise typer.Exit(1)


app.command("warm-up")(warm_up)
app.command()(probe)
app.command()(explain)


@app.command()
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
            Console().print(table)


@app.command()
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

    run(make_taskset(env, **dict(pair(text) for text in env_option or ())), split, index)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Write report.html anew from what is in a run's folder.

    Example: skillsd report runs/sokoban-demo
    """
    from skillsd.report import write_report

    print(write_report(run))


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(help="Also check this model's tokenizer and chat template.")] = "embedded",
    as_json: Json = False,
) -> None:
    """Check this machine and a model's chat template.

    Example: skillsd doctor ./my-model
    """
    from transformers.utils.logging import disable_progress_bar

    from skillsd.doctor import examine

    disable_progress_bar()
    findings = examine(model)
    if as_json:
        print(json.dumps(findings))
    else:
        table = Table(box=None, show_header=False)
        for name, value in findings.items():
            table.add_row(name, str(value))
        Console().print(table)
    if not findings["ok"]:
        raise typer.Exit(1)


@base_model_app.command("build")
def base_model_build(
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")] = Path("base-model"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the data and the weights.")] = 0,
    episodes: Annotated[int | None, typer.Option(min=32, help="Training episodes; fewer is a quick try.")] = None,
    of: Annotated[Literal["sokoban", "appworld"], typer.Option(help="Which one.")] = "sokoban",
) -> None:
    """Train an embedded base model from nothing (some 17 minutes on 2 idle cores).

    Example: skillsd base-model build --out base-model

    The one for AppWorld's practice tasks needs `skillsd appworld setup`; it is made by --of appworld.
    """
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from skillsd.base_model import build, practice_build
    from skillsd.envs.sokoban.taskset import held_out_hashes

    size: dict[str, Any] = {"seed": seed, **({"episodes": episodes} if episodes else {})}
    with Bar(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("making data", total=None)

        def report(done: int, total: int, loss: float, seconds: float) -> None:
            bar.update(task, completed=done, total=total, description=f"loss {loss:.3f}")

        if of == "appworld":
            practice_build.build(out, practice_build.Recipe(**size), *practice_build.gather(), report)
        else:
            build.build(out, build.Recipe(**size), held_out_hashes(), report)
    print(out)


def results_table(results: dict[str, Any]) -> Table:
    """Accuracy and completion with 95 % intervals, a row for each result."""
    table = Table("", "tasks", "accuracy", "95 %", "completion", "95 %", "turns", box=None)
    for name, r in results.items():
        table.add_row(name, str(r.tasks), f"{r.accuracy:.1%}", _interval(r.accuracy_interval), f"{r.completion:.1%}",
                      _interval(r.completion_interval), f"{r.mean_turns:.1f}")  # fmt: skip
        if r.scenario_accuracy is not None:
            table.add_row("  every task of a scenario", "", f"{r.scenario_accuracy:.1%}", "", "", "", "")
        for k, value in r.pass_at_k.items():
            if k > 1:
                table.add_row(f"  pass@{k}", "", f"{value:.1%}", "", "", "", "")
    return table


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"


def _numbers(result: Any) -> dict[str, Any] | None:
    return None if result is None else {k: v for k, v in asdict(result).items() if k != "per_task"}


def main() -> NoReturn:
    """Entry point: errors that a user can mend become one line."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin cripple a busy machine
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except UsageError as error:
        console.print(f"skillsd: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    except SkillSDError as error:
        console.print(f"skillsd: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("interrupted; go on with --resume", markup=False)
        sys.exit(130)
    except OSError as error:
        console.print(f"skillsd: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    sys.exit(0)

"""report.html: what a run did, in one file that opens offline.

Uses the run's folder, and charts as comparisons draw them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from skillsd.analysis.charts import COLOURS, svg
from skillsd.analysis.pages import render
from skillsd.envs import TaskSet, boundary, make_taskset
from skillsd.errors import SkillSDError, reason
from skillsd.rollouts.results import EvalResult
from skillsd.runs.folder import RunDir, Tell
from skillsd.skills.bank import SkillBank, StoredSkill
from skillsd.system.files import write_atomic
from skillsd.types import Trajectory

#: (title, y label, [(metric, label)]) of each chart; a chart without data is left out.
_CHARTS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("Training episodes", "share", [("accuracy", "accuracy"), ("completion", "completion")]),
    ("Greedy evaluation", "accuracy", [("eval_accuracy", "student, plain prompt"),
                                       ("teacher_accuracy", "teacher, with a reference skill")]),
    ("Losses", "loss", [("loss_policy", "GRPO"), ("loss_distill", "SDL")]),
    ("Gradient norms", "norm", [("grad_norm_policy", "GRPO"), ("grad_norm_distill", "lambda SDL")]),
    ("Student against teacher", "nats", [("l_rms", "RMS of l"), ("l_mean", "mean of l")]),
    ("Behaviour", "share", [("valid_actions", "valid actions"), ("repeated_actions", "repeated actions")]),
    ("Entropy", "nats a token", [("entropy", "entropy")]),
    ("Skill bank", "skills", [("bank_size", "stored")]),
    ("Events in the environment", "number", [("env_error", "errors"), ("env_refused", "refused"),
                                             ("env_killed", "killed")]),
]  # fmt: skip
#: Characters of one message that are shown.
MOST_TEXT = 6000


def write_report(out: str | Path, warn: Tell = lambda text: None) -> Path:
    """Write ``report.html`` from what a run's folder holds; returns its path.

    What is damaged is left out, and told both to ``warn`` and in the report. Raises :class:`UsageError` where there is
    no run, and :class:`SkillSDError` if its metrics cannot be read at all.
    """
    run = RunDir(out)
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        warn(text)

    config = run.load_config()
    metrics = run.read_metrics(note)
    try:
        taskset = make_taskset(config.env.name, **config.env.options)
    except SkillSDError:  # not installed on this machine: its episodes are shown as a conversation
        taskset = None
    page = render(
        "skillsd.analysis.report",
        "report.html.jinja",
        name=run.path.resolve().name,
        config=config,
        method=config.spec.summary,
        results=[(name, r) for name in ("before", "after") if (r := _result(run, name, note)) is not None],
        charts=[chart for spec in _CHARTS if (chart := _chart(metrics, *spec, note)) is not None],
        last=metrics[-1] if metrics else {},
        alarms=[row for row in metrics if row.get("alarm")],
        episodes=_episodes(run, metrics, taskset, note),
        skills=_skills(run, note),
        settings=run.config.read_text("utf-8"),
        notes=notes,
    )
    write_atomic(run.report, page.encode("utf-8", "replace"))
    return run.report


def _result(run: RunDir, name: str, warn: Tell) -> EvalResult | None:
    path = run.results / f"{name}.json"
    try:
        return EvalResult.load(path) if path.exists() else None
    except SkillSDError as error:
        warn(str(error))
        return None


def _chart(
    metrics: Sequence[dict[str, Any]], title: str, unit: str, lines: Sequence[tuple[str, str]], warn: Tell
) -> str | None:
    """The SVG element; None without data, or where it cannot be drawn, which is told."""
    try:
        return _drawn(metrics, title, unit, lines)
    except Exception as error:  # of whatever draws: a report is more than one chart
        warn(f"the chart {title!r} cannot be drawn ({reason(error)})")
        return None


def _drawn(metrics: Sequence[dict[str, Any]], title: str, unit: str, lines: Sequence[tuple[str, str]]) -> str | None:
    found = {}
    for key, name in lines:
        if points := [(row["iteration"], row[key]) for row in metrics if _number(row.get(key))]:
            found[name] = points

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for (name, points), colour in zip(found.items(), COLOURS, strict=False):
            marker = "o" if len(points) < 12 else None
            axes.plot(*zip(*points, strict=True), color=colour, label=name, linewidth=1.6, marker=marker, markersize=3)
        axes.set_title(title)
        axes.set_xlabel("iteration")
        axes.set_ylabel(unit)
        axes.grid(alpha=0.25)
        if len(lines) > 1:
            axes.legend()

    return svg(draw, 2.7, title, width=5.2) if found else None


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _episodes(
    run: RunDir, metrics: Sequence[dict[str, Any]], taskset: TaskSet | None, warn: Tell
) -> list[dict[str, Any]]:
    """One success and one failure from the first and from the last iteration."""
    shown = []
    for iteration in sorted({row["iteration"] for row in (*metrics[:1], *metrics[-1:])}):
        if not run.trajectory_file(iteration).exists():
            continue  # a cell of a comparison keeps none
        try:
            trajectories = run.read_trajectories(iteration)
        except SkillSDError as error:
            warn(str(error))
            continue
        for wanted in (True, False):
            found = next((t for t in trajectories if t.success is wanted), None)
            if found is not None:
                shown.append(_episode(found, taskset))
    return shown


def _episode(trajectory: Trajectory, taskset: TaskSet | None) -> dict[str, Any]:
    """Pictures side by side where the task set draws its observations, else the conversation, message by message."""
    texts = [("start", trajectory.prompt), *((turn.action, turn.observation) for turn in trajectory.turns)]
    frames = [(said, boundary.drawing(taskset, seen)) for said, seen in texts]
    if all(drawn is not None for _, drawn in frames):
        return {"trajectory": trajectory, "frames": frames}
    talk = [("world", trajectory.prompt)]
    for turn in trajectory.turns:
        talk += [("agent", turn.action), ("world", turn.observation)]
    return {"trajectory": trajectory, "talk": [(who, text[:MOST_TEXT]) for who, text in talk]}


def _skills(run: RunDir, warn: Tell, most: int = 8) -> dict[str, list[StoredSkill]]:
    """Those read most often, and what was learned first: the oldest skill of each task, of the oldest of those."""
    found: list[StoredSkill] = []
    if run.bank.exists():
        try:
            with closing(SkillBank(run.bank, create=False)) as bank:
                found = bank.skills(warn=warn)
        except SkillSDError as error:
            warn(str(error))
    first: dict[str, StoredSkill] = {}
    for skill in found:
        first.setdefault(skill.task_id, skill)
    often = sorted(found, key=lambda s: -s.chosen)
    return {"Skills read most often": often[:most], "First skills kept": list(first.values())[:most]}

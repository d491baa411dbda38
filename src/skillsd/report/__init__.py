"""report.html: what a run did, in one file that opens offline."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from skillsd.envs import HasRender, TaskSet, make_taskset
from skillsd.errors import SkillSDError, UsageError
from skillsd.evaluation import EvalResult
from skillsd.pages import render
from skillsd.run_dir import RunDir, write_atomic
from skillsd.skills.bank import SkillBank, StoredSkill
from skillsd.trajectory import Trajectory

matplotlib.use("Agg")

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


def write_report(out: str | Path) -> Path:
    """Write ``report.html`` from what a run's folder holds; returns its path.

    Raises :class:`UsageError` where there is no run.
    """
    run = RunDir(out)
    config = run.load_config()
    metrics = run.read_metrics()
    try:
        taskset = make_taskset(config.env.name, **config.env.options)
    except UsageError:  # not installed on this machine: its episodes are shown as a conversation
        taskset = None
    page = render(
        "skillsd.report",
        "report.html.jinja",
        name=run.path.resolve().name,
        config=config,
        method=config.spec.summary,
        results=[(name, r) for name in ("before", "after") if (r := _result(run, name)) is not None],
        charts=[chart for spec in _CHARTS if (chart := _chart(metrics, *spec)) is not None],
        last=metrics[-1] if metrics else {},
        alarms=[row for row in metrics if row.get("alarm")],
        episodes=_episodes(run, metrics, taskset),
        skills=_skills(run),
        settings=run.config.read_text("utf-8"),
    )
    write_atomic(run.report, page.encode())
    return run.report


def _result(run: RunDir, name: str) -> EvalResult | None:
    path = run.results / f"{name}.json"
    try:
        return EvalResult.load(path) if path.is_file() else None
    except (ValueError, TypeError, KeyError, json.JSONDecodeError):
        raise UsageError(f"{path} is damaged: delete it and evaluate again") from None


def _chart(
    metrics: Sequence[dict[str, Any]], title: str, label: str, lines: Sequence[tuple[str, str]]
) -> tuple[str, str] | None:
    """(title, image as a data URI); None without data."""
    figure = Figure(figsize=(5.2, 2.7), layout="constrained")
    axes = figure.add_subplot()
    drawn = 0
    for key, name in lines:
        points = [(row["iteration"], row[key]) for row in metrics if _number(row.get(key))]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, label=name, linewidth=1.6, marker="o" if len(points) < 12 else None, markersize=3)
            drawn += 1
    if not drawn:
        return None
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("iteration", fontsize=8)
    axes.set_ylabel(label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axes.legend(fontsize=8, frameon=False)
    image = io.StringIO()
    figure.savefig(image, format="svg", metadata={"Date": None})
    return title, "data:image/svg+xml;base64," + base64.b64encode(image.getvalue().encode()).decode()


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _episodes(run: RunDir, metrics: Sequence[dict[str, Any]], taskset: TaskSet | None) -> list[dict[str, Any]]:
    """One success and one failure from the first and from the last iteration."""
    shown = []
    for iteration in sorted({row["iteration"] for row in (*metrics[:1], *metrics[-1:])}):
        try:
            trajectories = run.read_trajectories(iteration)
        except SkillSDError:
            continue
        for wanted in (True, False):
            found = next((t for t in trajectories if t.success is wanted), None)
            if found is not None:
                shown.append(_episode(found, taskset))
    return shown


def _episode(trajectory: Trajectory, taskset: TaskSet | None) -> dict[str, Any]:
    """Pictures side by side where the task set draws its observations, else the conversation, message by message."""
    if isinstance(taskset, HasRender):
        frames = [("start", taskset.render_html(trajectory.prompt))]
        frames += [(turn.action, taskset.render_html(turn.observation)) for turn in trajectory.turns]
        return {"trajectory": trajectory, "frames": frames}
    talk = [("world", trajectory.prompt)]
    for turn in trajectory.turns:
        talk += [("agent", turn.action), ("world", turn.observation)]
    return {"trajectory": trajectory, "talk": [(who, text[:MOST_TEXT]) for who, text in talk]}


def _skills(run: RunDir, most: int = 8) -> dict[str, list[StoredSkill]]:
    """Those read most often, and what was learned first: the oldest skill of each task, of the oldest of those."""
    found: list[StoredSkill] = []
    if run.bank.is_file():
        bank = SkillBank(run.bank)
        try:
            found = sorted(bank.skills(), key=lambda s: s.id)
        finally:
            bank.close()
    first: dict[str, StoredSkill] = {}
    for skill in found:
        first.setdefault(skill.task_id, skill)
    often = sorted(found, key=lambda s: -s.chosen)
    return {"Skills read most often": often[:most], "First skills kept": list(first.values())[:most]}

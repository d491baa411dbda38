"""What a comparison found: results.json, compare.md and compare.html."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from skillsd.compare.cell import Cell, Point
from skillsd.compare.stats import Estimate, Scores, episodes_to_reach, holm, mean_interval, paired_bootstrap
from skillsd.run_dir import write_atomic

matplotlib.use("Agg")

#: Phases of an iteration in the order they happen; "other" is the rest of the wall clock.
_PHASES = ("rollout", "score", "update", "summarize", "evaluate", "panel")


def summarize(cells: Sequence[Cell], baselines: Sequence[str], splits: Sequence[str]) -> dict[str, Any]:
    """All numbers, JSON-able. Shares are in [0, 1]; an interval is 95 %, see :mod:`skillsd.compare.stats`."""
    rows: dict[str, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.row, []).append(cell)
    known = [name for name in baselines if name in rows]
    return {
        "splits": {split: _split(rows, split, known) for split in splits},
        "reach": _reach(rows),
        "cost": {name: _cost(group) for name, group in rows.items() if name != "base"},
        "hours": sum(cell.seconds.get("total", 0.0) for cell in cells) / 3600,
        "seeds": {name: sorted(cell.seed for cell in group) for name, group in rows.items()},
        "overrides": {name: group[0].overrides for name, group in rows.items()},
        "versions": cells[0].versions if cells else {},
    }


def _split(rows: dict[str, list[Cell]], split: str, baselines: Sequence[str]) -> dict[str, Any]:
    success: dict[str, Scores] = {}
    completion: dict[str, Scores] = {}
    for name, group in rows.items():
        success[name] = {c.seed: [float(s) for s in c.after[split].success] for c in group}
        completion[name] = {c.seed: c.after[split].completion for c in group}
    table: dict[str, Any] = {
        name: {
            "tasks": len(rows[name][0].after[split].task_ids),
            "accuracy": _found(mean_interval(success[name])),
            "completion": _found(mean_interval(completion[name])),
            "by_seed": {seed: float(np.asarray(values).mean()) for seed, values in sorted(success[name].items())},
            "against": {},
        }
        for name in rows
    }
    for baseline in baselines:
        others = [name for name in rows if name not in (baseline, "base")]
        found = {name: paired_bootstrap(success[name], success[baseline]) for name in others}
        corrected = holm([found[name].p or 0.0 for name in others])
        for name, p in zip(others, corrected, strict=True):
            table[name]["against"][baseline] = {**_found(found[name]), "p_holm": p}
    return table


def _reach(rows: dict[str, list[Cell]]) -> dict[str, Any]:
    """Episodes until the evaluation during training reaches each multiple of 10 %: mean over seeds that do."""
    curves = {name: [_evaluated(c.curve) for c in group] for name, group in rows.items()}
    best = max((p.eval_accuracy or 0.0 for group in curves.values() for c in group for p in c), default=0.0)
    table: dict[str, Any] = {}
    for name, group in curves.items():
        if not any(group):
            continue
        table[name] = {}
        for percent in range(10, int(best * 100) + 1, 10):
            per_seed = {i: [(p.episodes, p.eval_accuracy or 0.0) for p in c] for i, c in enumerate(group)}
            found = list(episodes_to_reach(per_seed, [percent / 100])[0].per_seed.values())
            times = [f for f in found if f is not None]
            table[name][str(percent)] = {
                "episodes": float(np.mean(times)) if times else None,
                "seeds": len(times),
                "of": len(found),
            }
    return table


def _evaluated(curve: Sequence[Point]) -> list[Point]:
    return [p for p in curve if p.eval_accuracy is not None]


def _found(estimate: Estimate) -> dict[str, Any]:
    tree = asdict(estimate)
    return {"mean": tree.pop("value"), **tree, "seeds": len(estimate.seeds)}


def _cost(group: Sequence[Cell]) -> dict[str, float]:
    """Seconds an iteration by phase, mean over all iterations of a row."""
    iterations = max(1, sum(c.iterations for c in group))
    seconds = {phase: sum(c.seconds.get(phase, 0.0) for c in group) / iterations for phase in (*_PHASES, "total")}
    return {**seconds, "other": max(0.0, seconds["total"] - sum(seconds[phase] for phase in _PHASES))}


def write(cells: Sequence[Cell], out: Path, *, baselines: Sequence[str], splits: Sequence[str]) -> dict[str, Any]:
    """Write the three files into ``out``; returns what :func:`summarize` found."""
    summary = summarize(cells, baselines, splits)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (resources.files("skillsd.compare") / name).read_text("utf-8")),
        autoescape=lambda name: bool(name) and "html" in str(name),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "points": _points, "p": _p}
    values = {"summary": summary, "splits": splits, "baselines": list(baselines), "phases": [*_PHASES, "other"]}
    write_atomic(out / "results.json", json.dumps(summary, indent=1).encode())
    text = environment.get_template("compare.md.jinja").render(values)
    write_atomic(out / "compare.md", text.encode())
    figures = _figures(cells, summary, splits)
    page = environment.get_template("compare.html.jinja").render(values, figures=figures, name=out.resolve().name)
    write_atomic(out / "compare.html", page.encode())
    return summary


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(gap: float) -> str:
    return f"{100 * gap:+.1f}"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


# -- figures -----------------------------------------------------------------------------------------------


def _figures(cells: Sequence[Cell], summary: dict[str, Any], splits: Sequence[str]) -> list[tuple[str, str]]:
    """(caption, image as a data URI)."""
    rows = list(dict.fromkeys(c.row for c in cells))
    figures = [(f"Accuracy on {split}, 95 % intervals", _forest(summary["splits"][split])) for split in splits]
    for key, caption in (
        ("eval_accuracy", "Held-out accuracy during training (band: lowest to highest seed)"),
        ("accuracy", "Accuracy of training episodes (mean of 5 iterations; band: lowest to highest seed)"),
        ("teacher_accuracy", "Teacher with a reference skill in its prompt (band: lowest to highest seed)"),
    ):
        image = _curves(cells, rows, key)
        if image:
            figures.append((caption, image))
    if summary["cost"]:
        figures.append(("Seconds an iteration", _bars(summary["cost"])))
    return figures


def _axes(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _image(figure: Figure) -> str:
    image = io.StringIO()
    figure.savefig(image, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(image.getvalue().encode()).decode()


def _label(row: str) -> str:
    return row.replace("$", r"\$")  # else matplotlib reads a formula


def _forest(table: dict[str, Any]) -> str:
    figure, axes = _axes(0.7 + 0.32 * len(table))
    for place, (_, row) in enumerate(table.items()):
        found = row["accuracy"]
        axes.plot([100 * found["low"], 100 * found["high"]], [place, place], color="#2563eb", linewidth=2)
        axes.plot(100 * found["mean"], place, "o", color="#2563eb", markersize=5)
        for value in row["by_seed"].values():
            axes.plot(100 * value, place, "|", color="#9ca3af", markersize=7)
    axes.set_yticks(range(len(table)), [_label(name) for name in table], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, % (ticks: single seeds)", fontsize=8)
    return _image(figure)


def _curves(cells: Sequence[Cell], rows: Sequence[str], key: str) -> str | None:
    figure, axes = _axes(3.4)
    drawn = False
    for number, row in enumerate(rows):
        curves = []
        for cell in cells:
            points = [(p.episodes, getattr(p, key)) for p in cell.curve if getattr(p, key) is not None]
            if cell.row == row and points:
                curves.append(_smoothed(points) if key == "accuracy" else points)
        if not curves:
            continue
        length = min(map(len, curves))
        x = [episodes for episodes, _ in curves[0][:length]]
        y = 100 * np.array([[value for _, value in curve[:length]] for curve in curves])
        colour = f"C{number % 10}"
        axes.plot(x, y.mean(0), color=colour, linewidth=1.6, label=_label(row), marker="o", markersize=2.5)
        axes.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.12, linewidth=0)
        drawn = True
    if not drawn:
        return None
    axes.set_xlabel("training episodes", fontsize=8)
    axes.set_ylabel("accuracy, %", fontsize=8)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _image(figure)


def _smoothed(points: Sequence[tuple[int, float]], width: int = 5) -> list[tuple[int, float]]:
    """Means of ``width`` neighbours: single batches are too noisy to look at."""
    means = []
    for end in range(width, len(points) + 1, width):
        part = points[end - width : end]
        means.append((part[-1][0], float(np.mean([value for _, value in part]))))
    return means or list(points)


def _bars(cost: dict[str, dict[str, float]]) -> str:
    figure, axes = _axes(0.7 + 0.32 * len(cost))
    names = list(cost)
    left = np.zeros(len(names))
    for number, phase in enumerate((*_PHASES, "other")):
        width = np.array([cost[name][phase] for name in names])
        axes.barh(range(len(names)), width, left=left, color=f"C{number}", label=phase, height=0.6)
        left += width
    axes.set_yticks(range(len(names)), [_label(name) for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("seconds", fontsize=8)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _image(figure)

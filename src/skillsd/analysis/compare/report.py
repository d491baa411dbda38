"""What a comparison found: results.json, compare.md, compare.html and the figures' files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from skillsd.analysis.charts import standalone
from skillsd.analysis.compare import figures, tables
from skillsd.analysis.compare.cell import Cell
from skillsd.analysis.compare.figures import Picture, Pictures
from skillsd.analysis.compare.primary import Measure, contrast, for_seeds
from skillsd.analysis.compare.stats import (
    LEVEL,
    RESAMPLES,
    Curve,
    Estimate,
    Scores,
    common_range,
    episodes_to_reach,
    holm,
    mean_curve,
    mean_height,
    mean_interval,
    paired_bootstrap,
    seed_difference,
    seed_mean,
)
from skillsd.analysis.pages import render
from skillsd.errors import SkillSDError
from skillsd.system.files import write_atomic

#: Phases of an iteration in the order they happen. "other" is the rest of the wall clock.
_PHASES = ("rollout", "score", "update", "summarize", "evaluate", "panel")

_CURVE_TEXT = "Lines: means over seeds; bands: one standard error of that mean to either side (none with one seed)."

Rows = dict[str, list[Cell]]


def summarize(
    cells: Sequence[Cell],
    baselines: Sequence[str] = ("grpo", "opd"),
    splits: Sequence[str] | None = None,
    primary: Sequence[tuple[str, str, Measure]] = (),
) -> dict[str, Any]:
    """All numbers, JSON-able. Shares are in [0, 1]; an interval is 95 %, see :mod:`skillsd.analysis.compare.stats`.

    ``primary``: the contrasts (row, against, measure) that were declared beforehand; those without cells are left out.

    A baseline without cells is left out. ``splits``: those to show; default: all that the cells have. Raises
    :class:`SkillSDError` for no cells, for two of the same row and seed, and for cells with different tasks.
    """
    if not cells:
        raise SkillSDError("nothing to compare: no cell is finished")
    rows: Rows = {name: [] for name in ("base", *(c.row for c in cells)) if any(c.row == name for c in cells)}
    for cell in cells:
        if any(other.seed == cell.seed for other in rows[cell.row]):
            raise SkillSDError(f"row {cell.row!r} has two cells with seed {cell.seed}: delete one")
        rows[cell.row].append(cell)
    known = list(dict.fromkeys(name for name in baselines if name in rows))
    splits = list(dict.fromkeys(name for c in cells for name in c.after)) if splits is None else splits
    cost = {name: _cost(group) for name, group in rows.items() if any(c.iterations for c in group)}
    return {
        "level": LEVEL,
        "resamples": RESAMPLES,
        "baselines": known,
        "primary": [found for declared in primary if (found := contrast(rows, *declared))],
        "splits": {split: found for split in splits if (found := _split(rows, split, known))},
        "speed": _speed(rows, known),
        "reach": _reach(rows),
        "cost": cost,
        "hours": sum(_wall(cell.seconds) for cell in cells) / 3600,
        "seeds": {name: sorted(c.seed for c in group) for name, group in rows.items()},
        "episodes": {name: _mean([c.episodes for c in group]) for name, group in rows.items()},
        "iterations": {name: _mean([c.iterations for c in group]) for name, group in rows.items()},
        "methods": {name: group[0].method for name, group in rows.items()},
        "overrides": {name: group[0].overrides for name, group in rows.items()},
        "versions": _versions(cells),
    }


def _split(rows: Rows, split: str, baselines: Sequence[str]) -> dict[str, Any]:
    """Results of each row that was evaluated on ``split``."""
    rows = {name: found for name, group in rows.items() if (found := [c for c in group if split in c.after])}
    _check_tasks(rows, split)
    success: dict[str, Scores] = {name: {c.seed: c.after[split].success for c in g} for name, g in rows.items()}
    completion: dict[str, Scores] = {name: {c.seed: c.after[split].completion for c in g} for name, g in rows.items()}
    table: dict[str, Any] = {
        name: {
            "tasks": len(group[0].after[split].task_ids),
            "accuracy": _plain(mean_interval(success[name]), untrained=name == "base"),
            "completion": _plain(mean_interval(completion[name]), untrained=name == "base"),
            "by_seed": {str(c.seed): _mean(c.after[split].success) for c in sorted(group, key=lambda c: c.seed)},
            "against": {},
        }
        for name, group in rows.items()
    }
    _compare(table, baselines, lambda name, baseline: _difference(success, name, baseline))
    return table


def _compare(table: dict[str, Any], baselines: Sequence[str], difference: Callable[[str, str], Estimate]) -> None:
    """Put the difference of each trained row of ``table`` from each baseline into it."""
    for baseline in (b for b in baselines if b in table):
        gaps = {name: difference(name, baseline) for name in table if name not in (baseline, "base")}
        tested = {name: gap.p for name, gap in gaps.items() if gap.p is not None}
        corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
        for name, gap in gaps.items():
            table[name]["against"][baseline] = {**_plain(gap), "p": gap.p, "p_holm": corrected.get(name)}


def _difference(success: Mapping[str, Scores], name: str, baseline: str) -> Estimate:
    scores, other = success[name], success[baseline]
    return paired_bootstrap(scores, for_seeds(other, scores) if baseline == "base" else other)


def _check_tasks(rows: Rows, split: str) -> None:
    """Pairing needs the same tasks in the same order everywhere."""
    first: Cell | None = None
    for cell in (c for group in rows.values() for c in group):
        first = first or cell
        found = cell.after[split]
        if not found.task_ids or not len(found.task_ids) == len(found.success) == len(found.completion):
            raise SkillSDError(
                f"row {cell.row!r}, seed {cell.seed}: its results on {split!r} are not one for each task"
            )
        if found.task_ids != first.after[split].task_ids:
            raise SkillSDError(
                f"rows {first.row!r} and {cell.row!r} (seed {cell.seed}) were evaluated on different tasks "
                f"of {split!r}: run one of them anew"
            )


def _plain(found: Estimate, untrained: bool = False) -> dict[str, Any]:
    """JSON-able; ``seeds`` is their number. ``notes`` say where the interval covers less than it should."""
    notes = [] if untrained and len(found.seeds) == 1 else list(found.notes)
    if untrained:
        notes = ["untrained: spread over tasks alone", *notes]
    values = {"mean": found.value, "low": found.low, "high": found.high}
    rounded = {key: None if value is None else round(value, 12) for key, value in values.items()}
    return {**rounded, "seeds": len(found.seeds), "notes": notes}


def _speed(rows: Rows, baselines: Sequence[str]) -> dict[str, Any]:
    """Mean held-out accuracy during training, over the episodes ("first" to "last") that all curves span.

    A curve needs two evaluations; rows without one (the untrained model) are left out.
    """
    curves = {name: _curves(group, "eval_accuracy") for name, group in rows.items()}
    curves = {name: {seed: c for seed, c in by_seed.items() if len(c) > 1} for name, by_seed in curves.items()}
    span = common_range([curve for by_seed in curves.values() for curve in by_seed.values()])
    if span is None:
        return {}
    means = {
        name: {seed: mean_height(curve, *span) for seed, curve in sorted(by_seed.items())}
        for name, by_seed in curves.items()
        if by_seed
    }
    table: dict[str, Any] = {
        name: {**_plain(seed_mean(by_seed)), "by_seed": {str(s): v for s, v in by_seed.items()}, "against": {}}
        for name, by_seed in means.items()
    }
    _compare(table, baselines, lambda name, baseline: seed_difference(means[name], means[baseline]))
    return {"first": span[0], "last": span[1], "rows": table}


def _reach(rows: Rows) -> dict[str, Any]:
    """Training episodes until each threshold (in percent) is reached, by the mean curve and by single seeds."""
    curves = {name: _curves(group, "eval_accuracy") for name, group in rows.items()}
    means = {name: found for name, by_seed in curves.items() if len((found := mean_curve(by_seed)).mean)}
    if not means:
        return {}
    levels = _thresholds(
        min(float(c.mean[0]) for c in means.values()), max(float(c.mean.max()) for c in means.values())
    )
    table: dict[str, Any] = {}
    for name in means if levels else ():
        table[name] = {}
        for percent, reach in zip(levels, episodes_to_reach(curves[name], [n / 100 for n in levels]), strict=True):
            seeds = [episodes for episodes in reach.per_seed.values() if episodes is not None]
            table[name][str(percent)] = {
                "episodes": reach.episodes,
                "at_first": reach.at_first,
                "low": min(seeds, default=None),
                "high": max(seeds, default=None),
                "seeds": len(seeds),
                "of": len(reach.per_seed),
            }
    return table


def _thresholds(low: float, high: float) -> list[int]:
    """Round percentages above ``low`` and up to ``high``: three or more where there is room, never many."""
    grid: list[int] = []
    for step in (20, 10, 5, 2, 1):
        grid = [n for n in range(step, 101, step) if 100 * low < n <= 100 * high + 1e-9]
        if len(grid) >= 3:
            break
    return grid


def _curves(group: Sequence[Cell], key: str) -> dict[int, Curve]:
    """seed -> the points at which ``key`` was measured."""
    return {cell.seed: cell.measured(key) for cell in group}


def _cost(group: Sequence[Cell]) -> dict[str, float]:
    """Seconds an iteration by phase, mean over all iterations of a row; "total" is the wall clock."""
    iterations = sum(c.iterations for c in group)
    names = list(dict.fromkeys(name for c in group for name in c.seconds if name != "total"))
    names.sort(key=lambda name: _PHASES.index(name) if name in _PHASES else len(_PHASES))
    seconds = {name: sum(c.seconds.get(name, 0.0) for c in group) / iterations for name in names}
    total = sum(_wall(c.seconds) for c in group) / iterations
    return {**seconds, "other": max(0.0, total - sum(seconds.values())), "total": total}


def _wall(seconds: Mapping[str, float]) -> float:
    """All seconds of a cell's training. A checkpoint is saved between iterations, so "total" does not hold it."""
    phases = sum(value for name, value in seconds.items() if name not in ("total", "checkpoint"))
    return seconds.get("total", phases) + seconds.get("checkpoint", 0.0)


def _versions(cells: Sequence[Cell]) -> dict[str, str]:
    """Of each package, and the machine's; more than one where cells were run with different ones."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        for name, version in {**cell.versions, **cell.machine}.items():
            found.setdefault(name, {})[version] = None
    return {name: " and ".join(versions) for name, versions in found.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def write(
    cells: Sequence[Cell],
    out: Path,
    *,
    baselines: Sequence[str] = ("grpo", "opd"),
    splits: Sequence[str] | None = None,
    primary: Sequence[tuple[str, str, Measure]] = (),
) -> dict[str, Any]:
    """Write the three files and the folder of figures into ``out``; returns what :func:`summarize` found."""
    summary = summarize(cells, baselines, splits, primary)
    out.mkdir(parents=True, exist_ok=True)
    name = out.resolve().name
    pictures = Pictures(
        {split: _forest(summary, split) for split in summary["splits"]}, _curve_figures(cells, summary), _bars(summary)
    )
    write_atomic(out / "results.json", json.dumps(summary, indent=1).encode())
    _write_figures(pictures.all(), out / "figures")
    write_atomic(out / "compare.md", tables.markdown(name, summary, pictures).encode("utf-8", "replace"))
    page = render(
        "skillsd.analysis.compare",
        "compare.html.jinja",
        name=name,
        summary=summary,
        overview=tables.overview(summary),
        primary=tables.primary(summary),
        sections=[
            (tables.heading(split, table), pictures.splits[split], tables.of_split(summary, split))
            for split, table in summary["splits"].items()
        ],
        curves=pictures.curves,
        speed=tables.speed(summary),
        reach=tables.reach(summary),
        cost=tables.cost(summary),
        cost_figure=pictures.cost,
        settings=tables.settings(summary),
        how_to_read=tables.HOW_TO_READ,
    )
    write_atomic(out / "compare.html", page.encode("utf-8", "replace"))
    return summary


def _write_figures(pictures: Sequence[Picture], folder: Path) -> None:
    """Those of an earlier call that are not among ``pictures`` go; files of other names stay."""
    folder.mkdir(exist_ok=True)
    for picture in pictures:
        write_atomic(folder / picture.file, standalone(picture.svg).encode())
    kept = {picture.file for picture in pictures}
    for file in folder.iterdir():
        if file.name not in kept and re.fullmatch(r"(accuracy-.*|curve-.*|cost)\.svg", file.name):
            file.unlink()


def _forest(summary: dict[str, Any], split: str) -> Picture:
    baseline = next((b for b in summary["baselines"] if b in summary["splits"][split]), None)
    title = f"Accuracy on {split}, 95 % intervals"
    text = "Large dots: means over seeds and tasks; lines: 95 % intervals; small dots: single seeds."
    if baseline is not None:
        text += (
            f" Shaded: the interval of {baseline}; an overlap with it says little, as differences are paired "
            "(tables below)."
        )
    svg = figures.forest(summary["splits"][split], baseline, figures.styles(list(summary["seeds"])), title)
    return Picture(f"accuracy-{_slug(split)}.svg", title, text, svg)


def _slug(split: str) -> str:
    """A part of a file's name: readable, and different for different splits."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", split.lower())[:40].strip("-.") or "split"
    return slug if slug == split else f"{slug}-{hashlib.sha256(split.encode()).hexdigest()[:6]}"


def _curve_figures(cells: Sequence[Cell], summary: dict[str, Any]) -> list[Picture]:
    """One of each measure that was recorded."""
    found = []
    for key, file, block, title, text in (
        ("eval_accuracy", "held-out", 1, "Held-out accuracy during training", "Greedy, plain prompt."),
        (
            "accuracy",
            "training",
            5,
            "Accuracy of the training episodes",
            "Sampled, on the training tasks.",
        ),
        (
            "teacher_accuracy",
            "teacher",
            1,
            "The teacher's accuracy",
            "The teacher with a reference skill in its prompt, greedy.",
        ),
    ):
        rows, thinned = {}, False
        for name in summary["seeds"]:
            by_seed = _curves([c for c in cells if c.row == name], key)
            drawn = {seed: _thinned(points, block) for seed, points in by_seed.items()}
            thinned |= drawn != by_seed
            curve = mean_curve(drawn)
            if len(curve.episodes):
                rows[name] = curve
        if rows:
            baseline = next((b for b in summary["baselines"] if b in rows), None)
            svg = figures.curves(rows, figures.styles(list(summary["seeds"])), title, baseline)
            each = f"Up to {block} iterations a point. " if thinned else ""
            found.append(Picture(f"curve-{file}.svg", title, f"{text} {each}{_CURVE_TEXT}", svg))
    return found


def _thinned(points: Curve, block: int) -> Curve:
    """Means of ``block`` points in a row, as single batches are too noisy to look at; short curves as they are."""
    if len(points) < 4 * block:
        return points
    blocks = [points[i : i + block] for i in range(0, len(points) - block + 1, block)]
    return [(part[-1][0], _mean([value for _, value in part])) for part in blocks]


def _bars(summary: dict[str, Any]) -> Picture | None:
    if not summary["cost"]:
        return None
    title = "Seconds an iteration, by phase"
    return Picture("cost.svg", title, "", figures.bars(summary["cost"], tables.phases(summary), title))

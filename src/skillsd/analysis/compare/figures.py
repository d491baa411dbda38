"""The figures of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skillsd.analysis.charts import COLOURS, GREY, label, legend, svg
from skillsd.analysis.compare.stats import MeanCurve

_DASHES = ("-", "--", ":", "-.")
#: Lines that one pair of axes may hold, and pairs of axes side by side where there are more.
_LINES, _ACROSS = 10, 4
_EPISODES = "training episodes (environment episodes played so far)"


@dataclass(frozen=True)
class Picture:
    """A figure: the name of its file, its title, the text below it, and the SVG element."""

    file: str
    title: str
    text: str
    svg: str


@dataclass(frozen=True)
class Pictures:
    """All figures of a comparison: one for each split, the learning curves, and the cost."""

    splits: dict[str, Picture]
    curves: list[Picture]
    cost: Picture | None

    def all(self) -> list[Picture]:
        """In the order in which they are shown."""
        return [*self.splits.values(), *self.curves, *([self.cost] if self.cost else [])]


def styles(rows: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(colour, dashes) of each row, the same in all figures; the untrained model is grey."""
    trained = [row for row in rows if row != "base"]
    found = {
        row: (COLOURS[i % len(COLOURS)], _DASHES[i // len(COLOURS) % len(_DASHES)]) for i, row in enumerate(trained)
    }
    return {"base": (GREY, "-"), **found}


def forest(table: Mapping[str, Any], baseline: str | None, style: Mapping[str, tuple[str, str]], title: str) -> str:
    """Accuracy of each row with its interval and its seeds; the interval of ``baseline`` is shaded.

    ``table`` is one split of :func:`skillsd.analysis.compare.report.summarize`.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if baseline is not None and baseline in table:
            shade = table[baseline]["accuracy"]
            axes.axvspan(100 * shade["low"], 100 * shade["high"], color=style[baseline][0], alpha=0.1, linewidth=0)
            axes.axvline(100 * shade["mean"], color=style[baseline][0], alpha=0.6, linewidth=1, linestyle="--")
        for place, (name, row) in enumerate(table.items()):
            found, colour = row["accuracy"], style[name][0]
            low, mean, high = (100 * found[key] for key in ("low", "mean", "high"))
            axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot(mean, place, "o", color=colour, markersize=6)
            if len(row["by_seed"]) > 1:
                values = [100 * value for value in row["by_seed"].values()]
                axes.plot(values, [place + 0.27] * len(values), "o", color=colour, alpha=0.45, markersize=3)
            axes.text(
                1.02, place, f"{mean:.1f}  [{low:.1f}, {high:.1f}]", transform=axes.get_yaxis_transform(), va="center"
            )
        axes.set_yticks(range(len(table)), [label(name) for name in table])
        axes.set_ylim(len(table) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", alpha=0.25)
        axes.set_xlabel("accuracy, %")

    return svg(draw, 0.75 + 0.38 * len(table), title)


def curves(
    rows: Mapping[str, MeanCurve], style: Mapping[str, tuple[str, str]], title: str, baseline: str | None = None
) -> str:
    """Accuracy against training episodes: the mean over seeds, and one standard error to either side.

    Too many rows for one pair of axes get one each, with ``baseline`` dotted behind it.
    """
    if len(rows) > _LINES:
        return svg(lambda figure: _panels(figure, rows, style, baseline), 0.5 + 1.7 * -(-len(rows) // _ACROSS), title)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for name, curve in rows.items():
            _curve(axes, name, curve, style[name])
        axes.set_xlabel(_EPISODES)
        axes.set_ylabel("accuracy, %")
        legend(figure, axes)

    return svg(draw, max(3.8, 0.6 + 0.22 * len(rows)), title)


def _panels(
    figure: Figure, rows: Mapping[str, MeanCurve], style: Mapping[str, tuple[str, str]], baseline: str | None
) -> None:
    behind = rows.get(baseline) if baseline is not None else None
    grid = figure.subplots(-(-len(rows) // _ACROSS), _ACROSS, sharex=True, sharey=True, squeeze=False).flat
    for place, ((name, curve), axes) in enumerate(zip(rows.items(), grid, strict=False)):
        if behind is not None and name != baseline:
            axes.plot(behind.episodes, 100 * behind.mean, color=GREY, linestyle=":", linewidth=1.2)
        _curve(axes, name, curve, (style[name][0], "-"))
        axes.set_title(label(name), fontsize=8)
        axes.tick_params(labelsize=7, labelbottom=place + _ACROSS >= len(rows))
        axes.xaxis.set_major_locator(MaxNLocator(3))
    for axes in figure.axes[len(rows) :]:
        axes.remove()
    dotted = "" if baseline is None or behind is None else f"; dotted: {label(baseline)}"
    figure.supxlabel(_EPISODES + dotted, fontsize=9)
    figure.supylabel("accuracy, %", fontsize=9)


def _curve(axes: Axes, name: str, curve: MeanCurve, style: tuple[str, str]) -> None:
    colour, dashes = style
    marker = "o" if len(curve.episodes) < 25 else None
    axes.plot(
        curve.episodes, 100 * curve.mean, color=colour, linestyle=dashes, label=label(name),
        linewidth=1.8, marker=marker, markersize=3.5,
    )  # fmt: skip
    if curve.seeds > 1:
        low, high = (100 * (curve.mean + sign * curve.error) for sign in (-1, 1))
        axes.fill_between(curve.episodes, low, high, color=colour, alpha=0.14, linewidth=0)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.grid(alpha=0.25)


def bars(cost: Mapping[str, Mapping[str, float]], phases: Sequence[str], title: str) -> str:
    """Seconds of an iteration by phase, a stacked bar for each row."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        left = np.zeros(len(cost))
        for number, phase in enumerate(phases):
            width = np.array([row.get(phase, 0.0) for row in cost.values()])
            colour = GREY if phase == "other" else COLOURS[number % len(COLOURS)]
            axes.barh(range(len(cost)), width, left=left, color=colour, label=label(phase), height=0.62, alpha=0.85)
            left += width
        for place, total in enumerate(left):
            axes.annotate(f"{total:.1f}", (total, place), xytext=(4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(cost)), [label(name) for name in cost])
        axes.set_ylim(len(cost) - 0.4, -0.6)
        axes.set_xlim(0, max(left.max() * 1.08, 1e-3))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.25)
        axes.set_xlabel("seconds an iteration")
        legend(figure, axes)

    return svg(draw, max(0.75 + 0.36 * len(cost), 0.5 + 0.22 * len(phases)), title)

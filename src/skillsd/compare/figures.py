"""The figures of a comparison, as SVG elements that go into a page as they are, and as files of their own.

Text stays text (selectable, in any script that the reader's fonts have), ids are the figure's own, and nothing in a
row's name is markup: matplotlib escapes it, and formulas are off.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skillsd.compare.stats import MeanCurve

matplotlib.use("Agg")

#: Okabe and Ito's colours, told apart by colour-blind people too; without yellow, which is too light for a line.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#333333")
_DASHES = ("-", "--", ":", "-.")
_GREY = "#6b7280"
_WIDTH = 9.6  # inches: at 96 pixels an inch what the page is wide, so that text has the size it says
#: Lines that one pair of axes may hold, and pairs of axes side by side where there are more.
_LINES, _ACROSS = 10, 4
_EPISODES = "training episodes (environment episodes played so far)"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


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
        row: (_COLOURS[i % len(_COLOURS)], _DASHES[i // len(_COLOURS) % len(_DASHES)]) for i, row in enumerate(trained)
    }
    return {"base": (_GREY, "-"), **found}


def forest(table: Mapping[str, Any], baseline: str | None, style: Mapping[str, tuple[str, str]], title: str) -> str:
    """Accuracy of each row with its interval and its seeds; the interval of ``baseline`` is shaded.

    ``table`` is one split of :func:`skillsd.compare.report.summarize`.
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

    return _svg(draw, 0.75 + 0.38 * len(table), title)


def curves(
    rows: Mapping[str, MeanCurve], style: Mapping[str, tuple[str, str]], title: str, baseline: str | None = None
) -> str:
    """Accuracy against training episodes: the mean over seeds, and one standard error to either side.

    Too many rows for one pair of axes get one each, with ``baseline`` dotted behind it.
    """
    if len(rows) > _LINES:
        return _svg(lambda figure: _panels(figure, rows, style, baseline), 0.5 + 1.7 * -(-len(rows) // _ACROSS), title)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for name, curve in rows.items():
            _curve(axes, name, curve, style[name])
        axes.set_xlabel(_EPISODES)
        axes.set_ylabel("accuracy, %")
        _legend(figure, axes)

    return _svg(draw, max(3.8, 0.6 + 0.22 * len(rows)), title)


def _panels(
    figure: Figure, rows: Mapping[str, MeanCurve], style: Mapping[str, tuple[str, str]], baseline: str | None
) -> None:
    behind = rows.get(baseline) if baseline is not None else None
    grid = figure.subplots(-(-len(rows) // _ACROSS), _ACROSS, sharex=True, sharey=True, squeeze=False).flat
    for place, ((name, curve), axes) in enumerate(zip(rows.items(), grid, strict=False)):
        if behind is not None and name != baseline:
            axes.plot(behind.episodes, 100 * behind.mean, color=_GREY, linestyle=":", linewidth=1.2)
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
            colour = _GREY if phase == "other" else _COLOURS[number % len(_COLOURS)]
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
        _legend(figure, axes)

    return _svg(draw, max(0.75 + 0.36 * len(cost), 0.5 + 0.22 * len(phases)), title)


def standalone(element: str) -> str:
    """A figure as a file: with its namespace and its size, and on white, as a page that shows it may be dark."""
    root = ElementTree.fromstring(element)
    _, _, width, height = root.attrib["viewBox"].split()
    for key, value in (("xmlns", "http://www.w3.org/2000/svg"), ("width", f"{width}pt"), ("height", f"{height}pt")):
        root.set(key, value)
    root.insert(0, ElementTree.Element("rect", width="100%", height="100%", fill="#ffffff"))
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def label(name: str, most: int = 36) -> str:
    """A name as one short printable line."""
    text = " ".join("".join(c if c.isprintable() else " " for c in name).split()) or "(no name)"
    text = text if len(text) <= most else text[: most - 1].rstrip() + "…"
    return "\u200b" + text if text.startswith("_") else text  # matplotlib leaves names with _ out of legends


def _legend(figure: Figure, axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper")


def _svg(draw: Callable[[Figure], None], height: float, title: str) -> str:
    image = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph"
        )  # scripts that matplotlib's font lacks: the reader's browser has them
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure)
        figure.savefig(image, format="svg", metadata={"Date": None}, transparent=True)
    return _inline(image.getvalue(), title)


def _inline(document: str, title: str) -> str:
    """The svg element of an SVG document, for an HTML page: no namespaces, ids of its own, named for screen readers."""
    root = ElementTree.fromstring(document.encode())
    prefix = f"f{zlib.crc32(title.encode()):x}-"
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag.endswith("}metadata")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            name = key.rpartition("}")[2]
            if name == "id":
                value = prefix + value
            elif name == "href":
                value = value.replace("#", "#" + prefix, 1)
            else:
                value = re.sub(r"url\(#", f"url(#{prefix}", value)
            element.set(name, value)
    for key in ("width", "height"):  # the view box says the shape, the page the size
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", label(title, 200))
    return ElementTree.tostring(root, encoding="unicode")

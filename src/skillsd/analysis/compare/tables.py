"""The tables of a comparison: built once, shown as Markdown that reads well in a terminal and as HTML."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skillsd.analysis.compare.figures import Picture, Pictures

HOW_TO_READ = (
    "Accuracy is the share of tasks solved with greedy decoding under the plain prompt (pass@1), after training; "
    "completion is the environment's measure of how far an episode came. Both are means over seeds and tasks, in "
    "percent.",
    "A 95 % interval says how far such a mean can be off by chance: were everything done again with other seeds and "
    "other tasks of the same kind, about 19 of 20 intervals made in this way would hold the true value. It comes from "
    "a bootstrap that draws seeds and tasks with replacement, and is widened for the small number of seeds. With five "
    "seeds or fewer that differ a lot it is still a little too narrow; with one seed it covers the choice of tasks "
    "alone, and says so.",
    "A difference is in percentage points and paired: the same seeds and the same tasks in both rows, so its interval "
    "is often narrower than the two rows' own intervals suggest. p is about the chance, two-sided, of a difference at "
    "least as large if there were none; p (Holm) is corrected for the number of rows that are compared with that "
    "baseline.",
    "Mean held-out accuracy during training is learning speed: of two rows that end alike, the one that got there "
    "earlier has more of it.",
)


@dataclass(frozen=True)
class Table:
    """``left``: how many of the first columns hold text; the others hold numbers, aligned right, but for notes."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    left: int = 1
    note: str = ""

    def is_text(self, column: int) -> bool:
        """Whether the column is aligned left."""
        return column < self.left or self.columns[column] == "note"


def heading(split: str, table: Mapping[str, Any]) -> str:
    """What a split's section is called."""
    return f"Accuracy on {split}: {_count(next(iter(table.values()))['tasks'], 'task')}"


def duration(hours: float) -> str:
    """In the unit that says something."""
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{60 * hours:.0f} minutes" if hours >= 1 / 30 else f"{3600 * hours:.0f} seconds"


def overview(summary: dict[str, Any]) -> str:
    """What was run, in a sentence."""
    seeds = {name: found for name, found in summary["seeds"].items() if name != "base"}
    numbers = sorted({len(found) for found in seeds.values()})
    each = (
        ""
        if not numbers
        else _count(numbers[0], "seed")
        if len(numbers) == 1
        else f"{numbers[0]} to {numbers[-1]} seeds"
    )
    rows = f"{_count(len(seeds), 'row')} with {each}{' each' if len(seeds) > 1 else ''}" if seeds else "No trained row"
    base = ", and the untrained model (base)" if "base" in summary["seeds"] else ""
    return f"{rows}{base}. {duration(summary['hours'])} of training in all."


def primary(summary: dict[str, Any]) -> Table | None:
    """What the comparison was made to find out; None where nothing was declared."""
    if not summary["primary"]:
        return None
    found = Table(
        title="Primary contrasts, percentage points",
        columns=[
            "row", "against", "measure", "seeds", "accuracies", "difference", "95 % interval", "p (t)", "p (signs)",
            "note",
        ],
        rows=[
            [
                c["row"], c["against"], c["measure"], str(c["seeds"]), " and ".join(map(percent, c["levels"])),
                points(c["mean"]), interval(c, points), p_value(c["p"]), p_value(c["p_sign"]), "; ".join(c["notes"]),
            ]
            for c in summary["primary"]
        ],
        left=3,
        note="Declared in the comparison's file before a cell was run. Accuracies are means of a seed's evaluations on "
        "held-out tasks: of the last three (end), or of all, by the episodes between them (training); interval and "
        "p (t) are of Student's paired t over seeds, p (signs) is exact: the share of all ways to give the seeds' "
        "differences signs that lead at least as far from 0. Everything below is exploratory.",
    )  # fmt: skip
    return _trimmed(found)


def of_split(summary: dict[str, Any], split: str) -> list[Table]:
    """The rows' results, then their differences from each baseline."""
    table = summary["splits"][split]
    results = Table(
        title="Results",
        columns=["row", "seeds", "accuracy", "95 % interval", "completion", "95 % interval", "note"],
        rows=[
            [
                name, _seeds(name, row), percent(row["accuracy"]["mean"]), interval(row["accuracy"]),
                percent(row["completion"]["mean"]), interval(row["completion"]), "; ".join(row["accuracy"]["notes"]),
            ]
            for name, row in table.items()
        ],
    )  # fmt: skip
    found = [_trimmed(results)]
    return found + _differences(summary, table, "Accuracy")


def _differences(summary: dict[str, Any], rows: Mapping[str, Any], what: str) -> list[Table]:
    """From each baseline."""
    found = []
    for baseline in summary["baselines"]:
        lines = [
            [
                name, str(d["seeds"]), points(d["mean"]), interval(d, points), p_value(d["p"]), p_value(d["p_holm"]),
                "; ".join(d["notes"]),
            ]
            for name, row in rows.items()
            if (d := row["against"].get(baseline))
        ]  # fmt: skip
        if lines:
            columns = ["row", "seeds", "difference", "95 % interval", "p", "p (Holm)", "note"]
            found.append(_trimmed(Table(f"{what} against {baseline}, percentage points", columns, lines)))
    return found


def speed(summary: dict[str, Any]) -> list[Table]:
    """Learning speed, then its differences from each baseline; none where nothing was evaluated during training."""
    found = summary["speed"]
    if not found:
        return []
    title = "Mean held-out accuracy during training"
    means = Table(
        title=title,
        columns=["row", "seeds", "mean, %", "95 % interval", "note"],
        rows=[
            [name, str(row["seeds"]), percent(row["mean"]), interval(row), "; ".join(row["notes"])]
            for name, row in found["rows"].items()
        ],
        note=f"The area under each seed's learning curve from {found['first']:,.0f} to {found['last']:,.0f} training "
        "episodes, where all rows were evaluated, over the length of that range. The evaluations of one run depend on "
        "each other, so each seed counts as one value: intervals and p are Student's t over seeds (paired in "
        "differences), and do not cover the choice of tasks.",
    )
    return [_trimmed(means), *_differences(summary, found["rows"], title)]


def reach(summary: dict[str, Any]) -> Table | None:
    """Sample efficiency; None where nothing was evaluated during training."""
    if not summary["reach"]:
        return None
    levels = list(next(iter(summary["reach"].values())))
    return Table(
        title="Training episodes until the held-out accuracy is reached",
        columns=["row", *(f"{level} %" for level in levels)],
        rows=[[name, *(_reached(row[level]) for level in levels)] for name, row in summary["reach"].items()],
        note="Where the mean curve over seeds first gets there, between two measurements on a straight line; in "
        "brackets the quickest and the slowest seed, and how many seeds got there where not all did (4/5: four of "
        "five). With ≤ it was there at the first measurement.",
    )


def phases(summary: dict[str, Any]) -> list[str]:
    """In the order they happen, "other" last."""
    names = list(dict.fromkeys(name for row in summary["cost"].values() for name in row))
    return [name for name in names if name not in ("other", "total")] + ["other"]


def cost(summary: dict[str, Any]) -> Table | None:
    """None where nothing was trained."""
    if not summary["cost"]:
        return None
    columns = [*phases(summary), "total"]
    return Table(
        title="Seconds an iteration, by phase",
        columns=["row", *columns],
        rows=[[name, *(f"{row.get(c, 0.0):.2f}" for c in columns)] for name, row in summary["cost"].items()],
        note=f"{duration(summary['hours'])} of training in all, over all cells; final evaluations come on top.",
    )


def settings(summary: dict[str, Any]) -> Table:
    """What makes each row what it is."""
    return Table(
        title="Rows",
        columns=["row", "method", "seeds", "episodes", "settings of its own"],
        rows=[
            [
                name,
                "" if name == "base" else summary["methods"][name],
                "" if name == "base" else ", ".join(map(str, seeds)),
                f"{summary['episodes'][name]:,.0f}",
                ", ".join(f"{k} = {v}" for k, v in _flat(summary["overrides"][name]).items() if k != "method"),
            ]
            for name, seeds in summary["seeds"].items()
        ],
        left=5,
    )


def markdown(name: str, summary: dict[str, Any], pictures: Pictures) -> str:
    """All tables, and links to the figures' files."""
    parts = [f"# {_line(name)}", overview(summary)]
    if declared := primary(summary):
        parts += [f"## {declared.title}", *_noted(declared)]
    for split, table in summary["splits"].items():
        parts += [f"## {_line(heading(split, table))}, in %", *_shown(pictures.splits[split])]
        for number, part in enumerate(of_split(summary, split)):
            parts += [f"### {_line(part.title)}"] if number else []
            parts.append(grid(part))
    learning = [*speed(summary), *([found] if (found := reach(summary)) else [])]
    for number, picture in enumerate(pictures.curves):
        parts += [f"## {picture.title}", *_shown(picture)]
        for part in () if number else learning:
            parts += [f"### {_line(part.title)}", *_noted(part)]
    if (found := cost(summary)) and pictures.cost:
        parts += [f"## {found.title}", *_shown(pictures.cost), *_noted(found)]
    rows = settings(summary)
    parts += [f"## {rows.title}", grid(rows)]
    parts += ["## How to read this", *HOW_TO_READ]
    return "\n\n".join(parts) + "\n"


def _shown(picture: Picture) -> list[str]:
    """A Markdown image with the text below it."""
    title = re.sub(r"([\[\]])", r"\\\1", _escaped(picture.title))
    return [f"![{title}](figures/{picture.file})", *([_escaped(picture.text)] if picture.text else [])]


def _noted(table: Table) -> list[str]:
    return [grid(table), *([table.note] if table.note else [])]


def grid(table: Table) -> str:
    """A Markdown table whose columns line up in a terminal."""
    cells = [[_escaped(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(3, *(_width(row[i]) for row in cells)) for i in range(len(table.columns))]
    text = [table.is_text(i) for i in range(len(table.columns))]

    def line(row: Sequence[str]) -> str:
        padded = []
        for cell, width, left in zip(row, widths, text, strict=True):
            space = " " * (width - _width(cell))
            padded.append(cell + space if left else space + cell)
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join(
        ("-" * (w + 2)) if left else "-" * (w + 1) + ":" for w, left in zip(widths, text, strict=True)
    )
    return "\n".join([line(cells[0]), rule + "|", *map(line, cells[1:])])


def _width(text: str) -> int:
    """Columns of a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _escaped(text: str) -> str:
    text = _line(text).replace("\\", "\\\\").replace("|", "\\|")
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)  # a tag to Markdown; other uses of < are not


def _line(text: str) -> str:
    """One printable line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _trimmed(table: Table) -> Table:
    """Without a last column that says nothing."""
    if any(row[-1] for row in table.rows):
        return table
    return Table(table.title, table.columns[:-1], [row[:-1] for row in table.rows], table.left, table.note)


def _seeds(name: str, row: Mapping[str, Any]) -> str:
    return "" if name == "base" else str(row["accuracy"]["seeds"])


def percent(share: float) -> str:
    """A share with one decimal."""
    return f"{100 * share:.1f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, signed."""
    return f"{100 * difference:+.1f}"


def p_value(p: float | None) -> str:
    """Three decimals; smaller ones are not told apart. Nothing where nothing could be tested."""
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def interval(found: Mapping[str, Any], show: Callable[[float], str] = percent) -> str:
    """The bounds of an estimate; nothing where it has none."""
    return "" if found["low"] is None else f"{show(found['low'])} to {show(found['high'])}"


def _reached(found: Mapping[str, Any]) -> str:
    some = "" if found["seeds"] == found["of"] else f"{found['seeds']}/{found['of']}"
    if found["episodes"] is None:
        return f"never ({some})" if found["seeds"] else "never"
    spread = f"{found['low']:,.0f} to {found['high']:,.0f}" if found["seeds"] and found["of"] > 1 else ""
    detail = "; ".join(part for part in (spread, some) if part)
    return f"{'≤ ' if found['at_first'] else ''}{found['episodes']:,.0f}" + (f" ({detail})" if detail else "")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"

"""Write the tables of RESULTS.md and the README's anew from results/*/results.json: ``python docs/results_tables.py``.

A table stands between ``<!-- STUDY: row | row | ... -->`` and ``<!-- end -->``; that of the README, which has a line of
its own for each row and both studies side by side, between ``<!-- headline ... -->`` and ``<!-- end -->``.
"""

import json
import re
from pathlib import Path
from typing import Any

from skillsd.analysis.compare.tables import Table, grid, interval, p_value, percent, points

DOCS = Path(__file__).parent
TABLE = re.compile(r"<!-- (?P<study>\w+): (?P<rows>.+?) -->\n.*?<!-- end -->", re.DOTALL)
HEADLINE = re.compile(r"<!-- headline\n(?P<rows>.+?)-->\n.*?<!-- end -->", re.DOTALL)
#: The split that tells rows apart, then those to show beside it.
SPLITS = {"one_box": ["test"], "paper": ["extra", "test", "train"]}
#: A seed below this share is set in bold.
LOW = 0.3


def line(name: str, row: dict[str, Any], speed: dict[str, Any], beside: list[dict[str, Any]]) -> list[str]:
    """The cells of one row."""
    seeds = ", ".join(f"{100 * x:.0f}" if x >= LOW else f"**{100 * x:.0f}**" for x in row["by_seed"].values())
    accuracy, gap = row["accuracy"], row["against"].get("grpo", {})
    gain = speed.get("against", {}).get("grpo", {})
    cells = [name, "" if name == "base" else seeds, percent(accuracy["mean"]), interval(accuracy)]
    cells += [points(gap["mean"]), interval(gap, points), p_value(gap["p_holm"])] if gap else [""] * 3
    cells += [percent(speed["mean"]) if speed else ""]
    cells += [points(gain["mean"]), interval(gain, points)] if gain else [""] * 2
    return cells + [percent(other["accuracy"]["mean"]) for other in beside]


def found(study: str) -> dict[str, Any]:
    """What ``skillsd compare`` wrote down of a study."""
    return json.loads((DOCS.parent / "results" / study / "results.json").read_text("utf-8"))  # type: ignore[no-any-return]


def made(match: re.Match[str]) -> str:
    """The marked table, made of what the study found. Raises KeyError for a row that it does not have."""
    study, names = match["study"], [name.strip() for name in match["rows"].split("|")]
    results = found(study)
    main, *beside = (results["splits"][split] for split in SPLITS[study])
    columns = ["row", "seeds: accuracy, %", "mean", "95 %", "against GRPO", "95 %", "p (Holm)"]
    columns += ["on the way", "against GRPO", "95 %"]
    columns += [f"{table['base']['tasks']} {split}" for table, split in zip(beside, SPLITS[study][1:], strict=True)]
    lines = []
    for name in names:
        speed = results["speed"]["rows"].get(name, {})
        lines.append(line(name, main[name], speed, [table[name] for table in beside]))
    return f"<!-- {study}: {match['rows']} -->\n{grid(Table('', columns, lines, left=2))}\n<!-- end -->"


def headline(match: re.Match[str]) -> str:
    """The marked table of accuracies and of differences from GRPO, a line "row: how to call it" each."""
    studies, lines = [found(study)["splits"][split] for study, (split, *_) in SPLITS.items()], []
    for row, label in (line.split(": ", 1) for line in match["rows"].splitlines()):
        cells = [label]
        for table in studies:
            gap = table[row]["against"].get("grpo")
            cells += [f"{percent(table[row]['accuracy']['mean'])} %"]
            cells += [f"{points(gap['mean'])} ({interval(gap, points)})" if gap else ""]
        lines.append(cells)
    columns = ["", "one box", "against GRPO", "two boxes (the paper's split)", "against GRPO"]
    return f"<!-- headline\n{match['rows']}-->\n{grid(Table('', columns, lines, left=1))}\n<!-- end -->"


def anew(page: Path) -> tuple[str, int]:
    """The text of a page with its tables made anew, and how many these are."""
    text, tables = TABLE.subn(made, page.read_text("utf-8"))
    text, headlines = HEADLINE.subn(headline, text)
    return text, tables + headlines


if __name__ == "__main__":
    for page in (DOCS / "RESULTS.md", DOCS.parent / "README.md"):
        page.write_text(anew(page)[0], "utf-8")

"""Write the tables of RESULTS.md anew from results/*/results.json: ``python docs/results_tables.py``.

A table stands between ``<!-- STUDY: row | row | ... -->`` and ``<!-- end -->``.
"""

import json
import re
from pathlib import Path
from typing import Any

from skillsd.compare.tables import Table, grid, interval, p_value, percent, points

DOCS = Path(__file__).parent
TABLE = re.compile(r"<!-- (?P<study>\w+): (?P<rows>.+?) -->\n.*?<!-- end -->", re.DOTALL)
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


def made(match: re.Match[str]) -> str:
    """The marked table, made of what the study found. Raises KeyError for a row that it does not have."""
    study, names = match["study"], [name.strip() for name in match["rows"].split("|")]
    found = json.loads((DOCS.parent / "results" / study / "results.json").read_text("utf-8"))
    main, *beside = (found["splits"][split] for split in SPLITS[study])
    columns = ["row", "seeds: accuracy, %", "mean", "95 %", "against GRPO", "95 %", "p (Holm)"]
    columns += ["on the way", "against GRPO", "95 %"]
    columns += [f"{table['base']['tasks']} {split}" for table, split in zip(beside, SPLITS[study][1:], strict=True)]
    lines = []
    for name in names:
        speed = found["speed"]["rows"].get(name, {})
        lines.append(line(name, main[name], speed, [table[name] for table in beside]))
    return f"<!-- {study}: {match['rows']} -->\n{grid(Table('', columns, lines, left=2))}\n<!-- end -->"


if __name__ == "__main__":
    page = DOCS / "RESULTS.md"
    page.write_text(TABLE.sub(made, page.read_text("utf-8")), "utf-8")

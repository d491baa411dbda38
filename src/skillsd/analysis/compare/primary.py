"""The contrasts that a comparison was made for, each declared in its file before a cell was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skillsd.analysis.compare.cell import Cell
from skillsd.analysis.compare.stats import seed_difference, sign_flip

#: How many evaluations a contrast is measured by.
LAST = 3


def contrast(rows: Mapping[str, Sequence[Cell]], row: str, against: str) -> dict[str, Any] | None:
    """How much better ``row`` is than ``against`` at the end of training; None without a seed that both have.

    Shares in [0, 1]. The measure is :func:`final`; the interval is that of paired t over seeds, ``p`` its p-value,
    ``p_sign`` that of the exact test over the signs of the seeds' differences.
    """
    ends = [{cell.seed: final(cell) for cell in rows.get(name, [])} for name in (row, against)]
    if against == "base" and len(ends[1]) == 1:  # the untrained model decodes greedily: the same with every seed
        ends[1] = dict.fromkeys(ends[0], next(iter(ends[1].values())))
    common = sorted(ends[0].keys() & ends[1].keys())
    if not common:
        return None
    ours, theirs = ({seed: end[seed] for seed in common} for end in ends)
    found = seed_difference(ours, theirs)
    return {
        "row": row,
        "against": against,
        "levels": [sum(end.values()) / len(common) for end in (ours, theirs)],
        "mean": found.value,
        "low": found.low,
        "high": found.high,
        "seeds": len(common),
        "notes": list(found.notes),
        "p": found.p,
        "p_sign": sign_flip([ours[seed] - theirs[seed] for seed in common]),
        "by_seed": {str(seed): [ours[seed], theirs[seed]] for seed in common},
    }


def final(cell: Cell) -> float:
    """The mean of the last evaluations during training, which one dip moves less; else the accuracy afterwards."""
    measured = [point.eval_accuracy for point in cell.curve if point.eval_accuracy is not None][-LAST:]
    values: Sequence[float] = measured or next(iter(cell.after.values())).success
    return sum(values) / len(values)

"""The contrasts that a comparison was made for, each declared in its file before a cell was run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from skillsd.analysis.compare.cell import Cell
from skillsd.analysis.compare.stats import mean_height, seed_difference, sign_flip

#: How many evaluations a contrast is measured by.
LAST = 3

#: The mean of the last evaluations (:func:`final`), or of all that training spans (:func:`speed`).
Measure = Literal["end", "training"]

T = TypeVar("T")


def contrast(
    rows: Mapping[str, Sequence[Cell]], row: str, against: str, measure: Measure = "end"
) -> dict[str, Any] | None:
    """How much better ``row`` is than ``against``; None without a seed that both have.

    Shares in [0, 1]. The interval is that of paired t over seeds, ``p`` its p-value, ``p_sign`` that of the exact test
    over the signs of the seeds' differences.
    """
    value = {"end": final, "training": speed}[measure]
    found, other = ({c.seed: value(c) for c in rows.get(name, [])} for name in (row, against))
    theirs = for_seeds(other, found) if against == "base" else other
    pairs = {seed: [found[seed], theirs[seed]] for seed in sorted(found.keys() & theirs.keys())}
    if not pairs:
        return None
    ours, others = ({seed: pair[i] for seed, pair in pairs.items()} for i in (0, 1))
    gap = seed_difference(ours, others)
    return {
        "row": row,
        "against": against,
        "measure": measure,
        "levels": [sum(level) / len(pairs) for level in zip(*pairs.values(), strict=True)],
        "mean": gap.value,
        "low": gap.low,
        "high": gap.high,
        "seeds": len(pairs),
        "notes": list(gap.notes),
        "p": gap.p,
        "p_sign": sign_flip([first - second for first, second in pairs.values()]),
        "by_seed": {str(seed): pair for seed, pair in pairs.items()},
    }


def for_seeds(untrained: Mapping[int, T], seeds: Iterable[int]) -> Mapping[int, T]:
    """What was measured of the untrained model, which decodes greedily: once for all seeds, or for each its own."""
    return dict.fromkeys(seeds, next(iter(untrained.values()))) if len(untrained) == 1 else untrained


def final(cell: Cell) -> float:
    """The mean of the last evaluations during training, which one dip moves less; else the accuracy afterwards."""
    measured = [accuracy for _, accuracy in cell.measured("eval_accuracy")[-LAST:]]
    values: Sequence[float] = measured or next(iter(cell.after.values())).success
    return sum(values) / len(values)


def speed(cell: Cell) -> float:
    """The mean accuracy on held-out tasks from the first evaluation to the last; else the accuracy afterwards.

    Of two rows that end alike, the one that got there earlier has more of it.
    """
    curve = cell.measured("eval_accuracy")
    return mean_height(curve, curve[0][0], curve[-1][0]) if len(curve) > 1 else final(cell)

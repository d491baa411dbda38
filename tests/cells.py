"""Made-up cells of a comparison, in files of their own as real ones."""

import numpy as np

from skillsd.analysis.compare.cell import Cell, Point, SplitResult

TASKS = [f"task-{i}" for i in range(40)]
NASTY = "<script>alert(1)</script> | λ"


def split(rate, rng, tasks=TASKS):
    success = [int(rng.random() < rate) for _ in tasks]
    return SplitResult(task_ids=tasks, success=success, completion=[max(s, 0.5) for s in success])


def cell(row, seed, rate, curve=True, **changes):
    rng = np.random.default_rng([seed, len(row)])
    points = [
        Point(
            iteration=i, episodes=64 * i, accuracy=rate * i / 20,
            eval_accuracy=rate * i / 20 if i % 4 == 0 else None,
            teacher_accuracy=0.9 if i % 10 == 0 and row == "skill_sd" else None,
        )
        for i in range(1, 21)
    ]  # fmt: skip
    values = {
        "row": row, "seed": seed, "method": "grpo", "overrides": {"optim": {"lr": 0.1}},
        "after": {"test": split(rate, rng)}, "curve": points if curve else [],
        "episodes": 1280, "iterations": 20 if curve else 0,
        "seconds": {"rollout": 40.0, "update": 20.0, "checkpoint": 2.0, "total": 70.0} if curve else {},
        "versions": {"python": "3"},
    }  # fmt: skip
    return Cell(**{**values, **changes})


def made():
    rates = {"grpo": 0.4, "skill_sd": 0.8, NASTY: 0.5, "$x^": 0.3}
    trained = [cell(row, seed, rate) for seed in range(5) for row, rate in rates.items()]
    return [*trained, cell("base", 0, 0.1, curve=False)]

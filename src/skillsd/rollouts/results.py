"""What episodes of an evaluation say: accuracy, completion, unbiased pass@k, and their intervals."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from skillsd.errors import SkillSDError
from skillsd.rollouts.rollout import Dropped
from skillsd.system.files import regular, write_atomic
from skillsd.types import Task, Trajectory

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Interval = tuple[Share, Share]


@dataclass(frozen=True)
class EvalResult:
    """``accuracy`` and ``completion`` are means over tasks in [0, 1]; intervals are 95 %.

    A dropped episode (its environment failed) counts as a failure, and is counted in ``dropped`` and, by how it failed,
    in ``drop_reasons``.
    """

    split: str
    tasks: Count
    accuracy: Share
    accuracy_interval: Interval
    completion: Share
    completion_interval: Interval
    pass_at_k: dict[int, Share]
    mean_turns: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    valid_actions: Share
    dropped: Count
    per_task: list[dict[str, Any]]
    #: Share of scenarios of which every task was solved (AppWorld's scenario goal completion); None without scenarios.
    scenario_accuracy: Share | None = None
    drop_reasons: dict[str, int] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all. Raises :class:`SkillSDError` where that fails."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(asdict(self), indent=1).encode())
        except OSError as error:
            raise SkillSDError(f"{path}: cannot be written ({error.strerror or error})") from None

    @classmethod
    def load(cls, path: Path) -> EvalResult:
        """Read what :meth:`save` wrote. Raises :class:`SkillSDError` (one line) for anything else."""
        try:
            return TypeAdapter(cls).validate_json(regular(path).read_bytes())
        except (OSError, ValidationError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise SkillSDError(f"{path}: not the result of an evaluation ({reason}); move it away") from None


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> Interval:
    """Wilson's score interval for a proportion; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    p = successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(values: Sequence[float], seed: int = 0, resamples: int = 4000) -> Interval:
    """Percentile bootstrap of the mean."""
    if not values:
        return 0.0, 1.0
    array = np.asarray(values, dtype=np.float64)
    index = np.random.default_rng(seed).integers(0, len(array), (resamples, len(array)))
    low, high = np.quantile(array[index].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def pass_at_k(samples: int, successes: int, k: int) -> float:
    """Unbiased estimate 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374). Needs k <= n."""
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples, has {samples}")
    return 1.0 - math.comb(samples - successes, k) / math.comb(samples, k)


def summarize(
    split: str,
    tasks: Sequence[Task],
    trajectories: Sequence[Trajectory],
    samples: int,
    dropped: Sequence[Dropped] = (),
) -> EvalResult:
    """Results of ``samples`` episodes a task. pass@k is given for powers of two up to ``samples``."""
    by_task: dict[str, list[Trajectory]] = {task.id: [] for task in tasks}
    for trajectory in trajectories:
        by_task[trajectory.task_id].append(trajectory)
    per_task: list[dict[str, Any]] = [
        {
            "task": task_id,
            "successes": sum(t.success for t in found),
            "samples": samples,
            "completion": sum(t.completion for t in found) / samples,
            "turns": [len(t.turns) for t in found],
        }
        for task_id, found in by_task.items()
    ]
    accuracies = [row["successes"] / samples for row in per_task]
    completions = [row["completion"] for row in per_task]
    wins = sum(row["successes"] for row in per_task)
    turns = [turn for t in trajectories for turn in t.turns]
    mean = sum(accuracies) / max(1, len(accuracies))
    return EvalResult(
        split=split,
        tasks=len(tasks),
        accuracy=mean,
        # Samples of one task are not independent, so with several the tasks are resampled instead.
        accuracy_interval=wilson_interval(wins, len(tasks)) if samples == 1 else bootstrap_interval(accuracies),
        completion=sum(completions) / max(1, len(completions)),
        completion_interval=bootstrap_interval(completions),
        pass_at_k={
            k: sum(pass_at_k(samples, row["successes"], k) for row in per_task) / max(1, len(per_task))
            for k in (2**i for i in range(samples.bit_length()))
            if k <= samples
        },
        mean_turns=sum(len(t.turns) for t in trajectories) / max(1, len(trajectories)),
        valid_actions=sum(t.valid for t in turns) / max(1, len(turns)),
        dropped=len(tasks) * samples - len(trajectories),
        per_task=per_task,
        scenario_accuracy=_scenario_accuracy(tasks, accuracies),
        drop_reasons=dict(Counter(d.reason for d in dropped).most_common()),
    )


def _scenario_accuracy(tasks: Sequence[Task], accuracies: Sequence[float]) -> float | None:
    """Of the scenarios that ``tasks`` name in their data, the share that was solved throughout."""
    solved: dict[str, bool] = {}
    for task, accuracy in zip(tasks, accuracies, strict=True):
        if isinstance(name := task.data.get("scenario"), str):
            solved[name] = solved.get(name, True) and accuracy == 1.0
    return sum(solved.values()) / len(solved) if solved else None

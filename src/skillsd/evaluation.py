"""Greedy pass@1, completion, unbiased pass@k, and their intervals; per-task results are kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from skillsd.config import Config
from skillsd.envs.base import HasReference, Task, TaskSet
from skillsd.errors import UsageError
from skillsd.parallel import Processes
from skillsd.policy.chat import ChatFormat
from skillsd.policy.engines.base import Engine
from skillsd.policy.engines.transformers import TransformersEngine
from skillsd.policy.loading import Policy, load_policy
from skillsd.rollout import Job, rollout
from skillsd.run_dir import write_atomic
from skillsd.seeding import derive_seed
from skillsd.trajectory import Trajectory

Interval = tuple[float, float]


@dataclass(frozen=True)
class EvalResult:
    """``accuracy`` and ``completion`` are means over tasks in [0, 1]; intervals are 95 %.

    A dropped episode (its environment failed) counts as a failure, and is counted in ``dropped``.
    """

    split: str
    tasks: int
    accuracy: float
    accuracy_interval: Interval
    completion: float
    completion_interval: Interval
    pass_at_k: dict[int, float]
    mean_turns: float
    valid_actions: float
    dropped: int
    per_task: list[dict[str, Any]]
    #: Share of scenarios of which every task was solved (AppWorld's scenario goal completion); None without scenarios.
    scenario_accuracy: float | None = None

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> EvalResult:
        """Read what :meth:`save` wrote."""
        tree = json.loads(path.read_text("utf-8"))
        for key in ("accuracy_interval", "completion_interval"):
            tree[key] = tuple(tree[key])
        return cls(**{**tree, "pass_at_k": {int(k): v for k, v in tree["pass_at_k"].items()}})


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


def summarize(split: str, tasks: Sequence[Task], trajectories: Sequence[Trajectory], samples: int) -> EvalResult:
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
    )


def _scenario_accuracy(tasks: Sequence[Task], accuracies: Sequence[float]) -> float | None:
    """Of the scenarios that ``tasks`` name in their data, the share that was solved throughout."""
    solved: dict[str, bool] = {}
    for task, accuracy in zip(tasks, accuracies, strict=True):
        if name := task.data.get("scenario"):
            solved[name] = solved.get(name, True) and accuracy == 1.0
    return sum(solved.values()) / len(solved) if solved else None


def evaluate_model(
    model: PreTrainedModel,
    chat: ChatFormat,
    taskset: TaskSet,
    config: Config,
    split: str,
    *,
    limit: int | None = None,
    samples: int = 1,
    with_reference: bool = False,
    processes: Processes | None = None,
    engine: Engine | None = None,
    on_turn: Callable[[int, int], None] | None = None,
) -> EvalResult:
    """Evaluate under the plain prompt: greedy for one sample a task, else at the training temperature.

    ``processes`` share the episodes; all get the result. ``engine`` plays in place of ``model``. ``with_reference``
    puts the task's reference skill into the prompt: the strength of the model as a teacher.
    """
    tasks = list(taskset.tasks(split))[:limit]
    skills = [
        taskset.reference(task) if with_reference and isinstance(taskset, HasReference) else None for task in tasks
    ]
    jobs = [
        Job(task, sample, derive_seed(config.seed, "evaluate", split, task.id, sample), skill)
        for task, skill in zip(tasks, skills, strict=True)
        for sample in range(samples)
    ]
    mine = processes.share(jobs) if processes else jobs
    temperature = 0.0 if samples == 1 else config.rollout.temperature
    trajectories = play(model, chat, taskset, config, mine, temperature, engine=engine, on_turn=on_turn)
    return summarize(split, tasks, processes.gather(trajectories) if processes else trajectories, samples)


def play(
    model: PreTrainedModel,
    chat: ChatFormat,
    taskset: TaskSet,
    config: Config,
    jobs: Sequence[Job],
    temperature: float,
    *,
    engine: Engine | None = None,
    on_turn: Callable[[int, int], None] | None = None,
) -> list[Trajectory]:
    """Play ``jobs`` outside training, under ``config``'s limits; ``temperature`` 0 is greedy."""
    limit = config.rollout.max_new_tokens
    return rollout(
        engine or TransformersEngine(model, chat, temperature=temperature, max_new_tokens=limit),
        chat,
        taskset,
        jobs,
        iteration=0,
        max_turns=config.rollout.max_turns or taskset.max_turns,
        max_tokens=config.rollout.max_tokens,
        turn_timeout=config.env.turn_timeout,
        episode_timeout=config.env.episode_timeout,
        batch_size=config.rollout.batch_size,
        on_turn=on_turn,
    ).trajectories


def evaluate(
    run_or_model: str | Path,
    *,
    env: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    samples: int = 1,
    env_options: dict[str, Any] | None = None,
    on_turn: Callable[[int, int], None] | None = None,
) -> EvalResult:
    """Evaluate a run's newest checkpoint, a checkpoint folder, a model folder or hub id, or ``embedded``.

    ``env``, ``env_options`` and ``split`` default to the run's own test split (for a bare model: the demo's).
    Raises :class:`UsageError` for what is not there.
    """
    policy, taskset, config = open_policy(run_or_model, env=env, env_options=env_options)
    return evaluate_model(
        policy.model,
        policy.chat,
        taskset,
        config,
        split or config.env.test_split,
        limit=limit,
        samples=samples,
        on_turn=on_turn,
    )


def open_policy(
    run_or_model: str | Path, *, env: str | None = None, env_options: dict[str, Any] | None = None
) -> tuple[Policy, TaskSet, Config]:
    """A policy with the task set and the settings that go with it: the run's own, or the demo's for a bare model.

    Raises :class:`UsageError` for what is not there.
    """
    from skillsd.checkpoint import latest
    from skillsd.config import EnvConfig, ModelConfig, load_config
    from skillsd.envs import make_taskset
    from skillsd.run_dir import RunDir

    run = RunDir(run_or_model)
    if run.config.is_file():
        config, newest = run.load_config(), latest(run)
        if newest is None:
            raise UsageError(f"{run.path}: the run has no checkpoint yet")
        path = str(newest)
    else:
        config = load_config("sokoban-demo")
        path = str(run_or_model)
    if env is not None or env_options is not None:
        config = config.model_copy(update={"env": EnvConfig(name=env or config.env.name, options=env_options or {})})
    policy = load_policy(ModelConfig(**{**config.model.model_dump(), "path": path}))
    taskset = make_taskset(config.env.name, **config.env.options)
    return policy, taskset, config

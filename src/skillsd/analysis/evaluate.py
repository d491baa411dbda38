"""A run, or a model, on a split of tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from skillsd.config import Config, load_config, with_environment, with_model
from skillsd.envs import make_taskset
from skillsd.envs.base import TaskSet
from skillsd.errors import SkillSDError, UsageError, shown
from skillsd.policy.loading import Policy, load_policy
from skillsd.rollouts.playing import evaluate_model
from skillsd.rollouts.results import EvalResult
from skillsd.runs.checkpoint import check_model, latest
from skillsd.runs.folder import RunDir

#: Episodes of one task in an evaluation.
MOST_SAMPLES = 10_000


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
    Raises :class:`UsageError` for what is not there, and :class:`SkillSDError` where every episode was dropped.
    """
    for what, value in (("limit", 1 if limit is None else limit), ("samples", samples)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{what} is {shown(value)}: make it a whole number of at least 1")
    if samples > MOST_SAMPLES:
        raise UsageError(f"samples is {shown(samples)}: {MOST_SAMPLES} are the most")
    policy, taskset, config = open_policy(run_or_model, env=env, env_options=env_options)
    result = evaluate_model(
        policy.model,
        policy.chat,
        taskset,
        config,
        split or config.env.test_split,
        limit=limit,
        samples=samples,
        on_turn=on_turn,
    )
    if result.dropped == result.tasks * samples:
        raise SkillSDError(f"every episode was dropped ({next(iter(result.drop_reasons), 'no reason given')})")
    return result


def open_policy(
    run_or_model: str | Path, *, env: str | None = None, env_options: dict[str, Any] | None = None
) -> tuple[Policy, TaskSet, Config]:
    """A policy with the task set and the settings that go with it: the run's own, or the demo's for a bare model.

    ``env_options`` are laid over the run's own where ``env`` is its own too; another one gets these alone. Raises
    :class:`UsageError` for what is not there.
    """
    run = RunDir(run_or_model)
    if run.config.is_file():
        config, newest = run.load_config(), latest(run)
        if newest is None:
            raise UsageError(f"{run.path}: the run has no checkpoint yet")
        path, day = str(newest), run.day()
    else:
        config = load_config("sokoban-demo")
        path, day = str(run_or_model), None
    check_model(Path(path))
    own = config.env
    if env is not None and env != own.name:
        config = with_environment(config, env, env_options or {})
    elif env_options:
        config = with_environment(config, own.name, {**own.options, **env_options})
    policy = load_policy(with_model(config, path).model, day=day)
    taskset = make_taskset(config.env.name, **config.env.options)
    return policy, taskset, config

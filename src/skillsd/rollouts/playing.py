"""Episodes outside training: a split of a task set under the plain prompt, or any jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

from transformers import PreTrainedModel

from skillsd.config import Config
from skillsd.distributed.processes import Processes
from skillsd.envs import boundary
from skillsd.envs.base import TaskSet
from skillsd.policy.chat import ChatFormat
from skillsd.policy.engines.base import Engine
from skillsd.policy.engines.transformers import TransformersEngine
from skillsd.policy.loading import precision
from skillsd.rollouts.results import EvalResult, summarize
from skillsd.rollouts.rollout import Job, RolloutBatch, rollout
from skillsd.seeding import derive_seed


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
    tasks = boundary.tasks_of(taskset, split, limit)
    skills = [boundary.reference(taskset, task) if with_reference else None for task in tasks]
    jobs = [
        Job(task, sample, derive_seed(config.seed, "evaluate", split, task.id, sample), skill)
        for task, skill in zip(tasks, skills, strict=True)
        for sample in range(samples)
    ]
    mine = processes.share(jobs) if processes else jobs
    temperature = 0.0 if samples == 1 else config.rollout.temperature
    batch = play(model, chat, taskset, config, mine, temperature, engine=engine, on_turn=on_turn)
    if processes:
        batch = RolloutBatch(processes.gather(batch.trajectories), processes.gather(batch.dropped))
    return summarize(split, tasks, batch.trajectories, samples, batch.dropped)


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
) -> RolloutBatch:
    """Play ``jobs`` outside training, under ``config``'s limits and in its precision; ``temperature`` 0 is greedy."""
    limit = config.rollout.max_new_tokens
    with nullcontext() if engine else precision(config.model, model):
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
        )

"""A summariser tried on the trajectories of a finished run, which stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from skillsd.analysis.evaluate import open_policy
from skillsd.config import SummarizerConfig, load_config
from skillsd.config.overrides import only
from skillsd.envs import boundary, make_taskset
from skillsd.errors import UsageError
from skillsd.runs.folder import RunDir
from skillsd.skills.summarize import check_knows, make_summarizer
from skillsd.skills.summarize.base import Metered
from skillsd.skills.summarize.prompting import Prompt
from skillsd.skills.summarize.queue import summarize_now
from skillsd.types import SummaryRequest, Trajectory

#: The settings that count here.
USED = (
    "skills.summarizer", "skills.workers", "seed", "optim.max_tokens_per_device", "rollout.batch_size",
    *(f"summarizer.{name}" for name in SummarizerConfig.model_fields if name != "cache"),
)  # fmt: skip


def attempt(
    run: str | Path,
    overrides: Sequence[str] = (),
    wanted: str | None = None,
    limit: int = 3,
    warn: Callable[[str], None] = lambda text: None,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """What the run's summariser, with settings overridden, makes of the trajectory ``wanted`` (an id) or of ``limit``.

    By default those are successes and failures of the last iteration in turn. ``policy`` is the newest checkpoint.
    Returns a row for each (``skill`` or ``error``, and the ``prompt`` of an LLM), and the summariser's counts. Raises
    :class:`UsageError` for what is not there.
    """
    folder = RunDir(run)
    folder.load_config()  # what is wrong with the file itself is told with its name
    only(overrides, USED, "skills try")
    config = load_config(folder.config, overrides)
    chosen = _choose(folder, wanted, limit)
    settings = config.summarizer.model_copy(update={"cache": None})
    config = config.model_copy(update={"summarizer": settings})
    name, policy = config.skills.summarizer, None
    if name == "policy":
        policy = open_policy(run)[0]
    prompt = Prompt(settings.prompt) if name in ("openai", "policy") else None
    taskset = make_taskset(config.env.name, **config.env.options)
    tasks = {t.id: t for t in boundary.tasks_of(taskset, config.env.train_split)}
    if unknown := next((t.task_id for t in chosen if t.task_id not in tasks), None):
        raise UsageError(f"{folder.path}: {config.env.name} has no task {unknown!r} any more")
    check_knows(config, taskset)
    summarizer = make_summarizer(name, config, taskset=taskset, policy=policy)
    requests = [SummaryRequest(t, tasks[t.task_id]) for t in chosen]
    rows = [
        {
            "trajectory": summary.trajectory.id,
            "success": summary.trajectory.success,
            "completion": summary.trajectory.completion,
            "skill": summary.skill.model_dump() if summary.skill else None,
            "error": summary.error,
            "prompt": prompt.render(summary.trajectory, settings.conversation_chars) if prompt else None,
        }
        for summary in summarize_now(summarizer, requests, config.skills.workers)
    ]
    counts, notes = summarizer.drain() if isinstance(summarizer, Metered) else ({}, [])
    for note in notes:
        warn(note)
    return rows, counts


def _choose(folder: RunDir, wanted: str | None, limit: int) -> list[Trajectory]:
    if wanted is not None:
        number, _, rest = wanted.partition("/")
        there = number.isdecimal() and int(number) in folder.recorded()
        found = folder.find_trajectories([f"{int(number):06d}/{rest}"]) if there else []
        if not found:
            raise UsageError(f"{folder.path} holds no trajectory {wanted!r}: ids are ITERATION/TASK/SAMPLE")
        return found
    if not (recorded := folder.recorded()):
        raise UsageError(f"{folder.path} holds no trajectories yet")
    batch = folder.read_trajectories(recorded[-1])
    good, bad = [t for t in batch if t.success], [t for t in batch if not t.success]
    mixed = [t for pair in zip(good, bad, strict=False) for t in pair]
    return [*mixed, *good[len(mixed) // 2 :], *bad[len(mixed) // 2 :]][:limit]

"""A summariser tried on the trajectories of a finished run, which stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from skillsd.config import load_config
from skillsd.envs import make_taskset
from skillsd.errors import UsageError
from skillsd.run_dir import RunDir
from skillsd.skills.summarize import SummaryRequest, make_summarizer
from skillsd.skills.summarize.base import Metered
from skillsd.skills.summarize.prompting import Prompt
from skillsd.skills.summarize.queue import summarize_now
from skillsd.trajectory import Trajectory


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
    if not folder.config.is_file():
        raise UsageError(f"{folder.path} holds no run (no config.toml)")
    config = load_config(folder.config, overrides)
    chosen = _choose(folder, wanted, limit)
    settings = config.summarizer.model_copy(update={"cache": None})
    config = config.model_copy(update={"summarizer": settings})
    name, policy = config.skills.summarizer, None
    if name == "policy":
        from skillsd.evaluation import open_policy

        policy = open_policy(run)[0]
    summarizer = make_summarizer(name, config, policy=policy)
    prompt = Prompt(settings.prompt) if name in ("openai", "policy") else None
    tasks = {t.id: t for t in make_taskset(config.env.name, **config.env.options).tasks(config.env.train_split)}
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
        there = number.isdigit() and folder.trajectory_file(int(number)).is_file()
        found = folder.find_trajectories([f"{int(number):06d}/{rest}"]) if there else []
        if not found:
            raise UsageError(f"{folder.path} holds no trajectory {wanted!r}: ids are ITERATION/TASK/SAMPLE")
        return found
    files = sorted(folder.trajectories.glob("*.parquet"))
    if not files:
        raise UsageError(f"{folder.path} holds no trajectories yet")
    batch = folder.read_trajectories(int(files[-1].stem))
    good, bad = [t for t in batch if t.success], [t for t in batch if not t.success]
    mixed = [t for pair in zip(good, bad, strict=False) for t in pair]
    return [*mixed, *good[len(mixed) // 2 :], *bad[len(mixed) // 2 :]][:limit]

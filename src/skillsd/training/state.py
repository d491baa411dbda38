"""What of a trainer a checkpoint keeps, and how it comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skillsd.envs.registry import digest
from skillsd.errors import UsageError
from skillsd.rollouts.rollout import RolloutBatch
from skillsd.rollouts.sampling import pack, unpack
from skillsd.runs import checkpoint
from skillsd.runs.health import CollapseAlarm
from skillsd.runs.resume import go_back
from skillsd.skills.bank import SkillBank
from skillsd.training.trainer import Trainer
from skillsd.types import Trajectory


@dataclass
class Found:
    """What a checkpoint said beside the weights."""

    alarm: CollapseAlarm = field(default_factory=CollapseAlarm)
    summaries: dict[str, Any] = field(default_factory=dict)


def restore(trainer: Trainer, path: Path | None) -> Found:
    """Put weights, optimiser and counters back from the checkpoint ``path``; None: nothing to do.

    Raises :class:`UsageError` if its training tasks are not the trainer's.
    """
    if path is None:
        return Found()
    model, teacher = trainer.model, trainer.teacher.copy
    state = checkpoint.load(path, model=model, optimizer=trainer.learner.optimizer, teacher=teacher)
    trainer.iteration = trainer.version = state["iteration"]
    if ahead := state.get("ahead"):
        tasks = trainer.tasks_of(ahead["iteration"])
        batch = RolloutBatch(checkpoint.load_ahead(path), unpack(ahead["dropped"], tasks))
        trainer.sampler.resume(ahead["iteration"], ahead["version"], batch, tasks)
    if (state.get("tasks") or digest(trainer.tasks)) != digest(trainer.tasks):
        raise UsageError(f"{trainer.config.env.name}: its training tasks are not those that the run began with")
    return Found(CollapseAlarm(**state["alarm"]), state)


def open_memory(trainer: Trainer, path: Path | None, found: Found) -> None:
    """Take the folder back to the checkpoint ``path``, open the bank, and go on summarising; for the main process."""
    run, skills, keep = trainer.run, trainer.config.skills, trainer.config.trainer.keep_checkpoints
    go_back(run, path, found.alarm, trainer.iteration, keep, trainer.warn)
    trainer.remember_in(
        SkillBank(run.bank, capacity=skills.capacity, exploration=skills.exploration, credit=skills.credit)
    )
    trainer.intake.resume(found.summaries, lambda ids: run.find_trajectories(ids, trainer.warn))


def save(trainer: Trainer, alarm: CollapseAlarm) -> None:
    """Write a checkpoint; every process has to call this. Keeps it apart if it is the best so far."""
    weights = checkpoint.collect(trainer.model, trainer.learner.optimizer, trainer.teacher.copy)
    state: dict[str, Any] = {
        "iteration": trainer.iteration, "alarm": alarm.state(), "tasks": digest(trainer.tasks),
    }  # fmt: skip
    trajectories: list[Trajectory] = []
    if unfinished := trainer.sampler.unfinished():
        ahead, batch = unfinished
        trajectories, dropped = batch.trajectories, pack(batch.dropped)
        state["ahead"] = {"iteration": ahead.iteration, "version": ahead.version, "dropped": dropped}
    if not trainer.processes.main:
        return
    path = checkpoint.save(
        trainer.run,
        state | trainer.intake.state(),
        weights,
        trajectories,
        model=trainer.model,
        tokenizer=trainer.policy.tokenizer,
        teacher=trainer.teacher.copy,
        bank=trainer.bank,
        keep=trainer.config.trainer.keep_checkpoints,
    )
    if alarm.at_best:
        checkpoint.keep_best(trainer.run, path)

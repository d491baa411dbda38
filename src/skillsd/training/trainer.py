"""Skill-SD, Algorithm 1 (arXiv:2604.10674), a method for each of its steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from skillsd.errors import SkillSDError
from skillsd.rollouts.rollout import RolloutBatch
from skillsd.runs.health import rollout_metrics
from skillsd.seeding import derive_seed, permutation
from skillsd.skills.retrieval import separation
from skillsd.training.hints import as_shown, from_bank, from_reference, in_hindsight
from skillsd.training.parts import Parts
from skillsd.training.scoring import Row, Scores, assign_advantages, imitate
from skillsd.types import Hint, Hints, Task, Trajectory


class Trainer(Parts):
    """Iterates; whoever calls :meth:`step` saves, evaluates and stops (:mod:`skillsd.training.loop`)."""

    iteration = 0
    #: Updates that the present weights have seen.
    version = 0

    def step(self) -> dict[str, Any]:
        """One iteration; returns its metrics."""
        self.iteration += 1
        torch.manual_seed(derive_seed(self.config.seed, "iteration", self.iteration))
        self.teacher.synchronize()  # pi_T <- pi_theta
        tasks = self.tasks_of(self.iteration)
        hints = self.retrieve(tasks)  # S(x), by the utility of each skill
        batch, staleness = self.play(tasks, hints)  # tau_1 ... tau_G ~ pi_theta( . | x)
        hints |= self.look_back(batch.trajectories)
        rows = [self.views.row(played, hints.get(played.task_id)) for played in batch.trajectories]
        groups = assign_advantages(rows, self.config.loss.advantage_eps)  # A_i = (R_i - mean R) / std R
        if self.spec.distill == "imitation":
            imitate(rows, self.config.loss.weight_at(self.iteration))
        self.look_ahead()
        scores, shown = self.score(rows, hints)  # log pi_theta(tau | x) and log pi_T(tau | S(x), x), token by token
        losses = self.update(rows, scores)  # theta <- theta - eta * grad(L_GRPO + lambda * L_SDL)
        known = self.remember(hints, rows, scores)  # new skills from tau, new utilities from R
        return {
            "iteration": self.iteration,
            **rollout_metrics(batch),
            "staleness": staleness,
            **groups,
            **losses,
            "teacher_rows_with_skill": shown,
            "tasks_with_skill": len(hints) / len(tasks),
            **known,
        }

    def tasks_of(self, iteration: int) -> list[Task]:
        """The tasks of ``iteration``: every epoch is a fresh permutation, a partial last batch is left out."""
        size = min(self.config.rollout.tasks_per_iteration, len(self.tasks))
        epoch, place = divmod(iteration - 1, len(self.tasks) // size)
        order = permutation(len(self.tasks), self.config.seed, "epoch", epoch)
        return [self.tasks[i] for i in order[place * size : (place + 1) * size]]

    def retrieve(self, tasks: Sequence[Task]) -> Hints:
        """S(x), once per task and iteration; a task for which nothing is known has no entry."""

        def find() -> Hints:
            if self.spec.privileged == "reference":
                return self.shown(from_reference(tasks, self.taskset))
            if self.spec.privileged == "plain":
                return {task.id: Hint(None, None) for task in tasks}
            return self.shown(from_bank(tasks, self.bank, self.groups)) if self.spec.uses_bank else {}

        return self.processes.from_main(find)

    def play(self, tasks: Sequence[Task], hints: Hints) -> tuple[RolloutBatch, int]:
        """G trajectories a task, and how many updates their sampler lags behind."""
        with self.phase("rollout"):
            batch, staleness = self.sampler.batch(self.iteration, self.version, tasks, hints)
        if not batch.trajectories:
            reason = batch.dropped[0].reason if batch.dropped else "no episodes"
            raise SkillSDError(f"iteration {self.iteration}: every episode was dropped ({reason})")
        for reason, count in Counter(d.reason for d in batch.dropped).items():
            self.warn(f"episodes dropped: {count} ({reason})")
        return batch, staleness

    def look_back(self, trajectories: Sequence[Trajectory]) -> Hints:
        """Skills from this very batch, for methods that teach in hindsight."""

        def find() -> Hints:
            if self.spec.privileged != "hindsight":
                return {}
            workers = self.config.skills.workers
            return self.shown(in_hindsight(trajectories, self.by_id, self.summarizer, self.warn, workers))

        with self.summarizing():
            return self.processes.from_main(find)

    def shown(self, hints: Hints) -> Hints:
        """``hints`` as ``skills.shown`` has them presented."""
        seed = derive_seed(self.config.seed, "shown", self.iteration)
        return as_shown(hints, self.config.skills.shown, seed, self.taskset, self.by_id)

    def look_ahead(self) -> None:
        """Let the next iteration's episodes begin, if that is asked for: with the weights before this update."""
        if self.config.trainer.asynchronous and not self.last:
            following = self.iteration + 1
            self.sampler.begin(following, self.version, self.tasks_of(following))

    def score(self, rows: Sequence[Row], hints: Hints) -> tuple[Scores, float]:
        """Everybody's log-probs, and the share of rows whose teacher read a skill."""
        with self.phase("score"):
            shown = self.views.share_with_skill(rows, hints)
            return self.scorer.score(rows, self.teacher), shown

    def update(self, rows: Sequence[Row], scores: Scores) -> dict[str, float]:
        """The optimiser's steps; their metrics."""
        with self.phase("update"):
            losses = self.learner.update(rows, scores, self.iteration)
            self.version = self.iteration
        return losses

    def remember(self, hints: Hints, rows: Sequence[Row], scores: Scores) -> dict[str, int]:
        """What the run keeps of an iteration: its trajectories, what they say of the skills read, and new skills."""

        def keep() -> dict[str, int]:
            trajectories = [row.trajectory for row in rows]
            self.run.write_trajectories(self.iteration, trajectories)
            self.credit(hints, rows, scores)
            summaries = self.intake.take(trajectories, self.last) if self.spec.uses_bank else {}
            bank = self.bank.stats()
            counts = {"bank_size": bank.skills, "retrievals": bank.retrievals}
            return {**summaries, **counts, "summaries_pending": len(self.intake.pending)}

        with self.phase("summarize"), self.summarizing():
            return self.processes.from_main(keep)

    def credit(self, hints: Hints, rows: Sequence[Row], scores: Scores) -> None:
        """Tell the bank how the group fared whose teacher read each skill, or how well it told good from bad."""
        for task_id, hint in hints.items():
            group = [i for i, row in enumerate(rows) if row.trajectory.task_id == task_id]
            if hint.id is None or not group:
                continue
            rewards = [rows[i].trajectory.reward for i in group]
            value: float | None = sum(rewards) / len(rewards)
            if self.config.skills.credit == "separation":
                value = separation(scores.favours(group), rewards)
            if value is not None:
                self.bank.credit(hint.id, value)

    @property
    def last(self) -> bool:
        """Whether no iteration comes after this one."""
        return self.iteration >= self.config.trainer.iterations

"""Skill-SD's training loop: Algorithm 1 of the paper (PAPER section 2), one function a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from skillsd import checkpoint
from skillsd.acting import Actors
from skillsd.alarm import CollapseAlarm
from skillsd.config import Config
from skillsd.envs import make_taskset
from skillsd.envs.base import HasReference, Task
from skillsd.errors import SkillSDError, UsageError
from skillsd.evaluation import EvalResult, evaluate_model
from skillsd.learner import Learner, Row, Scores, assign_advantages
from skillsd.metrics import peak_memory, rollout_metrics
from skillsd.parallel import Processes
from skillsd.policy.loading import load_policy
from skillsd.rollout import RolloutBatch
from skillsd.run_dir import RunDir
from skillsd.sampling import Sampler, pack, unpack
from skillsd.seeding import derive_seed, permutation
from skillsd.sharding import shard, whole
from skillsd.skills.bank import SkillBank
from skillsd.skills.hints import Hint, Hints, as_shown, from_bank, from_reference, in_hindsight
from skillsd.skills.retrieval import separation
from skillsd.skills.summarize import make_summarizer
from skillsd.skills.summarize.intake import Intake
from skillsd.skills.teacher_view import contains_skill, skill_view
from skillsd.teacher import Teacher
from skillsd.tracking import TensorBoard
from skillsd.trajectory import Trajectory

#: What happened, for whoever watches: kind ("iteration", "evaluation", "turn", "warning") and its data.
Listener = Callable[[str, dict[str, Any]], None]


@dataclass
class Trainer:
    """All that lives as long as a run."""

    config: Config
    run: RunDir
    listen: Listener
    processes: Processes = field(default_factory=Processes)
    iteration: int = 0
    saved: int = 0
    stop: bool = False
    board: TensorBoard | None = None
    #: Updates that the present weights have seen.
    version: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = self.config
        if not self.processes.main:
            self.listen = lambda kind, data: None
        self.spec = config.spec
        self.taskset = make_taskset(config.env.name, **config.env.options)
        self.tasks = list(self.taskset.tasks(config.env.train_split))[: config.env.train_tasks]
        if not self.tasks:
            raise UsageError(f"{config.env.name}: the split {config.env.train_split!r} has no tasks")
        if self.spec.privileged == "reference" and not isinstance(self.taskset, HasReference):
            raise UsageError(f"{config.method} needs reference solutions, which {config.env.name!r} does not have")
        torch.manual_seed(derive_seed(config.seed, "model"))  # new adapters are random
        self.policy = load_policy(config.model, train=True)
        self.model, self.chat = self.policy.model, self.policy.chat
        self.teacher = Teacher(self.spec.teacher, self.model, config.teacher.ema_decay)
        self.shard()
        self.learner = Learner(self.model, config, self.processes)
        self.actors = Actors(config, self.policy, self.teacher, self.processes, self.run.path)
        self.sampler = Sampler(
            config, self.taskset, self.actors, self.processes,
            lambda done, total: self.listen("turn", {"done": done, "total": total}),
        )  # fmt: skip
        self.alarm = CollapseAlarm()
        self.by_id = {task.id: task for task in self.tasks}

    # -- Algorithm 1 ---------------------------------------------------------------------------------------

    def step(self) -> dict[str, Any]:
        """One iteration; returns its metrics."""
        self.iteration += 1
        torch.manual_seed(derive_seed(self.config.seed, "iteration", self.iteration))
        self.teacher.synchronize()
        tasks = self.tasks_of(self.iteration)
        hints = self.processes.from_main(lambda: self.retrieve(tasks))
        with self.phase("rollout"):
            batch, staleness = self.sampler.batch(self.iteration, self.version, tasks, hints)
        if not batch.trajectories:
            reason = batch.dropped[0].reason if batch.dropped else "no episodes"
            raise SkillSDError(f"iteration {self.iteration}: every episode was dropped ({reason})")
        with self.summarizing():
            hints |= self.processes.from_main(lambda: self.look_back(batch.trajectories))
        rows = [self.view(trajectory, hints.get(trajectory.task_id)) for trajectory in batch.trajectories]
        groups = assign_advantages(rows, self.config.loss.advantage_eps)
        self.look_ahead()
        with self.phase("score"):
            shown = self.check_teacher_sees_skills(rows, hints)
            scores = self.learner.score(rows, self.teacher)
        with self.phase("update"):
            losses = self.learner.update(rows, scores, self.iteration)
            self.version = self.iteration
        with self.phase("summarize"), self.summarizing():
            known = self.processes.from_main(lambda: self.remember(hints, rows, scores))
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
        if self.spec.privileged == "reference":
            return self.shown(from_reference(tasks, self.taskset))
        return self.shown(from_bank(tasks, self.bank)) if self.spec.uses_bank else {}

    def look_back(self, trajectories: Sequence[Trajectory]) -> Hints:
        """Skills from this very batch, for methods that teach in hindsight."""
        if self.spec.privileged != "hindsight":
            return {}
        return self.shown(
            in_hindsight(trajectories, self.by_id, self.intake.summarizer, self.warn, self.config.skills.workers)
        )

    def shown(self, hints: Hints) -> Hints:
        """``hints`` as ``skills.shown`` has them presented."""
        return as_shown(hints, self.config.skills.shown, derive_seed(self.config.seed, "shown", self.iteration))

    def look_ahead(self) -> None:
        """Let the next iteration's episodes begin, if that is asked for: with the weights before this update."""
        if self.config.trainer.asynchronous and not self.last:
            following = self.iteration + 1
            self.sampler.begin(following, self.version, self.tasks_of(following))

    def view(self, trajectory: Trajectory, hint: Hint | None) -> Row:
        """The student's and the teacher's prompt of one trajectory; the completion's ids are shared."""
        student = trajectory.prompt_ids
        if self.spec.rollouts == "teacher":
            student = self.chat.prompt(trajectory.prompt)
        teacher = None
        if hint is not None and self.spec.distill != "none":
            trajectory.teacher_skill_id = hint.id
            prompt = trajectory.prompt
            teacher = self.chat.prompt(skill_view(hint.skill, prompt) if hint.skill else prompt)
            if len(teacher) > self.config.teacher.max_prompt_tokens:
                raise SkillSDError(
                    f"task {trajectory.task_id}: the teacher's prompt has {len(teacher)} tokens, more than "
                    f"teacher.max_prompt_tokens = {self.config.teacher.max_prompt_tokens}; skills are never cut"
                )
        return Row(trajectory, student, teacher)

    def check_teacher_sees_skills(self, rows: Sequence[Row], hints: Hints) -> float:
        """Share of rows whose teacher ids hold the skill's text. Raises if a skill was found and none does."""
        if self.spec.distill == "none" or not any(hint.skill for hint in hints.values()):
            return 0.0
        seen: dict[tuple[int, ...], bool] = {(): False}
        for row in rows:
            key, hint = tuple(row.teacher_prompt_ids or ()), hints.get(row.trajectory.task_id)
            if hint is not None and hint.skill is not None and key not in seen:
                seen[key] = contains_skill(key, hint.skill, self.policy.tokenizer)
        count = sum(seen[tuple(row.teacher_prompt_ids or ())] for row in rows)
        if count == 0:
            raise SkillSDError("skills were retrieved but no teacher prompt holds one: check the chat template")
        return count / len(rows)

    def remember(self, hints: Hints, rows: Sequence[Row], scores: Scores) -> dict[str, int]:
        """What the run keeps of an iteration: its trajectories, what they say of the skills read, and new skills."""
        trajectories = [row.trajectory for row in rows]
        self.run.write_trajectories(self.iteration, trajectories)
        self.credit(hints, rows, scores)
        summaries = self.intake.take(trajectories, self.last) if self.spec.uses_bank else {}
        bank = self.bank.stats()
        counts = {"bank_size": bank.skills, "retrievals": bank.retrievals}
        return {**summaries, **counts, "summaries_pending": len(self.intake.pending)}

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

    def warn(self, text: str) -> None:
        """Tell the listener."""
        self.listen("warning", {"text": text})

    # -- around the algorithm ------------------------------------------------------------------------------

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the seconds of a part of the iteration."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    @contextmanager
    def summarizing(self) -> Iterator[None]:
        """The main process summarises; where the policy does that, it needs all of its weights."""
        with whole(self.model) if self.config.skills.summarizer == "policy" else nullcontext():
            yield

    def shard(self) -> None:
        """Spread the weights over the processes, if that is asked for and there are several."""
        settings = self.config.trainer
        if not (settings.fsdp or settings.zero_stage) or self.processes.size == 1:
            return
        if settings.grad_norms_every:
            raise UsageError(
                "trainer.fsdp and trainer.zero_stage have no separate gradient norms: set trainer.grad_norms_every=0"
            )
        if not settings.fsdp:
            return  # the optimiser's part, for the learner to spread
        if settings.asynchronous and self.config.rollout.engine != "vllm":
            raise UsageError("trainer.asynchronous with trainer.fsdp needs rollout.engine=vllm")
        for model in (self.model, self.teacher.copy):
            if model is not None:
                shard(model, getattr(torch, self.config.model.dtype))

    def evaluate(
        self, split: str, limit: int | None, *, with_reference: bool = False, teacher: bool = False
    ) -> EvalResult:
        """Greedy evaluation of the student (or the ``teacher``) on a split."""
        if self.config.rollout.engine == "vllm":
            self.sampler.wait()  # the server has one set of weights at a time
        with self.actors.engine(self.version, 0.0, teacher=teacher) as engine:
            return evaluate_model(
                self.model,
                self.chat,
                self.taskset,
                self.config,
                split,
                limit=limit,
                with_reference=with_reference,
                processes=self.processes,
                engine=engine,
                on_turn=lambda done, total: self.listen("turn", {"done": done, "total": total}),
            )

    def evaluation_metrics(self) -> dict[str, float]:
        """Greedy accuracy of the student, and of its teacher with reference skills in its prompt, where due."""
        metrics: dict[str, float] = {}
        settings, split = self.config.eval, self.config.env.test_split
        if settings.every and self.iteration % settings.every == 0:
            with self.phase("evaluate"):
                result = self.evaluate(split, settings.tasks)
            metrics |= {"eval_accuracy": result.accuracy, "eval_completion": result.completion}
        if settings.panel_every and self.iteration % settings.panel_every == 0:
            with self.phase("panel"):
                result = self.evaluate(split, settings.panel_tasks, with_reference=True, teacher=True)
            metrics["teacher_accuracy"] = result.accuracy
        return metrics

    def open(self, resume: Path | None) -> None:
        """Take everything from the checkpoint ``resume``, if any; the main process has the bank and the summaries."""
        skills = self.config.skills
        state: dict[str, Any] = {}
        if resume is not None:
            state = checkpoint.load(resume, model=self.model, optimizer=self.learner.optimizer, teacher=self.teacher)
            self.iteration = self.saved = self.version = state["iteration"]
            if ahead := state.get("ahead"):
                tasks = self.tasks_of(ahead["iteration"])
                batch = RolloutBatch(checkpoint.load_ahead(resume), unpack(ahead["dropped"], tasks))
                self.sampler.resume(ahead["iteration"], ahead["version"], batch, tasks)
            self.alarm = CollapseAlarm(**state["alarm"])
        if not self.processes.main:
            return
        if resume is None:
            self.run.clear()
        else:
            checkpoint.restore_bank(resume, self.run.bank)
            self.run.rewind(self.iteration)
        self.bank = SkillBank(
            self.run.bank, capacity=skills.capacity, exploration=skills.exploration, credit=skills.credit
        )
        # A method without skills asks no summariser: what that needs may be missing.
        name = skills.summarizer if self.spec.uses_bank else "rules"
        summarizer = make_summarizer(name, self.config, policy=self.policy, folder=self.run.path)
        self.intake = Intake(summarizer, self.bank, self.by_id, skills, self.warn)
        if self.config.trainer.tensorboard:
            self.board = TensorBoard(self.run.tensorboard, self.iteration)
        self.intake.resume(state, self.run.find_trajectories)

    def close(self) -> None:
        """Whatever is still being summarised is in the last checkpoint's list, for ``resume``."""
        self.actors.close()
        if not self.processes.main:
            return
        self.intake.close()
        self.bank.close()
        if self.board:
            self.board.close()

    def save(self) -> None:
        """Write a checkpoint; keep it apart if it is the best so far."""
        self.saved = self.iteration
        weights = checkpoint.collect(self.model, self.learner.optimizer, self.teacher)
        state: dict[str, Any] = {"iteration": self.iteration, "alarm": self.alarm.state()}
        trajectories: list[Trajectory] = []
        if unfinished := self.sampler.unfinished():
            ahead, batch = unfinished
            trajectories, dropped = batch.trajectories, pack(batch.dropped)
            state["ahead"] = {"iteration": ahead.iteration, "version": ahead.version, "dropped": dropped}
        if not self.processes.main:
            return
        path = checkpoint.save(
            self.run,
            state | self.intake.state(),
            weights,
            trajectories,
            model=self.model,
            tokenizer=self.policy.tokenizer,
            teacher=self.teacher,
            bank=self.bank,
            keep=self.config.trainer.keep_checkpoints,
        )
        if self.alarm.at_best:
            checkpoint.keep_best(self.run, path)

    def loop(self) -> None:
        """Iterate until done or asked to stop; every iteration ends with its line of metrics on disk.

        ``seconds_checkpoint`` in it is what saving took since the line before, as its own is written before saving.
        """
        settings = self.config.trainer
        if self.last and self.processes.main and any(self.intake.absorb(last=True).values()):
            self.save()  # a finished run's late summaries
        while not (self.last or self.stop):
            started = time.perf_counter()
            metrics = self.step()
            metrics |= self.evaluation_metrics()
            if warning := self.alarm.update(metrics["accuracy"], metrics["valid_actions"]):
                metrics["alarm"] = warning
                self.warn(warning)
            metrics |= {f"seconds_{name}": round(value, 4) for name, value in self.seconds.items()}
            metrics["seconds"] = round(time.perf_counter() - started, 4)
            metrics["tokens_per_second"] = metrics["tokens"] / metrics["seconds"]
            metrics |= peak_memory(self.model.device)
            self.seconds = {}
            if self.processes.main:
                # The line before the checkpoint: a resumed run drops lines that its checkpoint does not know.
                self.run.append_metrics(metrics)
            if self.board:
                self.board.write(metrics)
            if self.last or self.iteration % settings.checkpoint_every == 0:
                with self.phase("checkpoint"):
                    self.save()
            self.listen("iteration", metrics)
            self.stop = self.processes.any(self.stop)
        if self.stop and self.saved < self.iteration:
            self.save()

    def interrupt(self) -> None:
        """End the run after this iteration, with a checkpoint."""
        self.stop = True
        self.warn("stopping after this iteration (ctrl-C again: at once)")

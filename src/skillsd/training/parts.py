"""What a run is made of: tasks, policy, teacher, scorer, learner, actors. All of it lives as long as the run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from skillsd.config import Config
from skillsd.config.idle import spare
from skillsd.distributed.fsdp import shard, whole
from skillsd.distributed.processes import Processes
from skillsd.envs import boundary, make_taskset
from skillsd.envs.base import HasReference
from skillsd.errors import UsageError
from skillsd.policy.loading import load_policy
from skillsd.policy.scoring import ends_with_its_head
from skillsd.rollouts.actors import Actors
from skillsd.rollouts.sampling import Sampler
from skillsd.runs.folder import RunDir
from skillsd.runs.progress import Listener
from skillsd.seeding import derive_seed
from skillsd.skills.bank import SkillBank
from skillsd.skills.controls import show
from skillsd.skills.summarize import check_knows, make_summarizer
from skillsd.skills.summarize.intake import Intake
from skillsd.training.learner import Learner
from skillsd.training.scoring import Scorer
from skillsd.training.teacher import Teacher
from skillsd.training.views import Views


class Parts:
    """Makes everything in an order in which what is wrong with the settings shows before anything is written."""

    #: On the main process, from :meth:`remember_in` on.
    bank: SkillBank
    intake: Intake

    def __init__(self, config: Config, run: RunDir, listen: Listener, processes: Processes | None = None) -> None:
        self.config, self.spec, self.run = config, config.spec, run
        self.processes = processes or Processes()
        self.listen = listen if self.processes.main else lambda kind, data: None
        self.seconds: dict[str, float] = {}
        self.taskset = make_taskset(config.env.name, **config.env.options)
        self.tasks = boundary.tasks_of(self.taskset, config.env.train_split, config.env.train_tasks)
        self.by_id = {task.id: task for task in self.tasks}
        #: What kind each task is of, where skills are for all of a kind.
        self.groups = boundary.groups(self.taskset, self.tasks) if config.skills.scope == "group" else None
        self._check_tasks()
        torch.manual_seed(derive_seed(config.seed, "model"))  # new adapters are random
        self.policy = load_policy(config.model, train=True, day=self.processes.from_main(run.day))
        self.model, self.chat = self.policy.model, self.policy.chat
        self.teacher = Teacher(self.spec.teacher, self.model, config.teacher.ema_decay)
        self.views = Views(config, self.policy, self.warn)
        self._shard()
        self.scorer = Scorer(self.model, config, self.processes)
        self.learner = Learner(self.model, config, self.processes)
        self.actors = Actors(config, self.policy, self.teacher, self.processes, run.path)
        self.sampler = Sampler(config, self.taskset, self.actors, self.processes, self.tell_turn)
        if self.processes.main:  # the last thing that can be refused, as it may open a file in the run's folder
            # A method without skills asks no summariser: what that needs may be missing.
            name = config.skills.summarizer if self.spec.uses_bank else "trajectory"
            self.summarizer = make_summarizer(name, config, taskset=self.taskset, policy=self.policy, folder=run.path)

    def remember_in(self, bank: SkillBank) -> None:
        """Skills come from ``bank``, and new ones go there; for the main process."""
        self.bank = bank
        self.intake = Intake(self.summarizer, bank, self.by_id, self.config.skills, self.warn)

    def _check_tasks(self) -> None:
        check_knows(self.config, self.taskset)
        show(self.config.skills.shown, {}, 0, self.taskset, self.by_id)  # refuses what the task set cannot do
        self._check_others()
        if told := spare(self.config):
            self.warn(told)
        if self.config.env.test_split == self.config.env.train_split:
            self.warn("env.test_split is env.train_split: evaluations are of tasks that are trained on")
        if isinstance(self.taskset, HasReference):
            return
        name = self.config.env.name
        if self.spec.privileged == "reference":
            raise UsageError(f"{self.config.method} needs reference solutions, which {name!r} does not have")
        if self.config.eval.panel_every:
            self.warn(f"eval.panel_every: {name} has no reference solutions: no teacher is measured")

    def _check_others(self) -> None:
        shuffled = self.config.skills.shown == "shuffled" and self.spec.uses_bank
        alone = min(len(self.tasks), self.config.rollout.tasks_per_iteration) < 2
        if shuffled and alone:
            raise UsageError("skills.shown = shuffled: each iteration has one task, and so no other's skill to show")

    def _shard(self) -> None:
        """Spread the weights over the processes, if that is asked for and there are several."""
        settings = self.config.trainer
        if not (settings.fsdp or settings.zero_stage):
            return
        if self.processes.size == 1:
            self.warn("trainer.fsdp, trainer.zero_stage: this is one process: nothing is spread (docs/processes.md)")
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
                ends_with_its_head(model)  # asks the model, which later all processes would have to do together
                shard(model, getattr(torch, self.config.model.dtype))

    def warn(self, text: str) -> None:
        """Tell the listener."""
        self.listen("warning", {"text": text})

    def tell_turn(self, done: int, total: int) -> None:
        """Tell the listener how many of the episodes in play are over."""
        self.listen("turn", {"done": done, "total": total})

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

"""A run from start to finish: generate, train, save, evaluate; its folder, and how it goes on after a stop."""

from __future__ import annotations

import errno
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from skillsd.config import Config
from skillsd.config.idle import refuse_idle, without_idle
from skillsd.distributed.processes import Processes
from skillsd.envs.base import HasReference
from skillsd.errors import SkillSDError, UsageError, shown
from skillsd.policy.selfcheck import FAST, WAYS, decoding
from skillsd.rollouts.playing import evaluate_model
from skillsd.rollouts.results import EvalResult
from skillsd.runs import checkpoint
from skillsd.runs.folder import RunDir
from skillsd.runs.health import CollapseAlarm, peak_memory
from skillsd.runs.progress import Listener
from skillsd.runs.trackers import TensorBoard, require_tensorboard
from skillsd.skills.summarize import check_summarizer
from skillsd.system.interrupt import on_interrupt
from skillsd.training import state
from skillsd.training.surroundings import left_alone
from skillsd.training.trainer import Trainer


@dataclass
class RunResult:
    """How a run ended. ``interrupted``: by ctrl-C or another signal to stop; the run then goes on with ``resume``."""

    out: Path
    iterations: int
    before: EvalResult | None
    after: EvalResult | None
    interrupted: bool


def train(
    config: Config, out: str | Path, *, resume: bool = False, evaluate: bool = True, listen: Listener | None = None
) -> RunResult:
    """Run ``config`` into the folder ``out``; with ``resume`` go on from its newest checkpoint.

    The policy is evaluated before and after, unless ``evaluate`` is off (for a caller that does so in its own way).
    The rest of a resumed run is bit for bit what it would have been (CPU, same number of threads). Raises
    :class:`UsageError` for a bad configuration and :class:`SkillSDError` for a run that cannot go on.
    """
    if not isinstance(config, Config):
        raise UsageError(f"the settings are {shown(config)}: make them with load_config(preset)")
    if not resume:
        refuse_idle(config)
    if config.trainer.tensorboard:
        require_tensorboard()
    if config.spec.uses_bank:
        check_summarizer(config)
    run, processes = RunDir(out), Processes()
    if processes.main:
        run.refuse_misplaced()
    if resume:
        _same_settings(config, run)
    elif processes.main:
        run.refuse_if_taken()
    with left_alone(), run.lock() if processes.main else nullcontext():
        newest = processes.from_main(lambda: checkpoint.recovered(run)) if resume else None
        loop = Loop(Trainer(config, run, _lasting(listen), processes))
        if processes.main and not resume:
            run.create(config)  # only now, as what is wrong with the settings has been found by now
        return loop.run(newest, evaluate)


class Loop:
    """What goes on around :class:`Trainer`'s steps: metrics, evaluations, checkpoints, and the wish to stop."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.config = trainer, trainer.config
        self.alarm = CollapseAlarm()
        self.board: TensorBoard | None = None
        #: The iteration of the newest checkpoint.
        self.saved = 0
        self.stop = False

    def run(self, resume: Path | None, evaluate: bool) -> RunResult:
        """From the checkpoint ``resume``, or the very start, to the end."""
        trainer = self.trainer
        self.open(resume)
        self._tell_limits()
        try:
            with on_interrupt(self.interrupt):
                first = evaluate and trainer.iteration == 0
                before = self._evaluated("before") if first else self._previous("before")
                self.iterate()
                after = self._evaluated("after") if evaluate and not self.stop else None
            if trainer.processes.main and not self.stop and (late := len(trainer.intake.pending)):
                trainer.warn(f"{late} summaries were not ready in time: their skills are lost unless you --resume")
        except torch.OutOfMemoryError as error:
            raise SkillSDError(
                f"iteration {trainer.iteration}: the GPU has too little memory ({str(error).splitlines()[0]}); "
                "--resume with a smaller optim.max_tokens_per_device, or with model.gradient_checkpointing=true"
            ) from error
        finally:
            self.close()
        return RunResult(trainer.run.path, trainer.iteration, before, after, interrupted=self.stop)

    def iterate(self) -> None:
        """Iterate until done or asked to stop; every iteration ends with its line of metrics on disk.

        ``seconds_checkpoint`` in it is what saving took since the line before, as its own is written before saving.
        """
        trainer = self.trainer
        if trainer.last and trainer.processes.main and any(trainer.intake.absorb(last=True).values()):
            self.save()  # a finished run's late summaries
        while not (trainer.last or self.stop):
            started = time.perf_counter()
            metrics = trainer.step()
            metrics |= self.evaluation_metrics()
            if warning := self.alarm.update(metrics["accuracy"], metrics["valid_actions"]):
                metrics["alarm"] = warning
                trainer.warn(warning)
            self._record(metrics, time.perf_counter() - started)
            if trainer.last or trainer.iteration % self.config.trainer.checkpoint_every == 0:
                with trainer.phase("checkpoint"):
                    self.save()
            trainer.listen("iteration", metrics)
            self._give_up()
            self.stop = trainer.processes.any(self.stop)
        if self.stop and self.saved < trainer.iteration:
            self.save()

    def _give_up(self) -> None:
        """Raises :class:`SkillSDError`, after a checkpoint, if the method's skills will never come."""
        trainer = self.trainer
        why = trainer.processes.from_main(lambda: trainer.intake.hopeless)
        if why:
            if self.saved < trainer.iteration:
                self.save()
            raise SkillSDError(f"iteration {trainer.iteration}: {why}")

    def evaluation_metrics(self) -> dict[str, float]:
        """Greedy accuracy of the student, and of its teacher with reference skills in its prompt, where due."""
        trainer, metrics = self.trainer, dict[str, float]()
        settings, split = self.config.eval, self.config.env.test_split
        if settings.every and trainer.iteration % settings.every == 0:
            with trainer.phase("evaluate"):
                result = self.evaluate(split, settings.tasks)
            metrics |= {"eval_accuracy": result.accuracy, "eval_completion": result.completion}
        panel = isinstance(trainer.taskset, HasReference) and settings.panel_every
        if panel and trainer.iteration % panel == 0:
            with trainer.phase("panel"):
                result = self.evaluate(split, settings.panel_tasks, with_reference=True, teacher=True)
            metrics["teacher_accuracy"] = result.accuracy
        return metrics

    def evaluate(
        self, split: str, limit: int | None, *, with_reference: bool = False, teacher: bool = False
    ) -> EvalResult:
        """Greedy evaluation of the student (or the ``teacher``) on a split."""
        trainer = self.trainer
        # A server has one set of weights at a time, and rollout.batch_size episodes are in flight, not twice as many.
        trainer.sampler.wait()
        with trainer.actors.engine(trainer.version, 0.0, teacher=teacher) as engine:
            result = evaluate_model(
                trainer.model,
                trainer.chat,
                trainer.taskset,
                self.config,
                split,
                limit=limit,
                with_reference=with_reference,
                processes=trainer.processes,
                engine=engine,
                on_turn=trainer.tell_turn,
            )
        for reason, count in result.drop_reasons.items():
            trainer.warn(f"episodes dropped: {count} ({reason})")
        return result

    def open(self, resume: Path | None) -> None:
        """Take everything from the checkpoint ``resume``, if any; the main process opens bank and trackers."""
        trainer = self.trainer
        found = state.restore(trainer, resume)
        self.alarm, self.saved = found.alarm, trainer.iteration
        if trainer.processes.main:
            state.open_memory(trainer, resume, found)
            if self.config.trainer.tensorboard:
                self.board = TensorBoard(trainer.run.tensorboard, trainer.run.read_metrics())

    def save(self) -> None:
        """Write a checkpoint; keep it apart if it is the best so far."""
        self.saved = self.trainer.iteration
        state.save(self.trainer, self.alarm)

    def close(self) -> None:
        """Whatever is still being summarised is in the last checkpoint's list, for ``resume``."""
        self.trainer.actors.close()
        if not self.trainer.processes.main:
            return
        self.trainer.intake.close()
        self.trainer.bank.close()
        if self.board:
            self.board.close()

    def interrupt(self) -> None:
        """End the run after this iteration, with a checkpoint."""
        self.stop = True
        self.trainer.warn("stopping after this iteration (ctrl-C again: at once)")

    def _record(self, metrics: dict[str, Any], seconds: float) -> None:
        trainer = self.trainer
        metrics |= {f"seconds_{name}": round(value, 4) for name, value in trainer.seconds.items()}
        metrics["seconds"] = round(seconds, 4)
        metrics["tokens_per_second"] = metrics["tokens"] / metrics["seconds"]
        metrics |= peak_memory(trainer.model.device)
        trainer.seconds = {}
        if trainer.processes.main:
            # The line before the checkpoint: a resumed run drops lines that its checkpoint does not know.
            trainer.run.append_metrics(metrics)
        if self.board:
            self.board.write(metrics)

    def _tell_limits(self) -> None:
        """What the model's architecture means for the run, where somebody may not expect it."""
        model, rollouts, room = self.trainer.model, self.config.rollout, self.trainer.views.room
        if room is not None and room < rollouts.max_tokens:
            self.trainer.warn(
                f"the model takes {room} tokens: longer episodes end there (rollout.max_tokens is "
                f"{rollouts.max_tokens})"
            )
        if rollouts.engine == "transformers" and (way := decoding(model)) not in FAST:
            self.trainer.warn(f"generating with {type(model).__name__} is slow: {WAYS[way]}")

    def _evaluated(self, name: str) -> EvalResult:
        result = self.evaluate(self.config.env.test_split, self.config.eval.tasks)
        if self.trainer.processes.main:
            result.save(self.trainer.run.results / f"{name}.json")
        self.trainer.listen("evaluation", {"name": name, "result": result})
        return result

    def _previous(self, name: str) -> EvalResult | None:
        path = self.trainer.run.results / f"{name}.json"
        try:
            return EvalResult.load(path) if path.exists() else None
        except SkillSDError as error:
            self.trainer.warn(str(error))
            return None


def _same_settings(config: Config, run: RunDir) -> None:
    """Raises :class:`UsageError` if ``config`` would go on with another run than the one that was started."""
    started = without_idle(run.load_config())
    free = {"trainer": started.trainer, "summarizer": started.summarizer}  # servers move, budgets are raised
    if without_idle(config).model_copy(update=free).with_upkeep_of(started) != started:
        hint = "" if run.begun else "; as no iteration of it has ended, it can be started anew without --resume"
        raise UsageError(
            f"{run.path} was started with other settings; on --resume only trainer.*, summarizer.*, "
            f"optim.max_tokens_per_device and model.gradient_checkpointing may change{hint}"
        )


def _lasting(listen: Listener | None) -> Listener:
    """``listen``, whose reader may go away: that ends no run."""

    def tell(kind: str, data: dict[str, Any]) -> None:
        try:
            if listen:
                listen(kind, data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # a closed pipe, a closed terminal
                raise

    return tell

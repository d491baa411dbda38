"""A run from start to finish: its folder, its resume, its evaluation before and after."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from skillsd import checkpoint
from skillsd.config import Config
from skillsd.errors import SkillSDError, UsageError
from skillsd.evaluation import EvalResult
from skillsd.interrupt import on_interrupt
from skillsd.parallel import Processes
from skillsd.run_dir import RunDir
from skillsd.skills.summarize import check_summarizer
from skillsd.tracking import require_tensorboard
from skillsd.trainer import Listener, Trainer


@dataclass
class RunResult:
    """How a run ended. ``interrupted`` is True after ctrl-C; the run then goes on with ``resume``."""

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
    if config.trainer.tensorboard:
        require_tensorboard()
    if config.spec.uses_bank:
        check_summarizer(config)
    run, processes = RunDir(out), Processes()
    if resume:
        started = run.load_config()
        free = {"trainer": started.trainer, "summarizer": started.summarizer}  # servers move, budgets are raised
        if config.model_copy(update=free).with_memory_of(started) != started:
            raise UsageError(
                f"{out} was started with other settings; on --resume only trainer.*, summarizer.*, "
                "optim.max_tokens_per_device and model.gradient_checkpointing may change"
            )
    else:
        processes.from_main(lambda: run.create(config))
    with run.lock() if processes.main else nullcontext():
        trainer = Trainer(config, run, listen or (lambda kind, data: None), processes)
        trainer.open(processes.from_main(lambda: checkpoint.latest(run)) if resume else None)
        try:
            with on_interrupt(trainer.interrupt):
                first = evaluate and trainer.iteration == 0
                before = _evaluated(trainer, "before") if first else _previous(run, "before")
                trainer.loop()
                after = _evaluated(trainer, "after") if evaluate and not trainer.stop else None
            if processes.main and not trainer.stop and (late := len(trainer.intake.pending)):
                trainer.warn(f"{late} summaries were not ready in time: their skills are lost unless you --resume")
        except torch.OutOfMemoryError as error:
            raise SkillSDError(
                f"iteration {trainer.iteration}: the GPU has too little memory ({str(error).splitlines()[0]}); "
                "--resume with a smaller optim.max_tokens_per_device, or with model.gradient_checkpointing=true"
            ) from error
        finally:
            trainer.close()
    return RunResult(run.path, trainer.iteration, before, after, interrupted=trainer.stop)


def _evaluated(trainer: Trainer, name: str) -> EvalResult:
    result = trainer.evaluate(trainer.config.env.test_split, trainer.config.eval.tasks)
    if trainer.processes.main:
        result.save(trainer.run.results / f"{name}.json")
    trainer.listen("evaluation", {"name": name, "result": result})
    return result


def _previous(run: RunDir, name: str) -> EvalResult | None:
    path = run.results / f"{name}.json"
    return EvalResult.load(path) if path.is_file() else None

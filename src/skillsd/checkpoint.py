"""Checkpoints: written whole or not at all, and enough to go on as if nothing had happened.

A checkpoint is a folder that ``AutoModelForCausalLM.from_pretrained`` loads, with three more files: the
optimiser's tensors (safetensors), the bank (SQLite backup) and ``state.json``. No generator state is needed:
every random number of iteration k is derived from (seed, k).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from skillsd.errors import SkillSDError
from skillsd.policy import lora
from skillsd.run_dir import RunDir, remove, write_atomic
from skillsd.sharding import full, is_sharded, like
from skillsd.skills.bank import SkillBank
from skillsd.teacher import Teacher
from skillsd.trajectory import Trajectory, read_trajectories, write_trajectories
from skillsd.zero import ZeroOptimizer

#: Trajectories of the next iteration.
AHEAD = "ahead.parquet"


def folder(run: RunDir, iteration: int) -> Path:
    """Where the checkpoint of ``iteration`` lives."""
    return run.checkpoints / f"step-{iteration:06d}"


def latest(run: RunDir) -> Path | None:
    """The newest complete checkpoint, or None."""
    found = sorted(path for path in run.checkpoints.glob("step-*") if (path / "state.json").is_file())
    return found[-1] if found else None


Optimizer = torch.optim.Optimizer | ZeroOptimizer


@dataclass
class Weights:
    """Tensors of a checkpoint; ``model`` and ``teacher`` are None where the models hold them whole themselves."""

    optimizer: dict[str, Tensor]
    model: dict[str, Tensor] | None = None
    teacher: dict[str, Tensor] | None = None


def collect(model: PreTrainedModel, optimizer: Optimizer, teacher: Teacher) -> Weights:
    """Gather what is sharded; every process has to call this, one may then :func:`save`."""

    def gather(source: PreTrainedModel | None) -> dict[str, Tensor] | None:
        return {k: full(v) for k, v in source.state_dict().items()} if source and is_sharded(source) else None

    return Weights(_optimizer_tensors(optimizer), gather(model), gather(teacher.copy))


def save(
    run: RunDir,
    state: dict[str, Any],
    weights: Weights,
    ahead: Sequence[Trajectory],
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher: Teacher,
    bank: SkillBank,
    keep: int,
) -> Path:
    """Write ``step-<state["iteration"]>`` and drop all but the ``keep`` newest.

    ``ahead``: trajectories of the next iteration that were begun before the last update.

    Raises :class:`SkillSDError` if the disk refuses; older checkpoints are then untouched.
    """
    final = folder(run, state["iteration"])
    temporary = run.checkpoints / f".{final.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        model.save_pretrained(temporary, state_dict=weights.model)
        tokenizer.save_pretrained(temporary)
        save_file(weights.optimizer, temporary / "optimizer.safetensors")
        if teacher.copy is not None:
            teacher.copy.save_pretrained(temporary / "teacher", state_dict=weights.teacher)
        bank.backup(temporary / "skills.sqlite")
        if ahead:
            write_trajectories(temporary / AHEAD, ahead)
        write_atomic(temporary / "state.json", json.dumps(state).encode())
        for path in temporary.rglob("*"):
            if path.is_file():
                _sync(path)
        _sync(temporary)
        remove(final)
        os.replace(temporary, final)
        _sync(run.checkpoints)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SkillSDError(
            f"checkpoint {final.name} could not be written ({error}); the previous one is intact"
        ) from None
    for old in sorted(run.checkpoints.glob("step-*"))[:-keep]:
        remove(old)
    return final


def load(path: Path, *, model: PreTrainedModel, optimizer: Optimizer, teacher: Teacher) -> dict[str, Any]:
    """Put the weights back and return the state. Raises :class:`SkillSDError` for a corrupt checkpoint."""
    with _readable(path):
        state: dict[str, Any] = json.loads((path / "state.json").read_text("utf-8"))
        _load_weights(model, path)
        if teacher.copy is not None:
            _load_weights(teacher.copy, path / "teacher")
        _restore_optimizer(optimizer, load_file(path / "optimizer.safetensors"))
    return state


def load_ahead(path: Path) -> list[Trajectory]:
    """The ``ahead`` of :func:`save`. Raises :class:`SkillSDError` for a corrupt file."""
    return read_trajectories(path / AHEAD) if (path / AHEAD).is_file() else []


def restore_bank(path: Path, bank_file: Path) -> None:
    """Put the bank back as it was. Raises :class:`SkillSDError` for a corrupt checkpoint."""
    with _readable(path):
        temporary = bank_file.with_name(f".{bank_file.name}.restore")
        shutil.copyfile(path / "skills.sqlite", temporary)
        for suffix in ("-wal", "-shm"):
            bank_file.with_name(bank_file.name + suffix).unlink(missing_ok=True)
        os.replace(temporary, bank_file)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise SkillSDError(
            f"{path}: corrupt or foreign checkpoint ({type(error).__name__}: {str(error).splitlines()[0][:120]}); "
            "delete this folder to go on from the one before"
        ) from None


def keep_best(run: RunDir, checkpoint: Path) -> None:
    """Copy a checkpoint's model to ``checkpoints/best``."""
    temporary = run.checkpoints / ".best.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(checkpoint, temporary, ignore=shutil.ignore_patterns("optimizer.safetensors", "teacher"))
    remove(run.checkpoints / "best")
    os.replace(temporary, run.checkpoints / "best")


def _load_weights(model: PreTrainedModel, path: Path) -> None:
    if lora.has_adapter(model):
        lora.restore(model, path)
        return
    loaded = AutoModelForCausalLM.from_pretrained(path, dtype=model.dtype, use_safetensors=True).state_dict()
    model.load_state_dict({name: like(loaded[name], value) for name, value in model.state_dict().items()})


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    if isinstance(optimizer, ZeroOptimizer):
        return dict(optimizer.tensors())
    return {
        f"{index}.{name}": full(value).contiguous()
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def _restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    if isinstance(optimizer, ZeroOptimizer):
        optimizer.restore(tensors)
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = like(value, parameters[int(index)])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

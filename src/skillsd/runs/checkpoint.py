"""Checkpoints: written whole or not at all, and enough to go on as if nothing had happened.

A checkpoint is a folder that ``AutoModelForCausalLM.from_pretrained`` loads, with three more files: the
optimiser's tensors (safetensors), the bank (SQLite backup) and ``state.json``, which also knows the other files' sizes
and checksums. No generator state is needed: every random number of iteration k is derived from (seed, k).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from skillsd.distributed.fsdp import full, is_sharded, like
from skillsd.distributed.zero import ZeroOptimizer
from skillsd.errors import SkillSDError, one_line, reason
from skillsd.policy import lora
from skillsd.policy.pretrained import read_config, read_weights
from skillsd.runs.episodes import read_trajectories, write_trajectories
from skillsd.runs.folder import RunDir
from skillsd.runs.health import AlarmState
from skillsd.skills.bank import SkillBank
from skillsd.system.files import put_in_place, regular, remove, sync, tidy
from skillsd.types import Trajectory

#: Trajectories of the next iteration.
AHEAD = "ahead.parquet"
OPTIMIZER = "optimizer.safetensors"
_STEP = re.compile("step-[0-9]+")
#: ITERATION/TASK/SAMPLE.
TrajectoryId = Annotated[str, Field(pattern="(?s)^[0-9]{1,9}/.*/[0-9]+$")]


def folder(run: RunDir, iteration: int) -> Path:
    """Where the checkpoint of ``iteration`` lives."""
    return run.checkpoints / f"step-{iteration:06d}"


def _kept(run: RunDir) -> list[Path]:
    """All checkpoints, the oldest first. One is there whole or not at all; what befell it since, :func:`load` tells."""
    found = (path for path in run.checkpoints.glob("step-*") if _STEP.fullmatch(path.name))
    return sorted((p for p in found if (p / "state.json").is_file()), key=lambda path: int(path.name[5:]))


def latest(run: RunDir) -> Path | None:
    """The newest checkpoint, or None."""
    return next(reversed(_kept(run)), None)


def passed_over(run: RunDir) -> list[str]:
    """Names of what was a checkpoint once, but has lost its state."""
    return sorted({path.name for path in run.checkpoints.glob("step-*")} - {path.name for path in _kept(run)})


Optimizer = torch.optim.Optimizer | ZeroOptimizer


@dataclass
class Weights:
    """Tensors of a checkpoint; ``model`` and ``teacher`` are None where the models hold them whole themselves."""

    optimizer: dict[str, Tensor]
    model: dict[str, Tensor] | None = None
    teacher: dict[str, Tensor] | None = None


def collect(model: PreTrainedModel, optimizer: Optimizer, teacher: PreTrainedModel | None) -> Weights:
    """Gather what is sharded; every process has to call this, one may then :func:`save`.

    ``teacher``: a second model, where the teacher has weights of its own.
    """

    def gather(source: PreTrainedModel | None) -> dict[str, Tensor] | None:
        return {k: full(v) for k, v in source.state_dict().items()} if source and is_sharded(source) else None

    return Weights(_optimizer_tensors(optimizer), gather(model), gather(teacher))


def save(
    run: RunDir,
    state: dict[str, Any],
    weights: Weights,
    ahead: Sequence[Trajectory],
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher: PreTrainedModel | None,
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
        save_file(weights.optimizer, temporary / OPTIMIZER)
        if teacher is not None:
            teacher.save_pretrained(temporary / "teacher", state_dict=weights.teacher)
        bank.backup(temporary / "skills.sqlite")
        if ahead:
            write_trajectories(temporary / AHEAD, ahead)
        (temporary / "state.json").write_text(json.dumps(state | {"files": _sums(temporary)}), "utf-8")
        put_in_place(temporary, final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        older = latest(run)
        left = f"; {older.name} is intact" if older else ""
        raise SkillSDError(f"{final}: could not be written ({error}){left}") from None
    prune(run, keep)
    return final


def prune(run: RunDir, keep: int) -> None:
    """Drop all but the ``keep`` newest."""
    for old in _kept(run)[:-keep]:
        remove(old)


def recovered(run: RunDir) -> Path | None:
    """The newest checkpoint, once what a process that was killed had begun is finished or undone.

    Nobody else may be at it.
    """
    tidy(run.checkpoints, "step-*", "best")
    return latest(run)


def load(
    path: Path, *, model: PreTrainedModel, optimizer: Optimizer, teacher: PreTrainedModel | None
) -> dict[str, Any]:
    """Put the weights back and return the state. Raises :class:`SkillSDError` for a corrupt checkpoint."""
    with _readable(path):
        state = State.model_validate_json(regular(path / "state.json").read_bytes())
        if state.iteration != int(path.name[5:]):
            raise ValueError(f"state.json is of iteration {state.iteration}")
        for name, known in state.files.items():
            _check(path, name, known)
        _load_weights(model, path)
        if teacher is not None:
            _load_weights(teacher, path / "teacher")
        _restore_optimizer(optimizer, load_file(path / OPTIMIZER))
    return state.model_dump()


def check_model(path: Path) -> None:
    """Raise :class:`SkillSDError` if ``path`` is a checkpoint whose weights are not what was written."""
    if not (path / "state.json").is_file():
        return  # a model from elsewhere
    with _readable(path):
        state = State.model_validate_json(regular(path / "state.json").read_bytes())
        for name, known in state.files.items():
            if name.endswith(".safetensors") and name != OPTIMIZER and "/" not in name:
                _check(path, name, known)


def load_ahead(path: Path) -> list[Trajectory]:
    """The ``ahead`` of :func:`save`. Raises :class:`SkillSDError` for a corrupt file."""
    return read_trajectories(path / AHEAD) if (path / AHEAD).is_file() else []


def restore_bank(path: Path, bank_file: Path) -> None:
    """Put the bank back as it was. Raises :class:`SkillSDError` for a corrupt checkpoint; nothing is changed then."""
    with _readable(path):
        copy = regular(path / "skills.sqlite").read_bytes()
    temporary = bank_file.with_name(f".{bank_file.name}.restore.tmp")
    temporary.write_bytes(copy)
    with _readable(path), closing(SkillBank(temporary, create=False)) as bank:
        bank.skills(), bank.stats()
    sync(temporary)
    # The journal of a process that was killed would be taken for the new file's, and undo what is in there.
    for suffix in ("-journal", "-wal", "-shm"):
        bank_file.with_name(bank_file.name + suffix).unlink(missing_ok=True)
    os.replace(temporary, bank_file)
    sync(bank_file.parent)


class Ahead(BaseModel):
    """Episodes of the next iteration, played by the weights ``version``."""

    iteration: int
    version: int
    dropped: list[tuple[str, int, str]]


class Failed(BaseModel):
    """Summaries to try again: how often each has failed, and which wait."""

    failures: dict[str, int] = {}
    waiting: list[TrajectoryId] = []


class State(BaseModel):
    """``state.json``. What an older version did not write has its default."""

    iteration: int = Field(ge=1)
    alarm: AlarmState
    ahead: Ahead | None = None
    pending: list[TrajectoryId] = []
    failed: Failed = Failed()
    #: A digest of the training tasks.
    tasks: str | None = None
    #: By name: size in bytes and CRC-32.
    files: dict[str, tuple[int, int]] = {}


def _sums(path: Path) -> dict[str, tuple[int, int]]:
    """Of the files that are data; of the others a person may change one, a chat template for instance."""
    data = (file for file in sorted(path.rglob("*")) if file.suffix in (".safetensors", ".sqlite", ".parquet"))
    return {file.relative_to(path).as_posix(): (file.stat().st_size, _crc(file)) for file in data}


def _crc(file: Path) -> int:
    value = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 24):
            value = zlib.crc32(block, value)
    return value


def _check(path: Path, name: str, known: tuple[int, int]) -> None:
    size, crc = known
    if (found := (path / name).stat().st_size) != size:
        raise ValueError(f"{name} has {found} bytes, not {size}")
    if _crc(path / name) != crc:
        raise ValueError(f"{name} is not what was written")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # files that came to harm, read by code that trusts them
        told = reason(error)
        if isinstance(error, OSError) and error.filename:
            told = f"{Path(error.filename).name}: {error.strerror}"
        elif isinstance(error, ValidationError):
            first = error.errors()[0]
            told = ": ".join(["state.json", *(".".join(map(str, first["loc"])),) * bool(first["loc"]), first["msg"]])
        before = "from the one before" if len([*path.parent.glob("step-*")]) > 1 else "from the beginning"
        raise SkillSDError(
            f"{path}: corrupt or foreign checkpoint ({one_line(told)}); move this folder away to go on {before}"
        ) from None


def keep_best(run: RunDir, checkpoint: Path) -> None:
    """Copy a checkpoint's model to ``checkpoints/best``, if it is not there."""
    best, temporary = run.checkpoints / "best", run.checkpoints / ".best.tmp"
    with suppress(OSError):
        if (best / "state.json").read_bytes() == (checkpoint / "state.json").read_bytes():
            return
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(checkpoint, temporary, ignore=shutil.ignore_patterns(OPTIMIZER, "teacher"))
    put_in_place(temporary, best)


def _load_weights(model: PreTrainedModel, path: Path) -> None:
    if lora.has_adapter(model):
        lora.restore(model, path)
        return
    loaded = read_weights(str(path), read_config(str(path)), dtype=model.dtype).state_dict()
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
        if value.shape not in ((), parameters[int(index)].shape):
            raise ValueError(f"{key} of the optimiser has the shape {tuple(value.shape)}")
        state.setdefault(int(index), {})[name] = like(value, parameters[int(index)])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

"""One finished cell of a comparison, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from skillsd.errors import SkillSDError
from skillsd.system.files import regular, write_atomic

#: Of a run's metrics what a cell keeps beside its curve: enough to judge how the training went.
KEPT = (
    "valid_actions", "turns", "entropy", "flat_groups", "l_mean", "l_rms", "loss_policy", "loss_distill", "grad_norm",
    "tasks_with_skill", "bank_size", "completion",
)  # fmt: skip


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SplitResult(_Strict):
    """Greedy results on a split, task by task: ``success`` 0 or 1, ``completion`` in [0, 1]."""

    task_ids: list[str]
    success: list[Annotated[int, Field(ge=0, le=1)]]
    completion: list[Annotated[float, Field(ge=0, le=1)]]


class Point(_Strict):
    """One iteration: environment episodes used for training so far, and what was measured then."""

    iteration: int
    episodes: int
    accuracy: float
    eval_accuracy: float | None = None
    eval_completion: float | None = None
    teacher_accuracy: float | None = None


class Cell(_Strict):
    """A row's result with one seed. ``seconds`` are totals by phase; "total" is the wall clock of all iterations.

    ``metrics``: what else was measured, by name a value for each iteration (:data:`KEPT`); ``machine``: where it ran.
    """

    row: str
    seed: int
    method: str
    overrides: dict[str, Any]
    after: dict[str, SplitResult]
    curve: list[Point]
    episodes: int
    iterations: int
    seconds: dict[str, float]
    versions: dict[str, str]
    metrics: dict[str, list[float | None]] = {}
    machine: dict[str, str] = {}

    def measured(self, key: str) -> list[tuple[float, float]]:
        """(episodes trained on, ``key`` of the :class:`Point`) wherever it was measured."""
        return [(p.episodes, value) for p in self.curve if (value := getattr(p, key)) is not None]


class Status(_Strict):
    """How far a running cell is."""

    iteration: int
    accuracy: float


def load_status(path: Path) -> Status | None:
    """None for a file that is not there (yet), or not whole."""
    try:
        return Status.model_validate_json(regular(path).read_bytes())
    except (OSError, ValidationError):
        return None


def save_cell(cell: Cell, path: Path) -> None:
    """Write ``cell`` as JSON, whole or not at all."""
    write_atomic(path, cell.model_dump_json().encode())


def load_cell(path: Path) -> Cell:
    """Raises :class:`SkillSDError` (one line) for a file that is not a whole cell."""
    try:
        cell = Cell.model_validate_json(regular(path).read_bytes())
        for name, split in cell.after.items():
            if not len({*split.task_ids}) == len(split.task_ids) == len(split.success) == len(split.completion):
                raise ValueError(f"{name}: not one result for each task")
        return cell
    except (OSError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise SkillSDError(f"{path}: not a finished cell ({reason}); delete it to run the cell anew") from None

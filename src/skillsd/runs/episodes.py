"""Finished episodes in Parquet files, as exact token ids."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from skillsd.errors import SkillSDError, one_line
from skillsd.system.files import regular, written_whole
from skillsd.types import Status, Trajectory, Turn

_SCALARS = [f.name for f in dataclasses.fields(Trajectory) if f.name != "turns"]
_SCHEMA = pa.schema(
    [
        ("task_id", pa.string()),
        ("iteration", pa.int32()),
        ("sample", pa.int32()),
        ("prompt", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("completion_ids", pa.list_(pa.int32())),
        ("action_mask", pa.list_(pa.int8())),
        ("logps", pa.list_(pa.float32())),
        ("status", pa.string()),
        ("reward", pa.float64()),
        ("success", pa.bool_()),
        ("completion", pa.float64()),
        ("entropy", pa.float64()),
        ("rollout_skill_id", pa.int64()),
        ("teacher_skill_id", pa.int64()),
        ("turns", pa.string()),
    ]
)


#: Columns that may be empty.
_OPTIONAL = ("rollout_skill_id", "teacher_skill_id")


def write_trajectories(path: str | Path, trajectories: Sequence[Trajectory]) -> None:
    """Write one Parquet file, atomically (a reader sees the old file, the new one, or none)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[Any]] = {name: [getattr(t, name) for t in trajectories] for name in _SCALARS}
    columns["turns"] = [json.dumps([dataclasses.asdict(turn) for turn in t.turns]) for t in trajectories]
    with written_whole(path) as temporary:
        table = pa.table(columns, schema=_SCHEMA)
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_trajectories(path: str | Path) -> list[Trajectory]:
    """Read what :func:`write_trajectories` wrote. Raises :class:`SkillSDError` for anything else."""
    try:
        with pq.ParquetFile(regular(Path(path)), page_checksum_verification=True) as file:
            table = file.read()
        if missing := [name for name in _SCHEMA.names if name not in table.column_names]:
            raise ValueError(f"no column {missing[0]}")
        columns = table.select(_SCHEMA.names).cast(_SCHEMA)
        return [_trajectory(number, row) for number, row in enumerate(columns.to_pylist(), 1)]
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = one_line(str(error).replace(str(path), "it"), 150)
        detail = f": {reason}" if reason else ""
        raise SkillSDError(f"{path}: not a trajectory file of this project ({type(error).__name__}{detail})") from None


def _trajectory(number: int, row: dict[str, Any]) -> Trajectory:
    """Raises ``ValueError`` or ``TypeError`` for a row (counted from 1) that no trajectory was written as."""
    for name, value in row.items():
        if (value is None and name not in _OPTIONAL) or (isinstance(value, list) and None in value):
            raise ValueError(f"row {number}: {name} is missing")
    try:
        turns = [_turn(**turn) for turn in json.loads(row["turns"])]
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"row {number}: turns: {error}") from None
    trajectory = Trajectory(**{**row, "turns": turns})
    if not len(trajectory.completion_ids) == len(trajectory.action_mask) == len(trajectory.logps):
        raise ValueError(f"row {number}: completion_ids, action_mask and logps are of different lengths")
    if not {*trajectory.action_mask} <= {0, 1} or trajectory.status not in get_args(Status):
        raise ValueError(f"row {number}: action_mask or status is out of range")
    if not (math.isfinite(trajectory.reward) and math.isfinite(trajectory.completion)):
        raise ValueError(f"row {number}: the reward or the completion is no number")
    return trajectory


def _turn(action: str, observation: str, valid: bool, info: dict[str, Any]) -> Turn:
    kinds = ((action, str), (observation, str), (valid, bool), (info, dict))
    if not all(isinstance(value, kind) for value, kind in kinds):
        raise TypeError("not texts, a verdict and a table")
    return Turn(action, observation, valid, info)

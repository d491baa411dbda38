"""A finished episode, as exact token ids. Parquet in and out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from skillsd.errors import SkillSDError

Status = Literal["done", "turn_limit", "token_limit"]


@dataclass
class Turn:
    """One exchange: the assistant's text, the user message that answered it, and the step's info."""

    action: str
    observation: str
    valid: bool
    info: dict[str, Any] = field(default_factory=dict)


@dataclass
class Trajectory:
    """One episode under one prompt; token ids are appended to, never rebuilt (TRAPS, "Tokens").

    ``prompt_ids`` are what the policy was shown first, ``completion_ids`` all that follows: its own tokens
    (``action_mask`` 1) and the environment's (``action_mask`` 0). ``logps`` are the natural-log
    probabilities under the sampling distribution, 0.0 where the mask is 0. The three lists of the
    completion have equal length.
    """

    task_id: str
    iteration: int
    sample: int
    prompt: str
    prompt_ids: list[int]
    completion_ids: list[int] = field(default_factory=list)
    action_mask: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    status: Status = "turn_limit"
    reward: float = 0.0
    success: bool = False
    completion: float = 0.0
    #: Mean entropy (nats) of the sampling distribution over action tokens.
    entropy: float = 0.0
    #: The skill in the *rollout* prompt: None wherever the student acts under the plain prompt.
    rollout_skill_id: int | None = None
    #: The skill retrieved for the teacher's view of this task in this iteration.
    teacher_skill_id: int | None = None

    @property
    def id(self) -> str:
        """Unique within a run and the same in every run of the same seed."""
        return f"{self.iteration:06d}/{self.task_id}/{self.sample}"

    @property
    def ids(self) -> list[int]:
        """Prompt and completion, exactly as the policy saw them."""
        return self.prompt_ids + self.completion_ids

    @property
    def action_tokens(self) -> int:
        """Number of tokens that the policy wrote."""
        return sum(self.action_mask)

    def digest(self) -> str:
        """SHA-256 over the token ids: the key for caches of anything derived from this trajectory."""
        return hashlib.sha256(json.dumps([self.prompt_ids, self.completion_ids]).encode()).hexdigest()


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


def write_trajectories(path: str | Path, trajectories: Sequence[Trajectory]) -> None:
    """Write one Parquet file, atomically (a reader sees the old file, the new one, or none)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[Any]] = {name: [getattr(t, name) for t in trajectories] for name in _SCALARS}
    columns["turns"] = [json.dumps([dataclasses.asdict(turn) for turn in t.turns]) for t in trajectories]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(pa.table(columns, schema=_SCHEMA), temporary, compression="zstd")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_trajectories(path: str | Path) -> list[Trajectory]:
    """Read what :func:`write_trajectories` wrote. Raises :class:`SkillSDError` for anything else."""
    try:
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            row["turns"] = [Turn(**turn) for turn in json.loads(row["turns"])]
        return [Trajectory(**row) for row in rows]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise SkillSDError(f"{path}: not a trajectory file of this project ({type(error).__name__})") from None

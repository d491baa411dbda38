"""The folder of a run: what is in it, and how it is written so that nothing is lost."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

from skillsd.base_model import EMBEDDED
from skillsd.base_model import path as embedded
from skillsd.config import Config, load_config
from skillsd.errors import SkillSDError, UsageError
from skillsd.trajectory import Trajectory, read_trajectories, write_trajectories


class RunDir:
    """Paths of a run, its metrics file, and its trajectories."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.metrics = self.path / "metrics.jsonl"
        self.bank = self.path / "skills.sqlite"
        self.checkpoints = self.path / "checkpoints"
        self.trajectories = self.path / "trajectories"
        self.results = self.path / "results"
        self.tensorboard = self.path / "tensorboard"
        self.report = self.path / "report.html"

    def create(self, config: Config) -> None:
        """Start a new run. Raises :class:`UsageError` if a run is already there."""
        if self.config.exists():
            raise UsageError(f"{self.path} already holds a run: add --resume, or choose another --out")
        try:
            self.trajectories.mkdir(parents=True, exist_ok=True)
            self.results.mkdir(exist_ok=True)
            tree = {"meta": versions(), **config.model_dump(exclude_none=True)}
            write_atomic(self.config, tomli_w.dumps(tree).encode())
        except OSError as error:
            raise SkillSDError(f"{self.path}: cannot be written ({error.strerror})") from None

    def load_config(self) -> Config:
        """The settings that the run was started with. Raises :class:`UsageError` where there is no run."""
        if not self.config.is_file():
            raise UsageError(f"{self.path} holds no run (no config.toml)")
        return load_config(self.config)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one process; the system frees it however that process ends."""
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(f"{self.path}: another process is training here") from None
            yield

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Add one line and wait until it is on disk; NaN and infinity become null."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(row)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole lines; a line cut off by a crash is left out."""
        rows = []
        if self.metrics.is_file():
            for line in self.metrics.read_text("utf-8").splitlines():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError:
                    break
        return rows

    def trajectory_file(self, iteration: int) -> Path:
        """Where the trajectories of ``iteration`` are."""
        return self.trajectories / f"{iteration:06d}.parquet"

    def write_trajectories(self, iteration: int, trajectories: list[Trajectory]) -> None:
        """Write the trajectories of ``iteration``, whole or not at all."""
        write_trajectories(self.trajectory_file(iteration), trajectories)

    def read_trajectories(self, iteration: int) -> list[Trajectory]:
        """The trajectories of ``iteration``. Raises :class:`SkillSDError` if they are missing or damaged."""
        return read_trajectories(self.trajectory_file(iteration))

    def find_trajectories(self, ids: Sequence[str]) -> list[Trajectory]:
        """The trajectories of those ids, in that order; ids that are not on disk are left out."""
        iterations = sorted({int(name.split("/", 1)[0]) for name in ids})
        found = {t.id: t for iteration in iterations for t in self.read_trajectories(iteration)}
        return [found[name] for name in ids if name in found]

    def clear(self) -> None:
        """Forget what a run left behind that ended before its first checkpoint."""
        self.rewind(0)
        for suffix in ("", "-journal", "-wal", "-shm"):
            self.bank.with_name(self.bank.name + suffix).unlink(missing_ok=True)

    def rewind(self, iteration: int) -> None:
        """Forget everything after ``iteration``: what a crash left behind would otherwise appear twice."""
        kept = [row for row in self.read_metrics() if row["iteration"] <= iteration]
        write_atomic(self.metrics, "".join(json.dumps(row) + "\n" for row in kept).encode())
        for file in self.trajectories.glob("*.parquet"):
            if file.stem.isdigit() and int(file.stem) > iteration:
                file.unlink()


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN or infinity: null says "not measurable"."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def write_atomic(path: Path, data: bytes) -> None:
    """A reader, or a crash, sees the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def versions() -> dict[str, str]:
    """Versions that a result depends on, and the first digits of the embedded weights' SHA-256."""
    packages = ("skillsd", "torch", "transformers", "tokenizers", "numpy")
    weights = {name: (embedded(name) / "model.safetensors").read_bytes() for name in EMBEDDED}
    found = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return {**found, **{name: hashlib.sha256(data).hexdigest()[:8] for name, data in weights.items()}}


def remove(path: Path) -> None:
    """Delete a folder so that it is never seen half-deleted under its own name."""
    if path.exists():
        doomed = path.with_name(f".{path.name}.deleted")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)

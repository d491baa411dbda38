"""The folder of a run: what is in it, and how it is written so that nothing is lost."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import shutil
import tomllib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import date
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any

import tomli_w

from skillsd.config import Config, parse_config, read_tree
from skillsd.errors import SkillSDError, UsageError, shown
from skillsd.policy.embedded import EMBEDDED
from skillsd.policy.embedded import path as embedded
from skillsd.runs.episodes import read_trajectories, write_trajectories
from skillsd.runs.record import Record, read_record
from skillsd.system.files import locked, regular, tidy, write_atomic
from skillsd.types import Trajectory

#: Told a line of text.
Tell = Callable[[str], None]
#: Names of trajectory files.
_NUMBER = re.compile("[0-9]{6,9}")


class RunDir:
    """Paths of a run, its metrics file, and its trajectories."""

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | os.PathLike):
            raise UsageError(f"{shown(path)} is no folder: give its path")
        self.path = Path(path)
        self._today = date.today()  # once: a run may be started at midnight
        self.config = self.path / "config.toml"
        self.metrics = self.path / "metrics.jsonl"
        self.bank = self.path / "skills.sqlite"
        self.checkpoints = self.path / "checkpoints"
        self.trajectories = self.path / "trajectories"
        self.results = self.path / "results"
        self.tensorboard = self.path / "tensorboard"
        self.report = self.path / "report.html"

    @property
    def begun(self) -> bool:
        """Whether something of a run is here that lasts: a finished iteration. What ended before that holds nothing."""
        try:
            measured = self.metrics.stat().st_size > 0
        except OSError:
            measured = self.metrics.is_symlink()
        return measured or any(self.checkpoints.glob("step-*"))

    def refuse_if_taken(self) -> None:
        """Raise :class:`UsageError` if a new run cannot be started here without losing what is here already."""
        if self.begun or (os.path.lexists(self.config) and not self._failed_start()):
            raise UsageError(f"{self.path} already holds a run: add --resume, or choose another --out")
        if not self.config.exists() and (self.bank.exists() or self.recorded()):
            raise UsageError(f"{self.path} holds files of a run, but no config.toml: choose another --out")

    def refuse_misplaced(self) -> None:
        """Raise :class:`SkillSDError` for a file where a folder belongs, or the reverse: no work could be written."""
        for folder in (self.checkpoints, self.trajectories, self.results):
            if folder.exists() and not folder.is_dir():
                raise SkillSDError(f"{folder}: is a file where a folder belongs; move it away")
        results = self.results.glob("*.json")
        for file in (self.metrics, self.bank, self.report, *results, *map(self.trajectory_file, self.recorded())):
            if file.exists() and not file.is_file():
                what = "is a folder where a file belongs" if file.is_dir() else "is no regular file"
                raise SkillSDError(f"{file}: {what}; move it away")

    def _failed_start(self) -> bool:
        """Whether the settings here are ours (others' stay), as what they began has not :attr:`begun`."""
        try:
            return "skillsd" in tomllib.loads(regular(self.config).read_text("utf-8"))["meta"]
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def create(self, config: Config) -> None:
        """Start a new run. Raises :class:`UsageError` if one is already there, unless none of its iterations ended."""
        self.refuse_if_taken()
        try:
            self.trajectories.mkdir(parents=True, exist_ok=True)
            self.results.mkdir(exist_ok=True)
            tree = {"meta": {**versions(), "started": self.day().isoformat()}, **config.model_dump(exclude_none=True)}
            write_atomic(self.config, tomli_w.dumps(tree).encode())
        except OSError as error:
            raise SkillSDError(f"{self.path}: cannot be written ({error.strerror})") from None

    def day(self) -> date:
        """The day on which the run was started; today, if it was not, or by a version that did not note it."""
        try:
            return date.fromisoformat(tomllib.loads(self.config.read_text("utf-8"))["meta"]["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return self._today

    def load_config(self) -> Config:
        """The settings that the run was started with. Raises :class:`UsageError` where there is none, or not whole."""
        if not self.config.is_file():
            raise UsageError(f"{self.path} holds no run (no config.toml)")
        tree = read_tree(self.config)
        if missing := [name for name in Config.model_fields if name not in tree]:
            raise UsageError(f"{self.config}: not whole ({missing[0]} is missing); put back the file as it was written")
        try:
            return parse_config(tree)
        except UsageError as error:
            raise UsageError(f"{self.config}: {error}") from None

    def lock(self) -> AbstractContextManager[int]:
        """Hold the folder for one process; the system frees it however that process ends (:func:`locked`)."""
        return locked(self.path / ".lock", f"{self.path}: another process is training here")

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Add one line and wait until it is on disk; NaN and infinity become null."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_finite(row)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SkillSDError(f"{self.metrics}: cannot be written ({error.strerror or error})") from None

    def record(self) -> Record:
        """What the metrics file holds, good and bad. Raises :class:`SkillSDError` if it cannot be read at all."""
        try:
            return read_record(regular(self.metrics).read_bytes())
        except FileNotFoundError:
            return Record()
        except OSError as error:
            raise SkillSDError(f"{self.metrics}: cannot be read ({error.strerror}); mend it or move it away") from None

    def read_metrics(self, warn: Tell | None = None) -> list[dict[str, Any]]:
        """A row for each iteration with a good line, in their order; what was left out is told to ``warn``."""
        record = self.record()
        if warn and record.faults:
            warn(f"{self.metrics}: {record.note}")
        # The newest iteration may not have got to its line yet.
        if warn and (lost := sorted({*self.recorded()[:-1]} - {row["iteration"] for row in record.rows})):
            warn(f"{self.metrics}: has no line for {_ranges(lost)}")
        return record.rows

    def recorded(self) -> list[int]:
        """The iterations whose trajectories are on disk."""
        return sorted(int(file.stem) for file in self.trajectories.glob("*.parquet") if _NUMBER.fullmatch(file.stem))

    def trajectory_file(self, iteration: int) -> Path:
        """Where the trajectories of ``iteration`` are."""
        return self.trajectories / f"{iteration:06d}.parquet"

    def write_trajectories(self, iteration: int, trajectories: list[Trajectory]) -> None:
        """Write the trajectories of ``iteration``, whole or not at all."""
        path = self.trajectory_file(iteration)
        try:
            write_trajectories(path, trajectories)
        except OSError as error:
            raise SkillSDError(f"{path}: cannot be written ({error.strerror or error})") from None

    def read_trajectories(self, iteration: int) -> list[Trajectory]:
        """The trajectories of ``iteration``. Raises :class:`SkillSDError` if they are missing or damaged."""
        return read_trajectories(self.trajectory_file(iteration))

    def find_trajectories(self, ids: Sequence[str], warn: Tell | None = None) -> list[Trajectory]:
        """The trajectories of those ids, in that order; ids that are not on disk are left out.

        Raises :class:`SkillSDError` for a damaged file; with ``warn`` that is told instead, and its ids are left out.
        """
        found: dict[str, Trajectory] = {}
        for iteration in sorted({int(name.split("/", 1)[0]) for name in ids}):
            try:
                found |= {t.id: t for t in self.read_trajectories(iteration)}
            except SkillSDError as error:
                if warn is None:
                    raise
                warn(f"{error}; what was still to be learned from it is lost")
        return [found[name] for name in ids if name in found]

    def clear(self, warn: Tell | None = None) -> None:
        """Forget what a run left behind that ended before its first checkpoint."""
        self.rewind(0, warn)
        for suffix in ("", "-journal", "-wal", "-shm"):
            self.bank.with_name(self.bank.name + suffix).unlink(missing_ok=True)

    def rewind(self, iteration: int, warn: Tell | None = None) -> None:
        """Forget everything after ``iteration``: what a crash left behind would otherwise appear twice.

        What was left out of the metrics, and is not merely done again, is told to ``warn``; if a good line may be among
        it, the file as it was is kept under another name.
        """
        warn = warn or (lambda text: None)
        record, had = self.record(), self.metrics.exists()
        numbers = [row["iteration"] for row in record.rows]
        lost = sorted({*range(1, iteration + 1)} - {*numbers})
        if record.damaged or (record.faults and lost):
            copy = _free(self.metrics.with_name("metrics.damaged.jsonl"))
            shutil.copyfile(self.metrics, copy)
            warn(f"{self.metrics}: {record.note}; the file as it was is kept as {copy.name}")
        if lost:
            warn(f"{self.metrics}: has no line for {_ranges(lost)}")
        if again := [number for number in numbers if number > iteration]:
            warn(f"{_ranges(again)} had no checkpoint and will be done again")
        kept = [line for number, line in zip(numbers, record.lines, strict=True) if number <= iteration]
        if had:
            write_atomic(self.metrics, b"".join(line + b"\n" for line in kept))
        for number in self.recorded():
            if number > iteration:
                self.trajectory_file(number).unlink()

    def tidy(self) -> None:
        """Clear away what killed processes were about to write (see :func:`skillsd.system.files.tidy`)."""
        tidy(self.path, self.config.name, self.metrics.name, self.report.name, self.bank.name)
        tidy(self.trajectories, "*.parquet")
        tidy(self.results, "*.json")


def _ranges(numbers: Sequence[int]) -> str:
    """ "iteration 3", or "iterations 3 to 5" (those at the ends; there may be gaps)."""
    if len(numbers) == 1:
        return f"iteration {numbers[0]}"
    return f"{len(numbers)} iterations ({numbers[0]} to {numbers[-1]})"


def _free(path: Path) -> Path:
    """``path``, or the first of that name with a number behind that is not taken."""
    names = chain([path], (path.with_stem(f"{path.stem}-{number}") for number in count(2)))
    return next(name for name in names if not name.exists())


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN or infinity: null says "not measurable"."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def versions() -> dict[str, str]:
    """Versions that a result depends on, and the first digits of the embedded weights' SHA-256."""
    packages = ("skillsd", "torch", "transformers", "tokenizers", "numpy")
    weights = {name: (embedded(name) / "model.safetensors").read_bytes() for name in EMBEDDED}
    found = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return {**found, **{name: hashlib.sha256(data).hexdigest()[:8] for name, data in weights.items()}}

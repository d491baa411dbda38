"""Runs a comparison's cells in parallel; what is finished stays, so that a killed or extended one goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skillsd.analysis.compare.cell import Cell, load_cell, load_status
from skillsd.analysis.compare.matrix import CellSpec, Matrix, expand
from skillsd.config import Config, parse_config
from skillsd.envs import boundary, make_taskset
from skillsd.errors import SkillSDError, UsageError
from skillsd.runs.folder import RunDir
from skillsd.system.files import locked, regular, write_atomic
from skillsd.system.interrupt import on_interrupt

State = Literal["waiting", "running", "done", "failed"]

#: Seconds between looks at the running cells.
POLL = 0.2
#: Seconds that a cell gets to end at once.
PATIENCE = 5.0


@dataclass
class Progress:
    """Where one cell stands. ``iteration`` of ``iterations``; ``seconds`` since it was started here."""

    spec: CellSpec
    state: State = "waiting"
    iteration: int = 0
    iterations: int = 0
    accuracy: float | None = None
    seconds: float = 0.0
    reason: str = ""


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    progress: Progress
    slot: int
    started: float


def _settings(spec: str) -> object:
    """What makes two specs the same cell: a setting that did not exist when a cell was run has its default, and what
    changes nothing learned may change."""
    try:
        tree = json.loads(spec)
        return {**tree, "config": parse_config(tree["config"]).with_upkeep_of(Config())}
    except (ValueError, KeyError, TypeError, RecursionError, UsageError):
        return spec


class Comparison:
    """The cells of ``matrix`` under the folder ``out``.

    ``jobs`` cells run at a time, each in a process with ``threads`` threads (or with a GPU of its own where
    ``gpus`` says so). Finished cells are kept as cells/ROW/seed-N/cell.json; their checkpoints and trajectories
    only with ``keep_runs``.
    """

    def __init__(
        self, matrix: Matrix, out: Path, *, jobs: int, threads: int, gpus: int = 0, keep_runs: bool = False
    ) -> None:
        self.matrix, self.out, self.jobs, self.threads, self.gpus = matrix, out, jobs, threads, gpus
        self.keep_runs = keep_runs
        specs = expand(matrix)
        for spec in (spec for spec in specs if spec.row == "base"):
            taskset = make_taskset(spec.config.env.name, **spec.config.env.options)
            for split in matrix.splits:
                boundary.tasks_of(taskset, split)  # what is wrong is better found now than after the first cell
        self.progress = [self._check(spec) for spec in specs]
        self.stopped = False

    def _folder(self, spec: CellSpec) -> Path:
        return self.out / "cells" / spec.folder

    def _spec_text(self, spec: CellSpec) -> str:
        tree = {
            "row": spec.row,
            "seed": spec.seed,
            "splits": self.matrix.splits,
            "overrides": spec.overrides,
            "config": spec.config.model_dump(mode="json", exclude_none=True),
        }
        return json.dumps(tree, indent=1, sort_keys=True)

    def _check(self, spec: CellSpec) -> Progress:
        """Raises :class:`UsageError` if the cell was begun with other settings, and got somewhere."""
        folder = self._folder(spec)
        written, done = folder / "spec.json", (folder / "cell.json").exists()
        failed_start = (folder / "failed.txt").exists() and not done and not RunDir(folder / "run").begun
        if written.exists() and not failed_start and _settings(_read(written)) != _settings(self._spec_text(spec)):
            raise UsageError(
                f"{folder} was begun with other settings: choose another --out, or delete that folder to run it anew"
            )
        if done:
            self._load(spec)  # a corrupt one is better found now than at the end
        total = 0 if spec.row == "base" else spec.config.trainer.iterations
        return Progress(spec, "done" if done else "waiting", total if done else 0, total)

    def _load(self, spec: CellSpec) -> Cell:
        """Raises :class:`SkillSDError` for a cell that is damaged or in another's place."""
        file = self._folder(spec) / "cell.json"
        cell = load_cell(file)
        if (cell.row, cell.seed) != (spec.row, spec.seed):
            raise SkillSDError(f"{file}: is of row {cell.row!r}, seed {cell.seed}; delete it to run the cell anew")
        return cell

    def prepare(self) -> None:
        """Make the folders of the cells to run. Raises :class:`SkillSDError` if that can't be done."""
        for spec in (p.spec for p in self.progress if p.state == "waiting"):
            folder = self._folder(spec)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_atomic(folder / "spec.json", self._spec_text(spec).encode())
            except OSError as error:
                raise SkillSDError(f"{folder}: cannot be written ({error.strerror})") from None

    def run(self, watch: Callable[[Sequence[Progress]], None] | None = None) -> list[Cell]:
        """Run what is missing; returns all finished cells. ctrl-C lets the running ones save and stop.

        Raises :class:`UsageError` while another process does that in the same folder.
        """
        running: list[_Running] = []

        def stop() -> None:
            self.stopped = True
            for r in running:  # each ends its iteration, saves and stops
                r.process.terminate()

        with locked(self.out / ".lock", f"{self.out}: another process is comparing here") as lock:
            for p in self.progress:  # that process may have finished some meanwhile
                p.state, p.iteration = (fresh := self._check(p.spec)).state, fresh.iteration
            self.prepare()
            try:
                with on_interrupt(stop):
                    self._work(running, lock, watch)
            finally:
                _end([r.process for r in running])
        return self.cells()

    def _work(self, running: list[_Running], lock: int, watch: Callable[[Sequence[Progress]], None] | None) -> None:
        while True:
            todo = [p for p in self.progress if p.state == "waiting"]
            while todo and len(running) < self.jobs and not self.stopped:
                running.append(self._start(todo.pop(0), {r.slot for r in running}, lock))
            if not running:
                return
            time.sleep(POLL)
            running[:] = [r for r in running if not self._finished(r)]
            if watch:
                watch(self.progress)

    def cells(self) -> list[Cell]:
        """All finished cells, in the order of the file. Raises :class:`SkillSDError` for a damaged one."""
        return [self._load(p.spec) for p in self.progress if p.state == "done"]

    def _start(self, progress: Progress, taken: set[int], lock: int) -> _Running:
        folder = self._folder(progress.spec)
        (folder / "failed.txt").unlink(missing_ok=True)
        slot = next(i for i in range(self.jobs) if i not in taken)
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "TOKENIZERS_PARALLELISM": "false"}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(slot % self.gpus)
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "skillsd.analysis.compare.worker", str(folder)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True,  # ctrl-C reaches the cells through us, once
                pass_fds=(lock,),  # if we are killed, the folder is free once the last cell has noticed
            )  # fmt: skip
        progress.state = "running"
        return _Running(process, progress, slot, time.monotonic())

    def _finished(self, running: _Running) -> bool:
        progress, folder = running.progress, self._folder(running.progress.spec)
        progress.seconds = time.monotonic() - running.started
        if status := load_status(folder / "status.json"):
            progress.iteration, progress.accuracy = status.iteration, status.accuracy
        code = running.process.poll()
        if code is None:
            return False
        if code == 0:
            progress.state = "done"
            if not self.keep_runs:
                for name in ("checkpoints", "trajectories"):
                    shutil.rmtree(folder / "run" / name, ignore_errors=True)
        elif self.stopped:
            progress.state = "waiting"
        else:
            progress.state, progress.reason = "failed", _reason(folder, code)
        return True


def _read(file: Path) -> str:
    """Raises :class:`SkillSDError` for what cannot be read."""
    try:
        return regular(file).read_text("utf-8", errors="replace")
    except OSError as error:
        raise SkillSDError(f"{file}: cannot be read ({error.strerror})") from None


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Of those that are still there, wait a little, and kill the rest: they can go on from their checkpoints."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _reason(folder: Path, code: int) -> str:
    """Why a cell failed, in one line."""
    for name in ("failed.txt", "log.txt"):
        try:
            lines = regular(folder / name).read_text("utf-8", errors="replace").strip().splitlines()
        except OSError:
            continue
        if lines:
            return lines[-1][:300]
    return f"exit code {code}"

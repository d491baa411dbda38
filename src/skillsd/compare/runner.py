"""Runs a comparison's cells in parallel; what is finished stays, so that a killed or extended one goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skillsd.compare.cell import Cell, load_cell
from skillsd.compare.matrix import CellSpec, Matrix, expand
from skillsd.config import Config, parse_config
from skillsd.envs import make_taskset
from skillsd.errors import SkillSDError, UsageError
from skillsd.run_dir import write_atomic

State = Literal["waiting", "running", "done", "failed"]

#: Seconds between looks at the running cells.
POLL = 0.2


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
    """What makes two specs the same cell: a setting that did not exist when a cell was run has its default, and a cell
    may go on with another machine's memory."""
    try:
        tree = json.loads(spec)
        return {**tree, "config": parse_config(tree["config"]).with_memory_of(Config())}
    except (ValueError, KeyError, TypeError, UsageError):
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
        taskset = make_taskset(specs[0].config.env.name, **specs[0].config.env.options)
        for split in matrix.splits:
            taskset.tasks(split)  # a split that does not exist is better found now than after the first cell
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
        """Raises :class:`UsageError` if the cell was begun with other settings."""
        folder = self._folder(spec)
        written = folder / "spec.json"
        if written.is_file() and _settings(written.read_text("utf-8")) != _settings(self._spec_text(spec)):
            raise UsageError(
                f"{folder} was begun with other settings: choose another --out, or delete that folder to run it anew"
            )
        done = (folder / "cell.json").is_file()
        if done:
            load_cell(folder / "cell.json")  # a corrupt one is better found now than at the end
        total = 0 if spec.row == "base" else spec.config.trainer.iterations
        return Progress(spec, "done" if done else "waiting", total if done else 0, total)

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
        """Run what is missing; returns all finished cells. ctrl-C lets the running ones save and stop."""
        self.prepare()
        running: list[_Running] = []
        previous = self._catch_interrupt(running)
        try:
            while True:
                todo = [p for p in self.progress if p.state == "waiting"]
                while todo and len(running) < self.jobs and not self.stopped:
                    running.append(self._start(todo.pop(0), {r.slot for r in running}))
                if not running:
                    break
                time.sleep(POLL)
                running[:] = [r for r in running if not self._finished(r)]
                if watch:
                    watch(self.progress)
        finally:
            for r in running:
                r.process.terminate()
            if previous is not None:
                signal.signal(signal.SIGINT, previous)
        return self.cells()

    def cells(self) -> list[Cell]:
        """All finished cells, in the order of the file. Raises :class:`SkillSDError` for a damaged one."""
        return [load_cell(self._folder(p.spec) / "cell.json") for p in self.progress if p.state == "done"]

    def _catch_interrupt(self, running: list[_Running]) -> Callable[..., object] | int | None:
        def handler(number: int, frame: object) -> None:
            if self.stopped:
                raise KeyboardInterrupt
            self.stopped = True
            for r in running:  # each ends its iteration, saves and stops
                r.process.send_signal(signal.SIGINT)

        try:
            return signal.signal(signal.SIGINT, handler)
        except ValueError:  # not in the main thread
            return None

    def _start(self, progress: Progress, taken: set[int]) -> _Running:
        folder = self._folder(progress.spec)
        (folder / "failed.txt").unlink(missing_ok=True)
        slot = next(i for i in range(self.jobs) if i not in taken)
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "TOKENIZERS_PARALLELISM": "false"}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(slot % self.gpus)
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "skillsd.compare.worker", str(folder)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True,  # ctrl-C reaches the cells through us, once
            )  # fmt: skip
        progress.state = "running"
        return _Running(process, progress, slot, time.monotonic())

    def _finished(self, running: _Running) -> bool:
        progress, folder = running.progress, self._folder(running.progress.spec)
        progress.seconds = time.monotonic() - running.started
        try:
            status = json.loads((folder / "status.json").read_text("utf-8"))
            progress.iteration, progress.accuracy = status["iteration"], status["accuracy"]
        except (OSError, ValueError):
            pass
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


def _reason(folder: Path, code: int) -> str:
    """Why a cell failed, in one line."""
    for name in ("failed.txt", "log.txt"):
        try:
            lines = (folder / name).read_text("utf-8", errors="replace").strip().splitlines()
        except OSError:
            continue
        if lines:
            return lines[-1][:300]
    return f"exit code {code}"

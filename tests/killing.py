"""A run killed before each of its file operations in turn, resumed, and compared with one that was not.

``python killing.py FOLDER SCENARIO [EVERY [FIRST]]`` tries every EVERY-th operation from FIRST on, prints a line for
each, and exits with 1 if a resumed run differs. It imports everything once and forks a process for each try, so it has
to be a program of its own: a process that has used autograd cannot be forked.

SCENARIO: ``start``, a new run with one iteration; ``iteration``, the sixth one of a resumed run, which is its best.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pyarrow.parquet as pq
import safetensors.torch
import torch
import transformers.modeling_utils
import transformers.models.llama.modeling_llama
import transformers.models.llama.tokenization_llama
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter  # noqa: F401

import skillsd.analysis.report
import skillsd.runs.checkpoint
import skillsd.skills.bank
from models_lab import save_model
from skillsd import load_config, train
from skillsd.analysis.report import write_report
from skillsd.config import ModelConfig
from skillsd.envs import register
from skillsd.policy.loading import load_policy
from skillsd.runs.episodes import read_trajectories
from skillsd.runs.folder import RunDir
from skillsd.seeding import permutation
from skillsd.skills import SkillBank
from skillsd.types import Score, Step, Task

TASKS, SIZE, LAST = 4, 2, 6


def tasks_of(iteration, seed):
    epoch, place = divmod(iteration - 1, TASKS // SIZE)
    return set(permutation(TASKS, seed, "epoch", epoch)[place * SIZE : (place + 1) * SIZE])


#: The tasks that count as solved are met in the last iteration and not in the first, so that the last is the best.
SEED = next(seed for seed in range(99) if tasks_of(LAST, seed) != tasks_of(1, seed))
GOOD = {f"t{i}" for i in tasks_of(LAST, SEED) - tasks_of(1, SEED)}


class Babble:
    """Any text is worth something; whether the task is solved is its own affair."""

    name, max_turns = "babble", 2

    def tasks(self, split):
        return [Task(f"t{i}") for i in range(TASKS)]

    def make(self):
        return Listener()


class Listener:
    def reset(self, task):
        self.task, self.said = task, ""
        return f"count up to {task.id}"

    def step(self, action):
        self.said += action
        return Step("1 2", len(self.said) > 8, {"valid": True, "events": ["said"]})

    def score(self):
        value = hashlib.sha256(self.said.encode()).digest()[0] / 255
        return Score(value, self.task.id in GOOD, value)

    def close(self):
        pass


def config(model, iterations):
    settings = [
        f"model.path={model}", f"seed={SEED}", "env.name=babble", "env.options={}", f"env.train_tasks={TASKS}",
        f"rollout.tasks_per_iteration={SIZE}", "rollout.group_size=2", "rollout.max_new_tokens=4", "eval.tasks=1",
        "eval.panel_every=0", f"trainer.iterations={iterations}", "trainer.checkpoint_every=1",
        "trainer.keep_checkpoints=2", "trainer.tensorboard=true", "method=skill_sd_ema", "skills.summarizer=trajectory",
        "model.device=cpu",
    ]  # fmt: skip
    return load_config("sokoban-smoke", settings)


# -- what happens in a forked process ------------------------------------------------------------------------------


class Killer:
    """Counts what this process does to files below ``root``, and ends it before number ``at``.

    With ``torn``, what is about to become lasting (a file before it is synced or renamed, or after a library has
    written it) is left half-written.
    """

    def __init__(self, root, at, torn, log):
        self.root, self.at, self.torn, self.log, self.count = f"{root}{os.sep}", at, torn, log, 0
        sys.addaudithook(self.hook)
        self.fsync, os.fsync = os.fsync, self.synced
        for module, name in ((safetensors.torch, "save_file"), (skillsd.runs.checkpoint, "save_file"),
                             (transformers.modeling_utils, "safe_save_file")):  # fmt: skip
            setattr(module, name, self.written(getattr(module, name), 1))
        pq.write_table = self.written(pq.write_table, 1)
        skillsd.skills.bank.sqlite3 = Traced(self)

    def point(self, what, path, unfinished=None):
        if not str(path).startswith(self.root):
            return
        self.count += 1
        if self.count != self.at:
            return
        half = unfinished is not None and os.path.isfile(unfinished)
        self.log.write_text(f"{what} {str(path)[len(self.root) :]}{' (file)' if half else ''}")
        if self.torn and half:
            size = os.path.getsize(unfinished)
            os.truncate(unfinished, size - 10 if str(path).endswith("metrics.jsonl") else size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(self, event, arguments):
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, os.PathLike)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.point("open", os.fspath(path))
        elif event == "os.rename":
            self.point("rename", os.fspath(arguments[0]), os.fspath(arguments[0]))
        elif event in ("os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "shutil.rmtree",
                       "shutil.copyfile", "shutil.copytree"):  # fmt: skip
            where = os.fspath(arguments[0])
            self.point(event, where if os.path.isabs(where) else f"{self.root}{where}")

    def synced(self, descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        self.point("fsync", path, path)
        self.fsync(descriptor)

    def written(self, function, place):
        def wrapped(*arguments, **named):
            path = arguments[place]
            self.point(f"before {function.__name__}", path)
            function(*arguments, **named)
            self.point(f"after {function.__name__}", path, path)

        return wrapped


class Traced:
    """The module sqlite3, whose connections tell of every statement."""

    def __init__(self, killer):
        self.killer = killer

    def __getattr__(self, name):
        return getattr(sqlite3, name)

    def connect(self, path, *arguments, **named):
        found = sqlite3.connect(path, *arguments, **named)
        plain = str(path).removeprefix("file://").partition("?")[0]
        found.set_trace_callback(lambda statement: self.killer.point(f"SQL {statement.split()[0]}", plain))
        return found


#: Drawing takes longer than all the rest, and touches no file.
skillsd.analysis.report._chart = lambda *arguments: None


def work(model, out, iterations):
    """What ``skillsd train`` does, with or without --resume."""
    train(config(model, iterations), out, resume=RunDir(out).config.is_file())
    write_report(out)


def forked(function):
    """Run ``function`` in a process of its own; its exit status (0, 1 after an exception, or minus the signal)."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            register("babble", Babble)
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# -- what a run's folder holds -------------------------------------------------------------------------------------


def without_clock(row):
    return {k: v for k, v in row.items() if "second" not in k and "memory" not in k}


def bank_rows(path):
    bank = SkillBank(path, create=False)
    try:
        return repr((bank.skills(), bank.stats()))
    finally:
        bank.close()


def scalars(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    names = [n for n in sorted(events.Tags()["scalars"]) if without_clock({n: 0})]
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in names}


def content(root):
    """Every file below ``root``, hidden ones too, by name: what must not differ between two runs."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_dir():
            found[name] = "folder"
        elif path.suffix == ".sqlite":
            found[name] = bank_rows(path)
        elif path.suffix == ".parquet":
            found[name] = repr(read_trajectories(path))
        elif name == "metrics.jsonl":
            found[name] = repr([without_clock(json.loads(line)) for line in path.read_text().splitlines()])
        elif name == "report.html":
            found[name] = str(path.stat().st_size > 1000)
        elif path.name == "state.json":
            state = json.loads(path.read_text())
            del state["files"]["skills.sqlite"]  # the same rows, but not byte for byte
            found[name] = repr(state)
        elif path.name.startswith("events.out.tfevents"):
            found["tensorboard/events"] = found.get("tensorboard/events", "") + "one file "
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    found["tensorboard/scalars"] = repr(scalars(root / "tensorboard"))
    return found


def differences(one, other):
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def main():
    folder, scenario = Path(sys.argv[1]).resolve(), sys.argv[2]
    every, first = (int(text) for text in (*sys.argv[3:], "1", "1")[:2])
    model = save_model(folder / "model")
    load_policy(ModelConfig(path=str(model), device="cpu"))  # what is slow the first time only
    iterations = {"start": 1, "iteration": LAST}[scenario]
    before, whole, out, log = (folder / name for name in ("before", "whole/run", "tried/run", "log"))
    if scenario == "iteration":
        assert forked(lambda: work(model, before, LAST - 1)) == 0
        shutil.copytree(before, whole)
    assert forked(lambda: work(model, whole, iterations)) == 0
    expected = content(whole)
    assert scenario == "start" or "checkpoints/best/state.json" in expected
    failed, at, started = 0, first, time.monotonic()
    ended = False

    def die():
        Killer(out.parent, at, torn, log)
        work(model, out, iterations)

    while not ended:
        for torn in (False, True):
            shutil.rmtree(out.parent, ignore_errors=True)
            if before.exists():
                shutil.copytree(before, out)
            log.write_text("")
            code = forked(die)
            ended = code == 0
            wrong = [] if code in (0, -signal.SIGKILL) else [f"it ended with {code} by itself"]
            if code := forked(lambda: work(model, out, iterations)):
                wrong.append(f"resume ended with {code}")
            wrong += differences(expected, content(out))
            failed += bool(wrong)
            what = log.read_text()
            print(f"{at}{' half-written' if torn else ''} {what}: {', '.join(wrong) or 'same'}", flush=True)
            if ended or not what.endswith("(file)"):
                break
        at += every
    print(f"{scenario}: {at - every} operations, {failed} failed, {time.monotonic() - started:.0f} s")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

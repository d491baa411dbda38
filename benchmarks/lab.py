"""What the benchmarks share: a Sokoban that never ends, an iteration measured by phases, children with a memory guard.

Seconds are those of the process's CPU (machines are shared), wall seconds stand beside them. Each measurement runs in a
process of its own, started by :func:`child`; a thread in it gives up before the machine's last memory is taken.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from contextlib import contextmanager
from pathlib import Path

#: MiB that are left to everybody else.
RESERVE = 1024


def available_mib():
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable"))


def guard():
    """From here on this process ends, with one line, when the machine has less than ``RESERVE`` left."""

    def watch():
        while available_mib() > RESERVE:
            time.sleep(0.1)
        print(f"stopped: less than {RESERVE} MiB of the machine's memory are left", file=sys.stderr, flush=True)
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def child(script, *arguments, timeout=1800):
    """The JSON that a process of its own prints last; None, told, if it cannot."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / script), *map(str, arguments)], capture_output=True, text=True,
        timeout=timeout, env={**os.environ, "TRL_EXPERIMENTAL_SILENCE": "1"},
    )  # fmt: skip
    if done.returncode:
        print(f"{script} {' '.join(map(str, arguments))}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Endless:
    """Sokoban in which nothing is ever solved and rewards are arbitrary: all rows are long, and all are trained."""

    def __init__(self, world):
        self.world = world

    def reset(self, task):
        self.said = []
        return self.world.reset(task)

    def step(self, action):
        from skillsd.types import Step

        self.said.append(action)
        step = self.world.step(action)
        return Step(step.observation, False, step.info)

    def score(self):
        from skillsd.types import Score

        reward = zlib.crc32("".join(self.said).encode()) % 1000 / 1000
        return Score(reward, reward > 0.5, reward)

    def close(self):
        self.world.close()


def endless(turns):
    from skillsd.envs import make_taskset

    class Tasks:
        name = "endless"
        max_turns = turns

        def __init__(self):
            self.inner = make_taskset("sokoban", variant="one_box")
            self.rules = self.inner.rules

        def tasks(self, split):
            return self.inner.tasks(split)

        def make(self):
            return Endless(self.inner.make())

    return Tasks()


@contextmanager
def clocks(into, name):
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    into[name] = into.get(name, 0.0) + time.process_time() - cpu
    into[f"{name}_wall"] = into.get(f"{name}_wall", 0.0) + time.perf_counter() - wall


def iterations(a, settings=()):
    """Seconds of each measured iteration of our trainer by phase, and what was computed in it."""
    import torch

    import skillsd.training.parts
    from skillsd import load_config, train
    from skillsd.envs import register
    from skillsd.runs.folder import RunDir

    torch.set_num_threads(a.threads)
    register("endless", lambda: endless(a.turns))
    found = []

    @contextmanager
    def phase(self, name):
        if name == "rollout":
            found.append({})
        with clocks(found[-1], name):
            yield
        self.seconds[name] = found[-1][f"{name}_wall"]

    skillsd.training.parts.Parts.phase = phase
    with tempfile.TemporaryDirectory() as folder:
        preset = Path(folder) / "bench.toml"
        preset.write_text(f'method = "{a.method}"\nenv.name = "endless"\n')
        config = load_config(preset, [
            f"model.path={a.model}", f"env.train_tasks={a.tasks}", f"rollout.tasks_per_iteration={a.tasks}",
            f"rollout.group_size={a.group}", "rollout.max_new_tokens=6", "rollout.max_tokens=8192",
            f"trainer.iterations={a.iterations + 1}", f"trainer.checkpoint_every={a.iterations + 1}",
            "optim.lr=1e-9", f"optim.max_tokens_per_device={a.max_tokens}", *settings, *a.set,
        ])  # fmt: skip
        run = RunDir(Path(folder) / "run")
        train(config, run.path, evaluate=False)
        for number, each in enumerate(found, 1):
            rows = run.read_trajectories(number)
            each["tokens"], each["actions"] = sum(len(t.ids) for t in rows), sum(t.action_tokens for t in rows)
            each["total"] = sum(each.get(name, 0.0) for name in ("rollout", "score", "update", "summarize"))
        taught = run.read_metrics()[-1].get("teacher_rows_with_skill", 0.0)
    return {"iterations": found[1:], "taught": taught, "peak_mib": peak_mib()}


def arguments(description, **defaults):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="embedded, smollm2 or a folder")
    parser.add_argument("--method", default="grpo")
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=2, help="measured ones, after one to warm up")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind, in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=4096, help="of a micro-batch")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the run")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.set_defaults(**defaults)
    return parser


def passed_on(a):
    """The options that a child needs."""
    names = ("model", "method", "tasks", "group", "turns", "iterations", "threads", "max_tokens")
    given = [part for name in names for part in (f"--{name.replace('_', '-')}", getattr(a, name))]
    return [*given, *(part for setting in a.set for part in ("--set", setting))]


def middle(values):
    """median (least to most)."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def save(a, figures):
    if a.json:
        Path(a.json).write_text(json.dumps(figures, indent=1) + "\n")

"""Runs on two processes (gloo), and what makes them the same as on one."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir

TINY = [
    "env.train_tasks=3", "rollout.tasks_per_iteration=3", "rollout.group_size=3", "rollout.max_turns=6", "eval.tasks=5",
    "eval.panel_every=2", "eval.panel_tasks=3", "trainer.iterations=4", "model.device=cpu",
]  # fmt: skip


def launch(*what, count=2):
    rendezvous = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={count}", *rendezvous, *what]


def command(out, *overrides, resume=False, count=2):
    sets = [word for override in [*TINY, *overrides] for word in ("--set", override)]
    words = launch("-m", "skillsd", "train", "sokoban-smoke", count=count)
    return [*words, *sets, "--out", str(out), *(["--resume"] if resume else [])]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run_two(out, *overrides, resume=False):
    done = subprocess.run(
        command(out, *overrides, resume=resume), env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{done.stderr[:4000]}\n[...]\n{done.stderr[-2000:]}"
    return done


def weights(run):
    (file,) = latest(RunDir(run)).glob("*model.safetensors")  # or adapter_model.safetensors
    return load_file(file)


def assert_same(one, other):
    rows, others = RunDir(one).read_metrics(), RunDir(other).read_metrics()
    assert len(rows) == len(others) == 4
    for row, again in zip(rows, others, strict=True):
        for key, value in row.items():
            if not any(word in key for word in ("second", "memory", "gap", "kl_old")):
                assert again[key] == pytest.approx(value, rel=2e-3, abs=2e-5), (row["iteration"], key)
        mine, theirs = (RunDir(run).read_trajectories(row["iteration"]) for run in (one, other))
        assert [t.ids for t in mine] == [t.ids for t in theirs]
        assert [t.id for t in mine] == [t.id for t in theirs]
    for key, value in weights(one).items():
        torch.testing.assert_close(weights(other)[key], value, atol=2e-4, rtol=1e-3)

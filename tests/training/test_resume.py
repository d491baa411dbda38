"""Killed, interrupted, gone on with: bit for bit the run that was not stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from runs_lab import TINY, bank_rows, config, numbers, weights
from skillsd import load_config, train
from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir

KILL = """
import os, signal, sys
from skillsd import load_config, train
import skillsd.runs.checkpoint, skillsd.runs.folder, skillsd.skills.bank, skillsd.training.learner
def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)
point, out, overrides = sys.argv[1], sys.argv[2], sys.argv[3:]
calls = {"n": 0}
def at(n, original):
    def wrapped(*a, **k):
        calls["n"] += 1
        if calls["n"] == n: die()
        return original(*a, **k)
    return wrapped
if point == "update":        # before the third update
    skillsd.training.learner.Learner.update = at(3, skillsd.training.learner.Learner.update)
elif point == "checkpoint":  # while the second checkpoint's folder is being filled
    skillsd.runs.checkpoint.save_file = at(2, skillsd.runs.checkpoint.save_file)
elif point == "metrics":     # the checkpoint is there, its line of metrics is not
    skillsd.runs.folder.RunDir.append_metrics = at(3, skillsd.runs.folder.RunDir.append_metrics)
elif point == "bank":        # in the middle of putting skills away
    skillsd.skills.bank.SkillBank.add = at(8, skillsd.skills.bank.SkillBank.add)
elif point == "early":       # before the first checkpoint
    skillsd.training.learner.Learner.update = at(1, skillsd.training.learner.Learner.update)
train(load_config("sokoban-smoke", overrides), out)
"""


@pytest.mark.parametrize("point", ["update", "checkpoint", "metrics", "bank", "early"])
def test_kill_and_resume_is_bit_for_bit_the_same(whole_run, tmp_path, point):
    overrides = [*TINY, "trainer.iterations=5"]
    out = tmp_path / "run"
    killed = subprocess.run([sys.executable, "-c", KILL, point, str(out), *overrides], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    result = train(load_config("sokoban-smoke", overrides), out, resume=True)
    assert result.iterations == 5
    assert numbers(out) == numbers(whole_run)
    mine, theirs = weights(out), weights(whole_run)
    assert all(torch.equal(mine[k], theirs[k]) for k in theirs)
    assert bank_rows(out / "skills.sqlite") == bank_rows(whole_run / "skills.sqlite")
    for iteration in range(1, 6):
        assert RunDir(out).read_trajectories(iteration) == RunDir(whole_run).read_trajectories(iteration)


@pytest.mark.parametrize(
    "settings",
    [
        ["method=skill_sd_frozen"],
        ["method=skill_sd_ema"],
        ["loss.estimator=top_k", "skills.credit=separation", "optim.schedule=linear"],
    ],
)
def test_whatever_else_has_a_state_resumes_bit_for_bit(tmp_path, settings):
    def run(out, iterations, **options):
        given = config(*settings, "trainer.iterations=4")
        if iterations < 4:  # as ctrl-C would end it; a schedule needs the true number
            options["listen"] = lambda kind, data: stop() if data.get("iteration") == iterations else None
        train(given, out, **options)

    def stop():
        os.kill(os.getpid(), signal.SIGINT)

    run(tmp_path / "whole", 4)
    run(tmp_path / "parts", 2)
    assert len(numbers(tmp_path / "parts")) < 4
    run(tmp_path / "parts", 4, resume=True)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    assert all(torch.equal(v, weights(tmp_path / "whole")[k]) for k, v in weights(tmp_path / "parts").items())


def test_ctrl_c_ends_cleanly_and_can_go_on(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "skillsd", "train", "sokoban-smoke", "--out", str(out)]
    for override in [*TINY, "trainer.iterations=100000"]:
        command += ["--set", override]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not RunDir(out).read_metrics() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    done = len(numbers(out))
    assert json.loads((latest(RunDir(out)) / "state.json").read_text())["iteration"] == done >= 1
    assert train(config(f"trainer.iterations={done + 1}"), out, resume=True).iterations == done + 1

"""DeepSpeed's ZeRO on two real processes (gloo) against one plain one, and a resume between the two kinds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from processes_lab import TINY, assert_same, command, environment, run_two
from skillsd import load_config, train

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: `make test-engines` installs it")

FROZEN = ["method=skill_sd_frozen", "trainer.grad_norms_every=0", "optim.max_tokens_per_device=1200"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.zero_stage=1", "optim.minibatches=2"],
        ["trainer.zero_stage=2", "model.lora_rank=4"],
        ["trainer.zero_stage=2", "method=skill_sd_hindsight", "loss.estimator=top_k"],
    ],
    ids=["stage 1", "stage 2 and an adapter", "stage 2 and top-k"],
)
def test_a_run_spread_over_two_processes_is_the_same(tmp_path, overrides):
    overrides = [*FROZEN, *overrides]
    train(load_config("sokoban-smoke", [*TINY, *overrides]), tmp_path / "one")
    done = run_two(tmp_path / "two", *overrides)
    assert_same(tmp_path / "one", tmp_path / "two")
    assert "[INFO]" not in done.stdout + done.stderr, "it talks no more than we do"


def test_stdout_is_the_result_alone_where_deepspeed_is_installed(tmp_path):
    line = [sys.executable, "-m", "skillsd", "train", "sokoban-smoke", "--json", "--out", str(tmp_path / "run")]
    for override in TINY:
        line += ["--set", override]
    done = subprocess.run(line, capture_output=True, text=True, timeout=240, check=True)
    assert json.loads(done.stdout)["iterations"] == 4


def test_a_run_resumes_the_same_on_another_number_of_processes(tmp_path):
    """One process (plain AdamW), two (ZeRO), one again."""
    overrides = [*FROZEN, "trainer.zero_stage=2"]
    train(load_config("sokoban-smoke", [*TINY, *overrides]), tmp_path / "one")
    train(load_config("sokoban-smoke", [*TINY, *overrides, "trainer.iterations=1"]), tmp_path / "mixed")
    run_two(tmp_path / "mixed", "trainer.iterations=2", resume=True)
    run_two(tmp_path / "mixed", "trainer.iterations=3", resume=True)
    train(load_config("sokoban-smoke", [*TINY, *overrides]), tmp_path / "mixed", resume=True)
    assert_same(tmp_path / "one", tmp_path / "mixed")


def test_a_gradient_that_is_not_finite_ends_the_run_with_one_line(tmp_path):
    far = ["optim.lr=1e3", "optim.weight_decay=1e9", "trainer.iterations=9", "trainer.checkpoint_every=1"]
    overrides = [*FROZEN, "trainer.zero_stage=2", *far]
    done = subprocess.run(command(tmp_path / "run", *overrides), env=environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "the last checkpoint is intact" in done.stderr
    assert list((tmp_path / "run" / "checkpoints").glob("step-*/state.json"))

"""Two real processes (gloo) against one: the same episodes, losses and weights, and a resume across their numbers."""

import json
import os
import signal
import subprocess
import time

import pytest

from processes_lab import TINY, assert_same, command, environment, launch, run_two
from skillsd import load_config, train
from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir

#: Every sum over processes: scores of teacher-owned rollouts, top-k candidates, separate gradients.
VARIANTS = {
    "skill_sd": ["optim.minibatches=2", "skills.credit=separation", "trainer.grad_norms_every=1"],
    "top_k": ["method=skill_sd_hindsight", "loss.estimator=top_k", "trainer.grad_norms_every=1"],
    "asynchronous": ["trainer.asynchronous=true"],
    "teacher_dynamic": ["method=teacher_dynamic", "loss.token_share=0.5"],
    "fsdp": [
        "method=skill_sd_frozen",
        "trainer.fsdp=true",
        "trainer.grad_norms_every=0",
        "optim.max_tokens_per_device=1200",
    ],
}


@pytest.fixture(params=VARIANTS)
def variant(request, tmp_path):
    train(load_config("sokoban-smoke", [*TINY, *VARIANTS[request.param]]), tmp_path / "one")
    return VARIANTS[request.param], tmp_path


def test_two_processes_are_one(variant):
    overrides, folder = variant
    done = run_two(folder / "two", *overrides)
    assert_same(folder / "one", folder / "two")
    assert done.stderr.count("before training") == 1  # one of them talks
    assert (folder / "two" / "report.html").is_file()
    before = [json.loads((folder / run / "results" / "before.json").read_text()) for run in ("one", "two")]
    assert before[0] == before[1]


@pytest.mark.parametrize("variant", ["skill_sd", "fsdp", "adapter"])
def test_a_run_resumes_the_same_on_another_number_of_processes(tmp_path, variant):
    adapter = ["model.lora_rank=4", *VARIANTS["fsdp"]]
    overrides = adapter if variant == "adapter" else VARIANTS[variant]
    train(load_config("sokoban-smoke", [*TINY, *overrides]), tmp_path / "one")
    train(load_config("sokoban-smoke", [*TINY, *overrides, "trainer.iterations=1"]), tmp_path / "mixed")
    run_two(tmp_path / "mixed", "trainer.iterations=2", resume=True)
    train(load_config("sokoban-smoke", [*TINY, *overrides]), tmp_path / "mixed", resume=True)
    assert_same(tmp_path / "one", tmp_path / "mixed")


SHARDED = """
import torch, torch.distributed as dist
from skillsd.config import ModelConfig
from skillsd.distributed.processes import Processes
from skillsd.policy.loading import load_policy
from skillsd.policy.packing import TokenRow
from skillsd.policy.scoring import score_tokens
from skillsd.distributed.fsdp import is_sharded, shard, whole
processes = Processes()
model = load_policy(ModelConfig(device="cpu"), train=True).model
rows = [TokenRow([5, 6, 7], [8, 9, 10], [1, 0, 1])]
with torch.no_grad():
    expected = score_tokens(model, rows).logps
total = sum(p.numel() for p in model.parameters())
assert not is_sharded(model)
shard(model, torch.float32)
assert is_sharded(model)
def mine(): return sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in model.parameters())
assert mine() < 0.6 * total, (mine(), total)
with torch.no_grad(), whole(model):
    assert mine() == total
    for _ in range(1 + 3 * processes.rank):  # out of step
        torch.testing.assert_close(score_tokens(model, rows).logps, expected)
assert mine() < 0.6 * total
with torch.no_grad():  # in step, a layer at a time
    torch.testing.assert_close(score_tokens(model, rows).logps, expected)
dist.barrier()
print("fine", processes.rank)
"""


#: Somebody keeps the group, and a thread of it cannot give back its tensor before the end: the script never yields.
HELD = """
import sys, time, torch, torch.distributed as dist
from skillsd.distributed.processes import Processes
processes = Processes()
class Slow:
    def __del__(self, sleep=time.sleep): sleep(1)
kept, slow = dist.group.WORLD, Slow()
print("fine", processes.rank, flush=True)
if processes.main:
    time.sleep(1)
    dist.all_reduce(torch.ones(3))
else:
    sys.setswitchinterval(1000)
    dist.all_reduce(torch.ones(3), async_op=True)
    end = time.monotonic() + 3
    while time.monotonic() < end: pass
"""


def run_script(folder, text):
    (folder / "script.py").write_text(text)
    words = launch(str(folder / "script.py"))
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.stdout.count("fine") == 2, done.stderr[-3000:]
    return done


def test_weights_are_spread_and_gathered(tmp_path):
    run_script(tmp_path, SHARDED)


def test_a_group_that_somebody_keeps_ends_no_process(tmp_path):
    done = run_script(tmp_path, HELD)
    assert done.returncode == 0, done.stderr[-3000:]


def test_one_lost_process_ends_the_run_and_loses_nothing(tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(out, "trainer.iterations=1000"), env=environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and latest(RunDir(out)) is None:
            time.sleep(0.2)
        listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
        os.kill(int(listing.stdout.split()[-1]), signal.SIGKILL)
        assert process.wait(timeout=120) != 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    found = int(latest(RunDir(out)).name.split("-")[1])
    result = train(load_config(out / "config.toml", [f"trainer.iterations={found + 1}"]), out, resume=True)
    assert result.iterations == found + 1

"""The examples of CONTRIBUTING.md, applied and run as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
SMALL = [
    "env.train_tasks=2", "rollout.tasks_per_iteration=2", "rollout.group_size=2", "rollout.max_turns=2", "eval.tasks=1",
    "eval.panel_every=0", "trainer.iterations=2",
]  # fmt: skip


def example(title, kind):
    """The block of that kind under that heading."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    (block,) = re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)
    lines = [line for line in block.splitlines() if line.strip("+ ") and not re.match("[-+]{3}|@@|#", line)]
    assert len(lines) <= 30
    return block


@pytest.fixture
def run(tmp_path):
    """Runs a command in a folder of its own."""

    def go(*words, source=ROOT / "src"):
        environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{tmp_path}", "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return go


def train(run, *settings, **options):
    sets = [word for setting in (*SMALL, *settings) for word in ("--set", setting)]
    return run("-m", "skillsd", "train", "sokoban-smoke", "--out", "run", "--json", *sets, **options)


@pytest.fixture
def patched(tmp_path):
    """A copy of the source with a diff applied."""

    def apply(diff):
        source = shutil.copytree(ROOT / "src", tmp_path / "src", symlinks=True)
        (tmp_path / "change.diff").write_text(diff, "utf-8")
        done = subprocess.run(
            ["patch", "-p1", "--batch", "-i", "change.diff"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
        return source

    return apply


def test_a_method_added_as_described_trains(run, patched):
    source = patched(example("A method", "diff"))
    assert '"iterations": 2' in train(run, "method=opsd_reward", source=source)


EXACT = """
import torch
from skillsd.objectives import distillation_loss
torch.manual_seed(0)
theta, teacher, mu = (torch.randn(5, dtype=torch.float64) for _ in range(3))
theta.requires_grad_()
def logp(x): return x.log_softmax(0)
one = torch.ones(1, 1)
found = sum(
    mu.softmax(0)[y] * torch.autograd.grad(
        distillation_loss(logp(theta)[y].view(1, 1), logp(teacher)[y].view(1, 1), logp(mu)[y].view(1, 1), one, "iw_k2"),
        theta,
    )[0]
    for y in range(5)
)
kl = (logp(theta).exp() * (logp(theta) - logp(teacher))).sum()
torch.testing.assert_close(found, torch.autograd.grad(kl, theta)[0], atol=1e-6, rtol=1e-5)
"""


def test_an_estimator_added_as_described_is_exact_and_trains(run, patched):
    source = patched(example("An estimator", "diff"))
    run("-c", EXACT, source=source)
    assert '"iterations": 2' in train(run, "loss.estimator=iw_k2", source=source)


def test_an_environment_and_a_summariser_written_as_described_train(run, tmp_path):
    (tmp_path / "guess.py").write_text(example("An environment", "python"), "utf-8")
    (tmp_path / "terse.py").write_text(example("A summariser", "python"), "utf-8")
    for line in re.findall(r"`skillsd ([^`]*guess:Guess[^`]*)`", PAGE):  # as they stand there, only smaller
        small = [word for setting in SMALL for word in ("--set", setting)] if line.startswith("train") else []
        run("-m", "skillsd", *line.split(), *small)
    assert run("-m", "skillsd", "env", "check", "guess:Guess", "--json").strip()
    train(run, "env.name=guess:Guess", "skills.summarizer=terse:Terse")
    assert "What was said" in run("-m", "skillsd", "skills", "list", "run", "--json")


SAME = """
from skillsd.runs.folder import RunDir
plain, cached = (RunDir(folder).read_trajectories(1) for folder in ("plain", "transformers"))
assert [t.ids for t in plain] == [t.ids for t in cached]
"""


def test_an_engine_added_as_described_plays_the_same_episodes(run, patched, tmp_path):
    source = patched(example("An engine", "diff"))
    for engine in ("plain", "transformers"):
        train(run, f"rollout.engine={engine}", "trainer.iterations=1", source=source)
        (tmp_path / "run").rename(tmp_path / engine)
    run("-c", SAME, source=source)

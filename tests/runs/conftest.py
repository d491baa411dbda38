"""A small finished run, and copies of it to be damaged."""

import shutil

import pytest

from skillsd import load_config, train
from skillsd.analysis.report import write_report

TINY = [
    "env.train_tasks=2", "rollout.tasks_per_iteration=2", "rollout.group_size=2", "rollout.max_turns=2", "eval.tasks=1",
    "eval.panel_every=0", "trainer.iterations=3",
]  # fmt: skip


@pytest.fixture
def config(llama_folder):
    return lambda *overrides: load_config("sokoban-smoke", [*TINY, f"model.path={llama_folder}", *overrides])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, llama_folder):
    out = tmp_path_factory.mktemp("whole") / "run"
    train(load_config("sokoban-smoke", [*TINY, f"model.path={llama_folder}"]), out)
    write_report(out)
    return out


@pytest.fixture
def out(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"

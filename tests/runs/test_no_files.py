"""What is no regular file where one belongs, values that no evaluation has, and disks that are full."""

import json
import os

import pytest

from skillsd import SkillSDError, UsageError, load_config, train
from skillsd.analysis.compare.cell import load_cell, load_status
from skillsd.analysis.report import write_report
from skillsd.config import ModelConfig
from skillsd.policy.loading import load_policy
from skillsd.rollouts.results import EvalResult
from skillsd.runs import episodes
from skillsd.runs.checkpoint import restore_bank
from skillsd.runs.folder import RunDir
from skillsd.skills import SkillBank
from skillsd.skills.summarize.store import SummaryStore

PIPES = ["metrics.jsonl", "results/before.json", "trajectories/000001.parquet", "skills.sqlite"]


@pytest.fixture
def config(llama_folder):
    return load_config(
        "sokoban-smoke",
        ["env.train_tasks=2", "rollout.tasks_per_iteration=2", "rollout.group_size=2", "rollout.max_turns=2",
         "eval.tasks=1", "eval.panel_every=0", "trainer.iterations=1", f"model.path={llama_folder}"],
    )  # fmt: skip


@pytest.fixture
def run(tmp_path, config):
    train(config, tmp_path / "run")
    return RunDir(tmp_path / "run")


@pytest.mark.parametrize("name", PIPES)
def test_a_pipe_is_no_file_of_a_run(run, config, name):
    """Whoever opened it would wait for ever."""
    file = run.path / name
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(SkillSDError, match=f"{file}.*no regular file"):
        train(config, run.path, resume=True)
    told = []
    try:
        write_report(run.path, told.append)
    except SkillSDError as error:
        told.append(str(error))
    assert any("no regular file" in text for text in told)


def test_other_readers_do_not_wait_for_a_pipe_either(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (EvalResult.load, load_cell, episodes.read_trajectories, SkillBank, SummaryStore):
        with pytest.raises(SkillSDError, match="no regular file"):
            read(tmp_path / "pipe")
    assert load_status(tmp_path / "pipe") is None
    os.mkfifo(tmp_path / "config.toml")
    with pytest.raises(UsageError, match="already holds a run"):
        RunDir(tmp_path).refuse_if_taken()
    with pytest.raises(UsageError, match="holds no run"):
        write_report(tmp_path)
    checkpoint = tmp_path / "step-000001"
    checkpoint.mkdir()
    for name in ("skills.sqlite", "model.safetensors"):
        os.mkfifo(checkpoint / name)
    with pytest.raises(SkillSDError, match=r"skills.sqlite: no regular file"):
        restore_bank(checkpoint, tmp_path / "bank.sqlite")
    with pytest.raises(SkillSDError, match="no regular file"):
        load_policy(ModelConfig(path=str(checkpoint)))


@pytest.mark.parametrize(
    ("name", "value"),
    [("accuracy", -5), ("completion", 1.5), ("valid_actions", "NaN"), ("accuracy_interval", [0, 2]), ("tasks", -1)],
)
def test_an_evaluation_with_values_that_none_has_is_not_believed(run, name, value):
    file = run.results / "before.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    with pytest.raises(SkillSDError, match="not the result of an evaluation"):
        EvalResult.load(file)
    told = []
    write_report(run.path, told.append)
    assert any("before.json" in text for text in told)


def test_a_full_disk_names_the_file_that_did_not_fit(tmp_path, config, monkeypatch):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skillsd.runs.episodes.pq.write_table", full)
    with pytest.raises(SkillSDError, match=r"run/trajectories/000001.parquet: cannot be written \(No space left"):
        train(config, tmp_path / "run")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SkillSDError, match=r"metrics.jsonl: cannot be written \(No space left"):
        RunDir(tmp_path).append_metrics({})


def test_the_first_checkpoint_has_no_previous_one(tmp_path, config, monkeypatch):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skillsd.runs.checkpoint.save_file", full)
    with pytest.raises(SkillSDError, match="could not be written") as error:
        train(config, tmp_path / "run")
    assert "intact" not in str(error.value)

"""A real LLM, fetched from PyPI, through the whole loop."""

import pytest
import torch

from skillsd import load_config, train
from skillsd.config import ModelConfig
from skillsd.policy.loading import load_policy
from skillsd.policy.packaged import packaged
from skillsd.runs.folder import RunDir
from skillsd.skills import SkillBank


@pytest.fixture(scope="module")
def policy():
    return load_policy(ModelConfig(path="smollm2", device="cpu"))


def test_its_weights_survived_the_unpacking(policy):
    ids = policy.chat.prompt("What is the capital of France?")
    with torch.no_grad():
        answer = policy.model.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)[0, len(ids) :].tolist()
    assert "Paris" in policy.chat.decode(answer)
    assert answer[-1] in policy.chat.stop_ids
    assert policy.model.config.vocab_size == 49152
    assert packaged("smollm2") == packaged("smollm2")  # fetched once


def test_its_preset_trains_with_skills_from_the_second_iteration_on(policy, tmp_path):
    small = ["trainer.iterations=2", "rollout.group_size=2", "rollout.max_turns=2", "rollout.max_new_tokens=8"]
    few = ["rollout.tasks_per_iteration=1", "env.train_tasks=1", "eval.tasks=1", "model.device=cpu"]
    train(load_config("smollm2-sokoban", [*small, *few]), tmp_path / "run")
    run = RunDir(tmp_path / "run")
    first, second = run.read_metrics()
    assert first["skills_added"] + first["skills_duplicate"] == 2
    assert second["teacher_rows_with_skill"] == 1.0
    assert second["loss_distill"] > 0
    assert second["logp_gap_max"] < 1e-3
    bank = SkillBank(run.bank)
    assert bank.skills()
    bank.close()
    for trajectory in run.read_trajectories(2):
        text = policy.tokenizer.decode(trajectory.ids)
        assert trajectory.prompt in text
        assert text.count("<|im_start|>assistant") == len(trajectory.turns) == 2
        assert all(turn.action in text for turn in trajectory.turns)
        assert trajectory.turns[0].observation in text

"""Environments that change what is everybody's, or that are one and the same."""

import pytest
import torch

from echoes import Echo, Echoes
from skillsd.config import ModelConfig
from skillsd.policy.engines.transformers import TransformersEngine
from skillsd.policy.loading import load_policy
from skillsd.rollouts.rollout import Job, rollout
from skillsd.types import Task


def play(taskset, folder, count=3):
    policy = load_policy(ModelConfig(path=str(folder), device="cpu"))
    engine = TransformersEngine(policy.model, policy.chat, max_new_tokens=3)
    jobs = [Job(Task(f"t{i}", [3, 2, 1]), 0, i) for i in range(count)]
    return rollout(
        engine, policy.chat, taskset, jobs, iteration=1, max_turns=5, max_tokens=1000, turn_timeout=30,
        episode_timeout=60, batch_size=8,
    )  # fmt: skip


class Lists(Echo):
    def reset(self, task):
        self.lengths = [3, 2, 1]
        return "go"


def test_one_environment_for_all_episodes_is_used_for_one(llama_folder):
    only = Lists()

    class One(Echoes):
        def make(self):
            return only

    batch = play(One(), llama_folder)
    assert len(batch.trajectories) == 1
    assert {d.reason for d in batch.dropped} == {
        "make() gave an environment that is in use: let it make a new one each time"
    }


@pytest.mark.parametrize("method", ["make", "reset", "step", "score", "close"])
def test_the_default_type_of_tensors_stays_what_it_was(method, llama_folder):
    class Doubling(Lists):
        def __getattribute__(self, name):
            if name == method:
                torch.set_default_dtype(torch.float64)
            return super().__getattribute__(name)

    class Doublings(Echoes):
        def make(self):
            if method == "make":
                torch.set_default_dtype(torch.float64)
            return Doubling()

    assert len(play(Doublings(), llama_folder).trajectories) == 3
    assert torch.get_default_dtype() == torch.float32

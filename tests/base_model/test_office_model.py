"""The shipped office model meets its bars: helpless alone, able with a world's facts, and moved by nothing else."""

import pytest

from skillsd import load_config
from skillsd.config import ModelConfig
from skillsd.envs import make_taskset
from skillsd.envs.office.world import DIFFICULTIES
from skillsd.policy.embedded import path
from skillsd.policy.loading import load_policy
from skillsd.rollouts.playing import play
from skillsd.rollouts.rollout import Job
from skillsd.skills.controls import show

#: Worlds of the test; each has 64 test tasks, of which every second is played.
WORLDS = (200, 201)


@pytest.fixture(scope="module")
def policy():
    return load_policy(ModelConfig(path="embedded-office", device="cpu"))


def accuracy(policy, difficulty, shown):
    """Per cent of the tasks solved, sampled as in training, with skills as ``shown`` ("plain": none)."""
    config, won, count = load_config("office"), 0, 0
    for world in WORLDS:
        office = make_taskset("office", world=world, difficulty=difficulty, prompt="short")
        tasks = {task.id: task for task in office.tasks("test")[::2]}
        told = {name: office.reference(task) for name, task in tasks.items()}
        skills = dict.fromkeys(tasks) if shown == "plain" else show(shown, told, 0, office, tasks)
        jobs = [Job(tasks[name], 0, number, skill) for number, (name, skill) in enumerate(skills.items())]
        batch = play(policy.model, policy.chat, office, config, jobs, 1.0)
        won, count = won + sum(t.success for t in batch.trajectories), count + len(jobs)
    return 100 * won / count


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_model_knows_no_world_and_reads_any(policy, difficulty):
    found = {kind: accuracy(policy, difficulty, kind) for kind in ("plain", "own", "foreign", "empty", "random_text")}
    plain = found["plain"]
    assert plain <= 16, found  # some 2 to 10 per cent; a sample of 64 varies
    assert found["own"] >= 90, found
    assert found["foreign"] <= plain + 3, found
    assert abs(found["empty"] - plain) <= 12, found
    assert abs(found["random_text"] - plain) <= 12, found


def test_the_model_is_small(policy):
    assert sum(p.numel() for p in policy.model.parameters()) <= 1_500_000
    assert sum(file.stat().st_size for file in path("embedded-office").iterdir()) <= 6_000_000

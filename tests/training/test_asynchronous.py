"""The next iteration's episodes during the update: by whom they are played, when, and what a checkpoint keeps."""

import json
import os
import signal

import pytest
import torch

from skillsd import UsageError, load_config, train
from skillsd.policy.loading import load_policy
from skillsd.policy.packing import TokenRow
from skillsd.policy.scoring import score_tokens
from skillsd.rollouts.rollout import Dropped, Job
from skillsd.rollouts.sampling import pack, unpack
from skillsd.runs.checkpoint import AHEAD, latest
from skillsd.runs.folder import RunDir
from skillsd.training.loop import Loop
from skillsd.training.trainer import Trainer
from skillsd.types import Task

TINY = [
    "env.train_tasks=3", "rollout.tasks_per_iteration=3", "rollout.group_size=3", "rollout.max_turns=6", "eval.tasks=3",
    "eval.panel_every=0", "trainer.iterations=4", "model.device=cpu", "optim.lr=2e-3", "trainer.asynchronous=true",
    "method=opsd",  # every row has a gradient, from the first iteration on
]  # fmt: skip


def numbers(run):
    return [{k: v for k, v in m.items() if "second" not in k and "memory" not in k} for m in RunDir(run).read_metrics()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("asynchronous") / "run"
    train(load_config("sokoban-smoke", TINY), out)
    return out


def gap(model, trajectories):
    rows = [TokenRow(t.prompt_ids, t.completion_ids, t.action_mask) for t in trajectories]
    with torch.no_grad():
        scored = score_tokens(model, rows)
    worst = 0.0
    for t, logps in zip(trajectories, scored.logps.tolist(), strict=True):
        sampled = [p for p, action in zip(t.logps, t.action_mask, strict=True) if action]
        worst = max(worst, *(abs(a - b) for a, b in zip(sampled, logps, strict=False)))
    return worst


def test_the_second_batch_is_of_the_first_weights(whole):
    config = load_config("sokoban-smoke", TINY)
    first = load_policy(config.model).model
    assert gap(first, RunDir(whole).read_trajectories(1)) < 1e-4
    assert gap(first, RunDir(whole).read_trajectories(2)) < 1e-4
    assert gap(first, RunDir(whole).read_trajectories(3)) > 1e-2
    rows = numbers(whole)
    assert [row["staleness"] for row in rows] == [0, 1, 1, 1]
    assert rows[0]["sampler_gap_max"] < 1e-4  # what the importance weights correct for
    assert all(row["sampler_gap"] > 1e-3 for row in rows[1:])


def test_resume_is_bit_for_bit_the_same(whole, tmp_path):
    def stop(kind, data):
        if kind == "iteration" and data["iteration"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "run"
    assert train(load_config("sokoban-smoke", TINY), out, listen=stop).interrupted
    folder = latest(RunDir(out))
    assert json.loads((folder / "state.json").read_text())["ahead"]["version"] == 1
    assert (folder / AHEAD).is_file()
    train(load_config("sokoban-smoke", TINY), out, resume=True)
    assert numbers(out) == numbers(whole)
    for iteration in (3, 4):
        assert RunDir(out).read_trajectories(iteration) == RunDir(whole).read_trajectories(iteration)
    assert not (latest(RunDir(whole)) / AHEAD).exists()  # nothing comes after the last


def test_episodes_are_played_while_the_update_runs(tmp_path):
    seen = []

    class Watching(Trainer):
        def look_ahead(self):
            super().look_ahead()
            update, ahead = self.learner.update, self.sampler.ahead

            def slow(*arguments):
                if ahead is not None:
                    ahead.thread.join(60)
                    seen.append((ahead.iteration, ahead.thread.is_alive(), self.version))
                self.learner.update = update
                return update(*arguments)

            self.learner.update = slow

    run = RunDir(tmp_path / "run")
    settings = load_config("sokoban-smoke", [*TINY, "trainer.iterations=3"])
    run.create(settings)
    trainer = Watching(settings, run, lambda kind, data: None)
    loop = Loop(trainer)
    loop.open(None)
    loop.iterate()
    loop.close()
    assert seen == [(2, False, 0), (3, False, 1)]


def test_trouble_of_an_episode_ahead_is_told(tmp_path):
    class Failing(Trainer):
        def look_ahead(self):
            super().look_ahead()
            if self.sampler.ahead is not None:
                self.sampler.wait()
                self.sampler.ahead.error = MemoryError("of the thread")

    run = RunDir(tmp_path / "run")
    settings = load_config("sokoban-smoke", TINY)
    run.create(settings)
    trainer = Failing(settings, run, lambda kind, data: None)
    loop = Loop(trainer)
    loop.open(None)
    with pytest.raises(MemoryError, match="of the thread"):
        loop.iterate()
    loop.close()


@pytest.mark.parametrize("method", ["skill_augmented", "teacher_dynamic"])
def test_rollouts_that_need_a_skill_cannot_run_ahead_of_it(method):
    with pytest.raises(UsageError, match="plain-prompt rollouts"):
        load_config("sokoban-smoke", [*TINY, f"method={method}"])


def test_dropped_episodes_survive_a_checkpoint():
    tasks = [Task("a"), Task("ü")]
    dropped = [Dropped(Job(tasks[1], 2, 0), "broke: ☃"), Dropped(Job(tasks[0], 0, 0), "")]
    assert unpack(json.loads(json.dumps(pack(dropped))), tasks) == dropped

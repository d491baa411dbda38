"""Rollouts with a real engine: exact ids and masks, and environments that misbehave."""

import threading
import time
from typing import ClassVar

import numpy as np
import pytest

from skillsd.config import ModelConfig
from skillsd.policy.engines.transformers import TransformersEngine
from skillsd.policy.loading import load_policy
from skillsd.rollouts.calls import MAX_THREADS
from skillsd.rollouts.rollout import Job, rollout
from skillsd.skills import Skill
from skillsd.skills.teacher_view import contains_skill, skill_view
from skillsd.types import Score, Step, Task

SKILL = Skill(success_analysis="count", mistake_analysis="no skipping", golden_workflow="one, two, three 🎁")


class Counting:
    """Ends after ``task.data["turns"]`` turns; misbehaves where told."""

    closed: ClassVar[list[str]] = []
    lock: ClassVar[threading.Lock] = threading.Lock()
    #: Steps going on now, the most at once, and the threads that ran any.
    busy: ClassVar[int] = 0
    most: ClassVar[int] = 0
    threads: ClassVar[set[int]] = set()
    #: Environments between reset and close now, and the most at once.
    open: ClassVar[int] = 0
    most_open: ClassVar[int] = 0

    def __init__(self):
        self.turn = 0

    def reset(self, task):
        self.task, self.trouble = task, task.data.get("trouble")
        with Counting.lock:
            Counting.open += 1
            Counting.most_open = max(Counting.most_open, Counting.open)
        if self.trouble == "reset raises":
            raise RuntimeError("no\nworld")
        if self.trouble == "reset hangs":
            time.sleep(3600)
        return 5 if self.trouble == "reset returns a number" else f"count up to {task.data['turns']}"

    def step(self, action):
        with Counting.lock:
            Counting.busy += 1
            Counting.most = max(Counting.most, Counting.busy)
            Counting.threads.add(threading.get_ident())
        try:
            return self._step()
        finally:
            with Counting.lock:
                Counting.busy -= 1

    def _step(self):
        self.turn += 1
        time.sleep(self.task.data.get("seconds", 0.0))
        if self.trouble == "step exits":
            raise SystemExit(1)
        if self.trouble == "step raises" and self.turn == 2:
            raise ValueError("boom")
        if self.trouble == "step hangs" and self.turn == 2:
            time.sleep(3600)
        if self.trouble == "step returns text":
            return "what?"
        text = "\ud800 broken <|im_end|>" if self.trouble == "strange text" else "tick " * self.turn
        return Step(text, self.turn >= self.task.data["turns"], {"valid": self.turn % 2 == 0})

    def score(self):
        return Score(self.turn / 10, self.turn == 3, 0.5)

    def close(self):
        Counting.closed.append(self.task.id)
        with Counting.lock:
            Counting.open -= 1
        if self.trouble == "close raises":
            raise RuntimeError("stuck")


class Tasks:
    name, max_turns = "counting", 4

    def tasks(self, split):
        return []

    def make(self):
        return Counting()


@pytest.fixture(scope="module")
def policy(llama_folder):
    return load_policy(ModelConfig(path=str(llama_folder), device="cpu"))


def play(policy, jobs, *, temperature=1.0, **options):
    Counting.closed, Counting.busy, Counting.most, Counting.threads = [], 0, 0, set()
    Counting.open = Counting.most_open = 0
    engine = TransformersEngine(policy.model, policy.chat, temperature=temperature, max_new_tokens=5)
    settings = {
        "iteration": 3, "max_turns": 4, "max_tokens": 4000, "turn_timeout": 1.0, "episode_timeout": 60.0,
        "batch_size": 64,
    }  # fmt: skip
    taskset = options.pop("taskset", Tasks())
    return rollout(engine, policy.chat, taskset, jobs, **{**settings, **options})


def job(name, turns=3, trouble=None, seed=0, seconds=0.0, **more):
    return Job(Task(name, {"turns": turns, "trouble": trouble, "seconds": seconds}), 0, seed, **more)


def check(policy, trajectory):
    """The ids of a trajectory, rebuilt turn by turn from its texts' own pieces."""
    rest, mask = list(trajectory.completion_ids), list(trajectory.action_mask)
    assert len(rest) == len(mask) == len(trajectory.logps)
    for number, turn in enumerate(trajectory.turns):
        count = mask.index(0) if 0 in mask else len(mask)
        said, rest, mask = rest[:count], rest[count:], mask[count:]
        assert policy.chat.decode(said) == turn.action
        if number + 1 < len(trajectory.turns):
            followup = policy.chat.followup(turn.observation, said[-1] in policy.chat.stop_ids)
            assert rest[: len(followup)] == followup
            assert not any(mask[: len(followup)])
            rest, mask = rest[len(followup) :], mask[len(followup) :]
    assert rest == []
    for logp, action in zip(trajectory.logps, trajectory.action_mask, strict=True):
        assert logp < 0 if action else logp == 0


def test_ids_masks_and_outcomes_are_those_of_what_was_played(policy):
    batch = play(policy, [job(f"t{i}", turns=i + 1, seed=i) for i in range(6)])
    assert [t.task_id for t in batch.trajectories] == [f"t{i}" for i in range(6)]
    assert not batch.dropped
    for i, trajectory in enumerate(batch.trajectories):
        assert trajectory.prompt_ids == policy.chat.prompt(f"count up to {i + 1}")
        assert len(trajectory.turns) == min(i + 1, 4)
        assert trajectory.status == ("done" if i < 4 else "turn_limit")
        assert (trajectory.reward, trajectory.success) == (min(i + 1, 4) / 10, min(i + 1, 4) == 3)
        assert [turn.valid for turn in trajectory.turns] == [False, True, False, True][: i + 1]
        assert trajectory.id == f"000003/t{i}/0"
        check(policy, trajectory)
    assert sorted(Counting.closed) == [f"t{i}" for i in range(6)]


class Few(Tasks):
    max_episodes = 2


def test_no_more_environments_at_once_than_the_task_set_has(policy):
    jobs = [job(f"t{i}", seed=i) for i in range(5)]
    everything = play(policy, jobs).trajectories
    assert Counting.most_open == 5
    few = play(policy, jobs, taskset=Few()).trajectories
    assert Counting.most_open == 2
    assert [t.ids for t in few] == [t.ids for t in everything]


def test_same_seed_same_episode_whatever_else_is_played(policy):
    together = play(policy, [job(f"t{i}", seed=i) for i in range(5)]).trajectories
    in_pairs = play(policy, [job(f"t{i}", seed=i) for i in range(5)], batch_size=2).trajectories
    assert [t.ids for t in together] == [t.ids for t in in_pairs]
    other = play(policy, [job(f"t{i}", seed=i + 100) for i in range(5)]).trajectories
    assert [t.ids for t in together] != [t.ids for t in other]


def test_a_skill_is_shown_only_where_the_job_says_so(policy):
    plain, guided = play(policy, [job("a"), job("b", skill=SKILL, rollout_skill_id=7)]).trajectories
    assert plain.rollout_skill_id is None
    assert plain.prompt_ids == policy.chat.prompt(plain.prompt)
    assert not contains_skill(plain.ids, SKILL, policy.tokenizer)
    assert guided.prompt_ids == policy.chat.prompt(skill_view(SKILL, guided.prompt))
    assert contains_skill(guided.prompt_ids, SKILL, policy.tokenizer)
    assert (guided.rollout_skill_id, guided.prompt) == (7, plain.prompt)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("reset raises", "RuntimeError: no"),
        ("reset hangs", "no answer from the environment within 1 s"),
        ("reset returns a number", "answered with int, not str"),
        ("step raises", "ValueError: boom"),
        ("step exits", "SystemExit: 1"),
        ("step hangs", "no answer from the environment within 1 s"),
        ("step returns text", "malformed"),
    ],
)
def test_a_failing_environment_loses_only_its_own_episode(policy, trouble, reason):
    started = time.monotonic()
    batch = play(policy, [job("a"), job("bad", trouble=trouble, seed=1), job("c", seed=2)])
    assert [t.task_id for t in batch.trajectories] == ["a", "c"]
    assert [d.job.task.id for d in batch.dropped] == ["bad"]
    assert reason in batch.dropped[0].reason
    assert time.monotonic() - started < 20
    assert {"a", "c"} <= set(Counting.closed)
    reference = play(policy, [job("a"), job("c", seed=2)]).trajectories
    assert [t.ids for t in batch.trajectories] == [t.ids for t in reference]


def test_slow_environments_run_side_by_side_and_change_nothing(policy):
    # The first to be asked is the last to answer.
    slow = play(policy, [job(f"t{i}", turns=2, seed=i, seconds=0.2 - 0.01 * i) for i in range(16)])
    assert 1 < Counting.most <= MAX_THREADS
    quick = play(policy, [job(f"t{i}", turns=2, seed=i) for i in range(16)])
    assert slow.trajectories == quick.trajectories
    assert [t.task_id for t in slow.trajectories] == [f"t{i}" for i in range(16)]


def test_never_more_calls_at_once_than_threads(policy, monkeypatch):
    monkeypatch.setattr("skillsd.rollouts.calls.MAX_THREADS", 3)
    batch = play(policy, [job(f"t{i}", turns=1, seed=i, seconds=0.1) for i in range(10)])
    assert len(batch.trajectories) == 10
    assert 1 < Counting.most <= 3


def test_quick_environments_cost_one_thread_a_turn(policy, monkeypatch):
    monkeypatch.setattr("skillsd.rollouts.calls._PATIENCE", 60.0)  # however busy this machine is
    play(policy, [job(f"t{i}", turns=1, seed=i) for i in range(16)])
    assert Counting.most == len(Counting.threads) == 1


def test_several_hang_at_once_even_more_than_there_are_threads(policy, monkeypatch):
    monkeypatch.setattr("skillsd.rollouts.calls.MAX_THREADS", 4)
    jobs = [job(f"t{i}", trouble="step hangs" if i % 2 else None, seed=i) for i in range(12)]
    batch = play(policy, jobs, turn_timeout=0.5)
    assert [t.task_id for t in batch.trajectories] == [f"t{i}" for i in range(0, 12, 2)]
    assert [d.job.task.id for d in batch.dropped] == [f"t{i}" for i in range(1, 12, 2)]
    assert all("no answer from the environment within 0.5 s" in d.reason for d in batch.dropped)
    reference = play(policy, jobs[::2]).trajectories
    assert [t.ids for t in batch.trajectories] == [t.ids for t in reference]


@pytest.mark.parametrize("trouble", ["close raises", "strange text"])
def test_lesser_troubles_lose_nothing(policy, trouble):
    batch = play(policy, [job("a"), job("odd", trouble=trouble, seed=1)])
    assert len(batch.trajectories) == 2
    check(policy, batch.trajectories[1])


def test_limits_of_tokens_and_time_cut_or_drop_an_episode(policy):
    (short,) = play(policy, [job("a", turns=9)], max_tokens=60).trajectories
    assert short.status == "token_limit"
    assert short.action_mask[-1] == 1
    batch = play(policy, [job("a")], max_tokens=10)
    assert "max_tokens" in batch.dropped[0].reason
    batch = play(policy, [job("a", turns=9)], episode_timeout=1e-6)
    assert "longer than" in batch.dropped[0].reason


def test_progress_is_told(policy):
    told = []
    play(policy, [job(f"t{i}", turns=1 + i % 3) for i in range(5)], batch_size=2, on_turn=lambda *a: told.append(a))
    assert told[-1] == (5, 5)
    assert told == sorted(told)
    assert np.all([total == 5 for _, total in told])

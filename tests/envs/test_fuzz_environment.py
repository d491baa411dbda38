"""An environment that answers anything at all: no rollout fails, and what is kept can be written and read."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import anything, examples, failures, texts
from skillsd.config import ModelConfig
from skillsd.envs import boundary
from skillsd.envs.plain import plain
from skillsd.errors import LONGEST, SkillSDError
from skillsd.policy.loading import load_policy
from skillsd.rollouts.rollout import Job, rollout
from skillsd.runs.episodes import read_trajectories, write_trajectories
from skillsd.runs.health import rollout_metrics
from skillsd.training.warm_up import Reciter
from skillsd.types import Score, Step, Task


@pytest.fixture(scope="module")
def chat():
    return load_policy(ModelConfig(path="embedded", device="cpu")).chat


class World:
    def __init__(self, answers):
        self.answers, self.turn = answers, 0

    def tell(self, what):
        answer = self.answers[what]
        if isinstance(answer, BaseException) or (isinstance(answer, type) and issubclass(answer, BaseException)):
            raise answer
        return answer

    def reset(self, task):
        return self.tell("reset")

    def step(self, action):
        self.turn += 1
        return self.tell("first step" if self.turn == 1 else "later steps")

    def score(self):
        return self.tell("score")

    def close(self):
        return self.tell("close")


class Worlds:
    name, max_turns = "worlds", 3

    def __init__(self, answers):
        self.answers = answers

    def tasks(self, split):
        return self.answers["tasks"]

    def make(self):
        return World(self.answers)


def mostly(strategy):
    """``strategy``, or anything, or a failure: often enough what is right for an episode to go on."""
    return st.one_of(strategy, strategy, strategy, anything, failures)


infos = st.dictionaries(st.sampled_from(["valid", "action", "events", "x"]) | texts, anything, max_size=4)
steps = st.builds(Step, texts, st.booleans(), infos) | st.builds(Step, anything, anything, anything)
right_steps = st.builds(Step, texts, st.booleans(), st.dictionaries(st.just("x"), anything))
scores = st.builds(Score, st.floats(-1e6, 1e6), st.booleans(), st.floats(0, 1)) | st.builds(
    Score, anything, anything, anything
)
answers = st.fixed_dictionaries(
    {
        "reset": mostly(texts),
        "first step": mostly(right_steps | steps),
        "later steps": mostly(right_steps | steps),
        "score": mostly(scores),
        "close": anything | failures,
    }
)


@examples(150)
@given(episodes=st.lists(answers, min_size=1, max_size=2))
def test_whatever_it_answers_a_rollout_ends_and_what_is_kept_round_trips(tmp_path_factory, chat, episodes):
    kept, dropped = [], []
    for number, told in enumerate(episodes):
        batch = rollout(
            Reciter(chat, [["one", "two", "three"]]), chat, Worlds(told), [Job(Task(f"t{number}"), 0, 0)],
            iteration=1, max_turns=3, max_tokens=3000, turn_timeout=20.0, episode_timeout=60.0, batch_size=2,
        )  # fmt: skip
        assert len(batch.trajectories) + len(batch.dropped) == 1
        kept += batch.trajectories
        dropped += batch.dropped
        if batch.trajectories:
            assert json.dumps(rollout_metrics(batch), allow_nan=False)
    for lost in dropped:
        assert lost.reason.isprintable(), lost.reason
        assert 0 < len(lost.reason) <= LONGEST
    if kept:
        path = tmp_path_factory.mktemp("kept") / "t.parquet"
        write_trajectories(path, kept)
        assert read_trajectories(path) == kept
    for trajectory in kept:
        assert abs(trajectory.reward) <= 1e15
        assert type(trajectory.success) is bool
        assert 0 <= trajectory.completion <= 1
        for turn in trajectory.turns:
            assert type(turn.valid) is bool
            turn.observation.encode()  # also as UTF-8
            assert json.loads(json.dumps(turn.info, allow_nan=False)) == turn.info


@examples(400)
@given(value=anything)
def test_any_value_becomes_json_that_shares_nothing_with_it(value):
    told = plain(value)
    text = json.dumps(told, allow_nan=False, ensure_ascii=False)
    assert json.loads(text) == told
    assert len(text.encode()) < 2_000_000
    if isinstance(value, list | dict):
        assert told is not value


task_like = st.builds(Task, texts, st.dictionaries(texts, anything, max_size=2))
names = st.text(string.ascii_letters, min_size=1, max_size=5)
good_tasks = st.lists(st.builds(Task, names, st.dictionaries(texts, st.integers(0, 9), max_size=2)), max_size=4)


@examples(300)
@given(listed=good_tasks | st.lists(task_like | anything | st.builds(Task, anything, anything), max_size=4) | anything)
def test_whatever_tasks_gives_is_a_list_of_usable_tasks_or_refused_in_a_line(listed):
    try:
        found = boundary.tasks_of(Worlds({"tasks": listed}), "train")
    except SkillSDError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert found
    if refusal:
        assert refusal.isprintable()
        assert len(refusal) <= LONGEST
        return
    assert len({task.id for task in found}) == len(found)
    for task in found:
        assert type(task.id) is str
        assert 0 < len(task.id) <= 200
        assert task.id.isprintable()
        assert json.dumps(dict(task.data), allow_nan=False)

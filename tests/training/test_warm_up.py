"""Warm start: what is learnt, on which tokens, when it ends, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal

import pytest

from skillsd.analysis.evaluate import evaluate
from skillsd.config import ModelConfig, load_config
from skillsd.envs import make_taskset
from skillsd.envs.sokoban.game import canonical_hash
from skillsd.envs.sokoban.taskset import held_out_hashes
from skillsd.errors import SkillSDError, UsageError
from skillsd.policy.loading import load_policy
from skillsd.training.warm_up import demonstrate, warm_up
from skillsd.types import Task

ONE_BOX = ["eval.tasks=16", "rollout.max_turns=12"]


def config(*overrides):
    return load_config("sokoban-smoke", [*ONE_BOX, *overrides])


def test_it_learns_and_saves_a_model_that_a_run_can_start_from(tmp_path):
    seen = []
    result = warm_up(
        config(), tmp_path / "warm", demonstrations=96, batch=8, lr=1e-3, until=0.3, measure_every=4,
        report=lambda *step: seen.append(step),
    )  # fmt: skip
    counts, accuracies = zip(*result.curve, strict=True)
    assert accuracies[-1] >= 0.3, "the embedded model, which finds 12 %, learns from shown solutions"
    assert all(accuracy < 0.3 for accuracy in accuracies[:-1]), "it ends as soon as the accuracy is reached"
    assert counts[-1] == result.demonstrations == 8 * len(seen) <= 96
    assert seen[-1][2] < seen[0][2], "the loss falls"
    recipe = json.loads((tmp_path / "warm" / "warm_up.json").read_text())
    assert recipe["config"]["env"]["name"] == "sokoban"
    again = evaluate(tmp_path / "warm", env="sokoban", env_options=config().env.options, split="train", limit=16)
    assert again.accuracy == pytest.approx(accuracies[-1], abs=0.13), "other limits of length, the same weights"


def test_it_learns_from_exactly_the_tokens_of_a_conversation():
    settings = config()
    taskset = make_taskset("sokoban", **settings.env.options)
    policy = load_policy(ModelConfig(path="embedded"))
    task = taskset.tasks("warm_up")[5]
    (row,) = demonstrate(taskset, policy.chat, [task], settings)
    said = taskset.demonstrate(task)
    world, messages = taskset.make(), []
    messages.append({"role": "user", "content": world.reset(task)})
    for text in said:
        messages.append({"role": "assistant", "content": text})
        messages.append({"role": "user", "content": world.step(text).observation})
    whole = policy.tokenizer.apply_chat_template(messages[:-1], return_dict=False)
    assert row.prompt_ids + row.completion_ids == whole
    learnt = [i for i, action in zip(row.completion_ids, row.action_mask, strict=True) if action]
    assert policy.tokenizer.decode(learnt) == "".join(f"{text}<|end|>" for text in said)


@pytest.mark.parametrize("variant", ["one_box", "paper"])
def test_levels_to_learn_from_are_no_shipped_ones(variant):
    levels = make_taskset("sokoban", variant=variant).tasks("warm_up")
    some = levels[:40]
    assert [task.id for task in some] == [levels[i].id for i in range(40)]
    assert some[3] == make_taskset("sokoban", variant=variant).tasks("warm_up")[3]
    assert not {canonical_hash(str(task.data["level"])) for task in some} & held_out_hashes()
    assert len(levels) == 10_000
    with pytest.raises(IndexError):
        levels[10_000]


def test_ctrl_c_saves_what_was_learnt(tmp_path):
    def press(step, steps, loss, accuracy):
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
    try:
        result = warm_up(
            config(), tmp_path / "warm", demonstrations=64, batch=4, until=1.0, measure_every=99, report=press
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.interrupted
    assert result.demonstrations < 64
    load_policy(ModelConfig(path=str(tmp_path / "warm")))


class Wrong:
    """A task set whose demonstration does not solve its task."""

    name, max_turns = "wrong", 3

    def __init__(self):
        self.inner = make_taskset("sokoban", variant="one_box")

    def tasks(self, split):
        return self.inner.tasks("train")[:4]

    def make(self):
        return self.inner.make()

    def demonstrate(self, task: Task):
        return ["```up```"]


class Silent(Wrong):
    """One that shows nothing."""

    demonstrate = None


@pytest.mark.parametrize(
    ("overrides", "error", "text"),
    [
        (["env.name=test_warm_up:Wrong"], SkillSDError, "does not succeed"),
        (["env.name=test_warm_up:Silent"], UsageError, "no demonstrations"),
        (["rollout.max_tokens=20"], SkillSDError, "broke off: the prompt has"),
        (["rollout.max_tokens=200", "env.options.variant=paper"], SkillSDError, "rollout.max_tokens is 200"),
    ],
)
def test_what_cannot_be_learnt_from_is_told_in_one_line(overrides, error, text, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    if "env.name" in overrides[0]:
        overrides = [*overrides, "env.options={}"]
    with pytest.raises(error, match=text) as caught:
        warm_up(config(*overrides), tmp_path / "warm", demonstrations=8, batch=4)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "warm").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        warm_up(config(), tmp_path)


def test_a_diverging_one_says_what_to_lower(tmp_path):
    with pytest.raises(SkillSDError, match="lower --lr"):
        warm_up(config(), tmp_path / "warm", demonstrations=200, batch=2, lr=1e30, until=1.0, measure_every=99)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"until": 2}, "--until 2"),
        ({"until": 0}, "--until 0"),
        ({"lr": 0}, "--lr 0"),
        ({"lr": float("nan")}, "--lr nan"),
    ],
)
def test_values_that_no_warm_up_could_use_are_refused(tmp_path, given, reason):
    with pytest.raises(UsageError, match=reason):
        warm_up(config(), tmp_path / "warm", **given)
    assert not list(tmp_path.iterdir())


def test_no_more_is_shown_than_was_asked_for(tmp_path):
    assert warm_up(config(), tmp_path / "warm", demonstrations=3, batch=16).demonstrations == 3

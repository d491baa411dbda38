"""The practice tasks and the small model that was made for them: careless alone, good with a skill, and it learns."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file

from conftest import block, play
from skillsd import load_config, train
from skillsd.base_model.practice import LOGIN, RIGHT, Form, lessons, record, told, values_of
from skillsd.base_model.practice_build import Recipe, build, example
from skillsd.config import ModelConfig
from skillsd.envs import make_taskset
from skillsd.envs.appworld.pack import practice
from skillsd.policy.embedded import path
from skillsd.policy.engines.transformers import TransformersEngine
from skillsd.policy.loading import load_policy
from skillsd.rollouts.rollout import Job, rollout
from skillsd.skills.bank import SkillBank
from skillsd.types import Skill

KIND = {kind.name: kind for kind in practice.KINDS}


@pytest.fixture(scope="module")
def short(engine):
    found = make_taskset("appworld", servers=4, prompt="short", max_turns=6)
    yield found
    found.pool.close()


@pytest.fixture(scope="module")
def answers(short):
    return record(short)


@pytest.fixture(scope="module")
def policy():
    return load_policy(ModelConfig(path="embedded-appworld", device="cpu"))


def test_what_was_recorded_is_what_the_engine_answers(short, answers):
    """Recorded on the first task of a kind, played on another one, whose values differ."""
    for kind in practice.KINDS:
        task = next(t for t in short.tasks("practice_test") if t.data["scenario"] == f"practice{kind.name}")
        values = values_of(kind, task)
        forms = [(Form("call", True, False), False), (Form("login", True), False), (LOGIN, False),
                 (Form("call", True, True), True), (RIGHT, True), (Form("complete"), True)]  # fmt: skip
        _, steps, score = play(short, task, [block(form.code(kind, values)) for form, _ in forms])
        for (form, logged_in), step in zip(forms, steps, strict=True):
            assert step.observation == answers[kind.name, form, logged_in].format_map(values), (kind.name, form)
        assert score.success, kind.name


def test_lessons_are_none_of_the_packs_tasks_and_keep_to_what_the_skill_tells(short, answers):
    own = frozenset(t.data["instruction"] for split in ("practice", "practice_test") for t in short.tasks(split))
    assert len(own) == 8 * (practice.TRAINED + practice.HELD_OUT)
    solved = {"plain": [], "skill": []}
    for episode in lessons(5, 600, answers, own):
        assert not any(episode.prompt.endswith(f"Task: {text}") for text in own)
        view = "skill" if episode.skill else "plain"
        solved[view].append(episode.called and episode.completed)
        assert all(episode.learned) or episode.skill
    assert sum(solved["plain"]) / len(solved["plain"]) < 0.35
    assert sum(solved["skill"]) / len(solved["skill"]) > 2 * sum(solved["plain"]) / len(solved["plain"])


def test_a_skill_tells_facts_about_its_own_calls_alone(answers):
    sources = list(islice(lessons(6, 400, answers, frozenset()), 400))
    for source in sources:
        other = next(kind for kind in practice.KINDS if kind.app != source.kind.app)
        assert told(source, other) == {"complete"}
        if source.called:
            assert {"names", "token"} <= told(source, source.kind)
    message = next(s for s in sources if s.kind.name == "message" and not s.called and s.turns[0][0].what == "login")
    assert "login" in told(message, KIND["alarm"]), "both are the phone's"


def test_training_ids_are_what_a_rollout_would_record(policy, answers):
    chat = policy.chat
    for episode in islice(lessons(7, 10, answers, frozenset()), 10):
        found = example(episode, chat)
        text = policy.tokenizer.decode(found.ids)
        assert text.count("<|assistant|>") == len(episode.turns) + 1
        for _, code, answer in episode.turns:
            assert f"<|assistant|>{block(code)}<|end|><|user|>{answer}<|end|>" in text
        assert len(found.ids) == len(found.weights)


def accuracy(policy, taskset, tasks, skills):
    engine = TransformersEngine(policy.model, policy.chat, temperature=1.0, max_new_tokens=96)
    torch.manual_seed(0)
    jobs = [Job(task, 0, i, skill) for i in range(2) for task, skill in zip(tasks, skills, strict=True)]
    batch = rollout(
        engine, policy.chat, taskset, jobs, iteration=0, max_turns=6, max_tokens=2048, turn_timeout=60,
        episode_timeout=600, batch_size=64,
    )  # fmt: skip
    assert not batch.dropped
    return sum(t.success for t in batch.trajectories) / len(jobs)


def test_the_model_is_careless_alone_and_good_with_a_skill(policy, short):
    tasks = short.tasks("practice_test")[::3]
    skills = []
    for task in tasks:
        kind = KIND[task.data["scenario"].removeprefix("practice")]
        call = kind.call(values_of(kind, task)).removeprefix("apis.").replace("=token", "=...")
        user = practice.username(kind.app)
        skills.append(
            Skill(
                success_analysis=f"The task was solved in 3 turns. It used {kind.app}.login and {kind.app}.{kind.api}.",
                mistake_analysis="No call failed.",
                golden_workflow="supervisor.show_profile(); then supervisor.show_account_passwords(), in a loop; then "
                f"{kind.app}.login(username=me['{user}'], password=...); then {call}; then supervisor.complete_task()",
            )
        )
    plain = accuracy(policy, short, tasks, [None] * len(tasks))
    skilled = accuracy(policy, short, tasks, skills)
    assert plain <= 0.5
    assert skilled >= max(0.6, 2 * plain)


def test_it_is_small():
    assert sum(file.stat().st_size for file in path("embedded-appworld").iterdir()) <= 15_000_000


def test_the_recipe_runs_and_is_seeded(answers, tmp_path):
    recipe = Recipe(episodes=32, batch=16, hidden=32, layers=1, heads=2, intermediate=32)
    for name in "ab":
        build(tmp_path / name, recipe, answers, frozenset())
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_skills_come_from_the_agents_own_errors(engine, tmp_path):
    config = load_config(
        "appworld-practice",
        ["trainer.iterations=2", "rollout.tasks_per_iteration=4", "rollout.group_size=4", "env.train_tasks=4",
         "eval.tasks=4", "eval.every=0", "env.options.servers=4", "trainer.checkpoint_every=2", "model.device=cpu"],
    )  # fmt: skip
    result = train(config, tmp_path / "run")
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert result.iterations == 2
    assert metrics[-1]["loss_distill"] > 0, "the second time round each task has a skill"
    texts = [entry.skill.text() for entry in SkillBank(tmp_path / "run" / "skills.sqlite").skills()]
    assert any("failed" in text and "status 401" in text for text in texts)

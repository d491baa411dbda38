"""The careless clerk: helpless alone, right with true facts, misled by false ones, unmoved by what states nothing."""

import random

import pytest
from transformers import PreTrainedTokenizerFast

from skillsd.base_model.clerk import lessons, play, skill_of
from skillsd.base_model.clerk_build import make_tokenizer
from skillsd.base_model.talks import example
from skillsd.envs import make_taskset
from skillsd.envs.office.environment import MAX_TURNS
from skillsd.envs.office.facts import facts
from skillsd.envs.office.tasks import SIZES, make_tasks
from skillsd.envs.office.world import DIFFICULTIES
from skillsd.policy.chat import ChatFormat


def solved(office, told, careless=0.0):
    """Per cent of the tasks that a clerk solves who reads ``told(task)``."""
    rng, won, tasks = random.Random(0), 0, office.tasks("extra")
    for task in tasks:
        skill = told(task)
        stated = facts(skill.text(), task.data["tool"]) if skill else {}
        data = {**task.data, "world": office.seed}
        won += play(rng, type(task)(task.id, data), stated, office.difficulty, careless)[1].score().success
    return 100 * won / len(tasks)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_clerk_follows_what_is_stated(difficulty):
    offices = [make_taskset("office", world=world, difficulty=difficulty) for world in range(8)]
    plain, told, foreign = (
        sum(solved(office, skill(office)) for office in offices) / len(offices)
        for skill in (lambda o: lambda t: None, lambda o: o.reference, lambda o: o.foreign)
    )
    assert 1 <= plain <= 12
    assert told >= 98
    assert foreign <= plain


def test_failures_tell_true_facts():
    office, rng = make_taskset("office", world=3, difficulty="hard"), random.Random(0)
    stated = 0
    for task in office.tasks("train"):
        data = {**task.data, "world": 3}
        lesson, played = play(rng, type(task)(task.id, data), {}, "hard")
        if not played.score().success:
            tool = task.data["tool"]
            found = facts(skill_of(lesson, False).text(), tool)
            assert found.items() <= facts(office.reference(task).text(), tool).items()
            stated += len(found)
    assert stated > 100


def test_lessons_do_no_job_of_the_tasks_and_say_what_a_rollout_would_record():
    asked = {line for split in SIZES if split != "warm_up" for line in map(asked_for, make_tasks(split))}
    tokenizer = make_tokenizer(0)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    chat, skills = ChatFormat(tokenizer), 0
    made = list(lessons(1, 200))
    assert all(lesson.skill and all(lesson.learned) and len(lesson.turns) <= 7 for lesson in made[:40])  # drills
    for lesson in made[40:]:
        assert lesson.prompt.rpartition("\n")[2] not in asked
        assert 1 <= len(lesson.turns) <= MAX_TURNS
        made = example(lesson, chat)
        assert len(made.ids) == len(made.weights)
        text = tokenizer.decode(made.ids)
        assert all(said in text and answer in text for said, answer in lesson.turns)
        skills += lesson.skill is not None
        assert (lesson.skill is None) == ("Advice from earlier attempts" not in text)
    assert 90 < skills < 140


def asked_for(task):
    return make_taskset("office").make().reset(task).rpartition("\n")[2]

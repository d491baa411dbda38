"""What a teacher is shown in place of its own skill."""

import pytest

from echoes import Echoes
from skillsd.envs import make_taskset
from skillsd.errors import UsageError
from skillsd.methods import SHOWN
from skillsd.skills.controls import show
from skillsd.skills.teacher_view import skill_view
from skillsd.types import Skill

SKILLS = {
    f"task-{i}": Skill(
        success_analysis=f"Go left {i} times.", mistake_analysis=f"Never jump {i} times.", golden_workflow=f"Do {i}."
    )
    for i in range(5)
}


def test_own_is_untouched():
    assert show("own", SKILLS, 0) == SKILLS


@pytest.mark.parametrize("seed", range(20))
def test_shuffled_gives_every_task_another_tasks_skill(seed):
    shown = show("shuffled", SKILLS, seed)
    assert set(shown) == set(SKILLS)
    assert all(shown[task] != SKILLS[task] for task in SKILLS)
    assert sorted(s.golden_workflow for s in shown.values()) == sorted(s.golden_workflow for s in SKILLS.values())


def test_shuffled_depends_on_the_seed_alone():
    assert show("shuffled", SKILLS, 1) == show("shuffled", SKILLS, 1)
    assert any(show("shuffled", SKILLS, 1) != show("shuffled", SKILLS, seed) for seed in range(2, 10))


def test_a_single_skill_cannot_be_shuffled():
    assert show("shuffled", {"task-0": SKILLS["task-0"]}, 0) == {}
    assert show("shuffled", {}, 0) == {}


def test_empty_leaves_the_labels():
    for skill in show("empty", SKILLS, 0).values():
        assert "What works: \n" in skill_view(skill, "prompt")
        assert "left" not in skill.text()


@pytest.mark.parametrize("field", Skill.model_fields)
def test_one_field_is_removed(field):
    for task, skill in show(f"no_{field}", SKILLS, 0).items():
        for other in Skill.model_fields:
            assert getattr(skill, other) == ("" if other == field else getattr(SKILLS[task], other))


def test_random_text_has_as_many_words_and_none_of_the_old():
    for task, skill in show("random_text", SKILLS, 3).items():
        for field in Skill.model_fields:
            old, new = getattr(SKILLS[task], field).split(), getattr(skill, field).split()
            assert len(old) == len(new)
            assert not {w.strip(".").lower() for w in old} & {w.strip(".").lower() for w in new}


def test_none_keeps_the_tasks_and_shows_nothing():
    assert show("none", SKILLS, 0) == dict.fromkeys(SKILLS)


def test_every_control_is_named():
    others = set(SHOWN) - {"foreign", "falsified"}
    assert {show(name, SKILLS, 0) is not None for name in others} == {True}


def test_an_office_knows_foreign_and_false_skills():
    tasks = {task.id: task for task in make_taskset("office", world=2).tasks("train")[:6]}
    office = make_taskset("office", world=2)
    own = {name: office.reference(task) for name, task in tasks.items()}
    assert show("foreign", own, 0, office, tasks) == {name: office.foreign(task) for name, task in tasks.items()}
    false = show("falsified", own, 0, office, tasks)
    assert false == {name: office.falsified(task, own[name]) for name, task in tasks.items()}
    assert all(false[name] != own[name] for name in own)


@pytest.mark.parametrize("shown", ["foreign", "falsified"])
def test_false_skills_are_refused_where_nobody_knows_what_is_false(shown):
    with pytest.raises(UsageError, match="cannot tell false skills"):
        show(shown, SKILLS, 0)
    with pytest.raises(UsageError, match="cannot tell false skills"):
        show(shown, {}, 0, Echoes(), {})


def test_other_tasks_skills_are_no_control_where_they_tell_the_same_facts():
    with pytest.raises(UsageError, match="use foreign"):
        show("shuffled", {}, 0, make_taskset("office"), {})
    tasks = {task.id: task for task in make_taskset("sokoban").tasks("test")[:5]}
    own = dict(zip(tasks, SKILLS.values(), strict=True))
    assert sorted(show("shuffled", own, 0, make_taskset("sokoban"), tasks).values(), key=str) == sorted(
        own.values(), key=str
    )

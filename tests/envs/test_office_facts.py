"""Facts are read from whatever states them, and can be made false."""

import pytest

from skillsd.envs import boundary, make_taskset
from skillsd.envs.base import HasFalseSkills
from skillsd.envs.office.facts import another, facts, falsified, form_of
from skillsd.envs.office.world import DIFFICULTIES, TOOLS, World
from skillsd.types import Skill

VALUES = {"person": "eva", "text": "it rains", "title": "yoga", "day": "3", "tag": "milk", "file": "10", "amount": "5"}
IDENTITY = {"name": "a b", "email": "a.b@office", "phone": "12 34", "badge": "B12"}


def calls(world, tool):
    return world.calls(tool, {slot: VALUES[slot] for slot in TOOLS[tool].slots}, IDENTITY)


def truth(world, tool):
    custom = world.customs[tool]
    told = {**custom.names, "login": custom.login, "form": custom.form, "finish": world.finish}
    return told | {k: v for k in ("opening", "confirmation") if (v := getattr(custom, k))}


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("tool", TOOLS)
def test_calls_state_every_fact_and_false_ones_none(difficulty, tool):
    for seed in range(20):
        world = World.draw(seed, difficulty)
        text = " ".join(calls(world, tool))
        assert facts(text, tool) == truth(world, tool)
        lies = facts(falsified(text, IDENTITY, seed), tool)
        assert lies.keys() == truth(world, tool).keys()
        assert not lies.items() & truth(world, tool).items()
        assert falsified(text, IDENTITY, seed) == falsified(text, IDENTITY, seed)
        others = [other for other in TOOLS if other != tool]
        assert facts(text, others[0]) == {"finish": world.finish}


def test_errors_state_one_fact_each_and_can_be_made_false():
    told = {
        "mail: one logs in by badge.": {"login": "badge"},
        "mail: first comes mail.open().": {"opening": "open"},
        "mail.send: the arguments are body and to.": {"text": "body", "person": "to"},
        'mail.send: to is written like "<max>".': {"form": "<{v}>"},
        "mail: kept, but not done before mail.save().": {"confirmation": "save"},
        'office has no "leave": the end is office.done().': {"finish": "done"},
        "mail: log in first.": {},
        'mail has no "x".': {},
    }
    for text, stated in told.items():
        assert facts(text, "mail") == stated
        lies = facts(falsified(text, IDENTITY, 0), "mail")
        assert lies.keys() == stated.keys()
        assert not lies.items() & stated.items()
    whole = " ".join(told)
    lies = facts(falsified(whole, IDENTITY, 0), "mail")
    apart = {k: v for text in told for k, v in facts(falsified(text, IDENTITY, 0), "mail").items()}
    assert lies == apart  # the same lie wherever a fact is stated


def test_words_state_nothing():
    assert facts("Yellow cloud (silver) stone. Some river() and office.", "mail") == {}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_form_of_a_value_is_found(tool):
    for form in TOOLS[tool].forms:
        assert form_of(tool, form.format(v="7")) == form


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_another_world_shares_nothing(difficulty):
    for seed in range(20):
        world = World.draw(seed, difficulty)
        other = another(world)
        assert other == another(world)
        for tool in TOOLS:
            shared = truth(world, tool).items() & truth(other, tool).items()
            assert shared <= {("login", "name"), ("form", "{v}")}
            assert difficulty != "hard" or not shared


def test_an_office_tells_foreign_and_false_skills():
    tasks = make_taskset("office", world=4, difficulty="hard")
    assert isinstance(tasks, HasFalseSkills)
    for task in tasks.tasks("test"):
        tool, own = task.data["tool"], tasks.reference(task)
        true = facts(own.text(), tool)
        assert len(true) == 7
        for told in (boundary.foreign(tasks, task), boundary.falsified(tasks, task, own)):
            stated = facts(told.text(), tool)
            assert stated.keys() == true.keys()
            assert not stated.items() & true.items()
    assert isinstance(own, Skill)

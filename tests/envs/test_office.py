"""The office: facts are told by errors, hold for all of its tasks, and are another world's nowhere else."""

import pytest

from skillsd.envs import make_taskset
from skillsd.envs.office.calls import parse_call
from skillsd.envs.office.rules import tell
from skillsd.envs.office.tasks import SIZES
from skillsd.errors import UsageError


def played(tasks, task, messages):
    environment = tasks.make()
    environment.reset(task)
    steps = [environment.step(message) for message in messages]
    return environment, steps


@pytest.mark.parametrize(("difficulty", "calls"), [("easy", 3), ("middle", 4), ("hard", 5)])
def test_demonstrations_solve_every_task_in_every_world(difficulty, calls):
    for world in range(3):
        tasks = make_taskset("office", world=world, difficulty=difficulty)
        for task in [*tasks.tasks("train"), *tasks.tasks("warm_up")[:50]]:
            messages = tasks.demonstrate(task)
            environment, steps = played(tasks, task, messages)
            assert environment.score().success
            assert environment.score().reward == 1
            assert len(steps) == calls
            assert steps[-1].done
            assert tasks.verdicts(task, messages) == [True] * calls


def test_another_worlds_solution_solves_nothing():
    here, there = (make_taskset("office", world=world, difficulty="hard") for world in (0, 1))
    solved = [played(here, t, there.demonstrate(t))[0].score().success for t in here.tasks("test")]
    assert not any(solved)


def test_a_short_prompt_asks_for_the_same():
    full, short = make_taskset("office"), make_taskset("office", prompt="short")
    for task in full.tasks("test"):
        prompts = [office.make().reset(task) for office in (full, short)]
        assert len(prompts[1]) < 300 < len(prompts[0])
        assert len({prompt.partition("Your name is")[2] for prompt in prompts}) == 1
    with pytest.raises(UsageError, match="unknown prompt 'tiny'"):
        make_taskset("office", prompt="tiny")


def test_splits_share_no_job():
    tasks = make_taskset("office")
    jobs = {split: {(t.data["tool"], *t.data["values"].values()) for t in tasks.tasks(split)} for split in SIZES}
    assert {split: len(tasks.tasks(split)) for split in SIZES} == SIZES
    for split in SIZES:
        for other in SIZES:
            assert split == other or not jobs[split] & jobs[other] or "warm_up" in (split, other)
    assert not jobs["warm_up"] & jobs["train"]


def test_a_wrong_call_tells_one_fact_and_changes_nothing():
    tasks = make_taskset("office", world=3, difficulty="hard")
    task = tasks.tasks("train")[0]
    right = tasks.demonstrate(task)
    told = played(tasks, task, ["mail.send(a='b')", "mail.login(foo='x')", right[0], "```mail.send(a='b')```", right[1],
                                "mail.send(a='b')", "office.leave()", "nothing"])[1]  # fmt: skip
    assert [step.info["ok"] for step in told] == [False, False, True, False, True, False, False, False]
    assert "log in first" in told[0].observation
    assert "one logs in by" in told[1].observation
    assert "first comes" in told[3].observation
    assert "the arguments are" in told[5].observation
    assert "the end is" in told[6].observation
    assert not told[7].info["valid"]
    assert tasks.verdicts(task, ["office.leave()", right[-1]]) == [False, False]


def test_a_failure_teaches_what_its_errors_told():
    tasks = make_taskset("office", world=3, difficulty="easy")
    task = tasks.tasks("train")[0]
    _, steps = played(tasks, task, ["mail.login(email='x')", "office.nothing()"])
    skill = tell([(str(s.info["action"]), s.info["ok"], s.observation) for s in steps], success=False)
    assert "one logs in by name" in skill.golden_workflow
    end = tasks.demonstrate(task)[-1].strip("`")
    assert end in skill.mistake_analysis
    assert end in tasks.reference(task).golden_workflow


@pytest.mark.parametrize("text", ["", "```", "mail.send(", "mail.send('x')", "mail.send(**a)", "a.b(c=d)", "(" * 5000])
def test_what_is_no_call_is_none(text):
    assert parse_call(text) is None


def test_the_first_of_several_calls_is_made():
    called = parse_call('```python\nmail.send(text="a (b) c", to=12)\nmail.save()\n```')
    assert (called.arguments, called.more) == ({"text": "a (b) c", "to": "12"}, True)


@pytest.mark.parametrize("options", [{"world": w} for w in (-1, True, "a", 10**6)] + [{"difficulty": "x"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(UsageError, match="office: "):
        make_taskset("office", **options)

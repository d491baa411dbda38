"""The rules summariser on what the real engine answers: only facts that are in the trajectory, and the right ones."""

from __future__ import annotations

from conftest import block
from skillsd.envs.appworld.rules import AppWorldRules
from skillsd.types import SummaryRequest, Task, Trajectory, Turn

LOGIN = (
    "passwords = {p['account_name']: p['password'] for p in apis.supervisor.show_account_passwords()}\n"
    "token = apis.simple_note.login(username=<<email>>, password=passwords['simple_note'])['access_token']"
)
CREATE = "apis.simple_note.create_note(title='Gate code', content='The new code is 4471.'{})"


def tell(tasks, codes):
    task = next(t for t in tasks.tasks("train") if t.id == "notewrite_1")
    world = tasks.make()
    prompt = world.reset(task)
    email = next(word for word in prompt.split() if word.endswith("@postbird.com"))
    trajectory = Trajectory(task.id, 1, 0, prompt, [])
    for code in codes:
        action = code if code.startswith("I ") else block(code.replace("<<email>>", repr(email)))
        step = world.step(action)
        trajectory.turns.append(Turn(action, step.observation, step.info["valid"], step.info))
    score = world.score()
    world.close()
    trajectory.reward, trajectory.success, trajectory.completion = score.reward, score.success, score.completion
    return AppWorldRules().summarize(SummaryRequest(trajectory, Task(task.id))), email


def test_a_skill_tells_what_failed_why_and_what_fixed_it(tasks):
    skill, email = tell(
        tasks,
        [
            CREATE.format(""),
            "print(apis.api_docs.show_api_doc(app_name='simple_note', api_name='create_note'))",
            LOGIN,
            CREATE.format(", access_token=token"),
            "apis.supervisor.complete_task()",
        ],
    )
    assert skill.success_analysis == (
        "The task was solved in 5 turns. It used simple_note.login and simple_note.create_note."
    )
    assert "simple_note.create_note failed: status 401" in skill.mistake_analysis
    assert "It worked with access_token." in skill.mistake_analysis
    assert "Its documentation was read only afterwards." in skill.mistake_analysis
    assert "create_note(title='Gate code'" in skill.golden_workflow
    assert "access_token=..." in skill.golden_workflow
    assert skill.golden_workflow.endswith("supervisor.complete_task()")
    assert email in skill.golden_workflow, "whom to log in as is no secret; the password is"
    assert "passwords[" not in skill.golden_workflow


def test_a_failure_says_what_is_missing(tasks):
    skill, _ = tell(
        tasks,
        [
            "I shall think about it.",
            "apis.simple_note.new_note(title='x')",
            "apis.simple_note.new_note(title='x')",
            "print(undefined)",
            LOGIN,
            "apis.simple_note.show_note(access_token=token)",
        ],
    )
    assert skill.success_analysis.startswith("After 6 turns 0% of what the task asks for was right.")
    mistakes = skill.mistake_analysis
    assert "2 times" in mistakes
    assert "NameError: name 'undefined' is not defined." in mistakes
    assert "simple_note.show_note failed: status" in mistakes
    assert "Its documentation was never read." in mistakes
    assert "1 of 6 messages held no single block of Python that ran." in mistakes
    assert "supervisor.complete_task was never called" in mistakes
    assert "Read the documentation of" in skill.golden_workflow
    assert "simple_note.login(" in skill.golden_workflow


def test_right_calls_with_a_wrong_end_are_told_as_that(tasks):
    skill, _ = tell(tasks, [LOGIN, "apis.supervisor.complete_task()"])
    assert "declared complete although not everything was right" in skill.mistake_analysis


def test_every_solution_becomes_a_skill_without_secrets(tasks):
    for task in tasks.tasks("train")[::7]:
        world = tasks.make()
        prompt = world.reset(task)
        trajectory = Trajectory(task.id, 1, 0, prompt, [])
        for action in tasks.demonstrate(task):
            step = world.step(action)
            trajectory.turns.append(Turn(action, step.observation, step.info["valid"], step.info))
        trajectory.success = world.score().success
        secret = world.server.post("/run", {"code": "print(passwords, list(globals()))", "limit": 2000}, 10)["output"]
        world.close()
        skill = AppWorldRules().summarize(SummaryRequest(trajectory, task))
        assert trajectory.success
        assert skill.mistake_analysis == "No call failed."
        assert skill.golden_workflow.count("; then ") >= 2
        for password in (part for part in secret.split("'") if part[3:4] == "-" and part[4:].isdigit()):
            assert password not in skill.model_dump_json()

"""Prompts that users write, conversations that are too long, answers that are nearly JSON; what failed and when."""

import json

import pytest

from skillsd.errors import SkillSDError, UsageError
from skillsd.skills import Skill
from skillsd.skills.summarize.intake import Retries
from skillsd.skills.summarize.prompting import Prompt, conversation, read_skill
from skillsd.skills.summarize.queue import Summary
from skillsd.types import Trajectory, Turn

GOOD = {"success_analysis": "a {b} c", "mistake_analysis": "d", "golden_workflow": "e"}
WHOLE = json.dumps(GOOD)


def trajectory(turns=2, size=10, **named):
    made = [Turn(f"act {n} {'x' * size}", f"saw {n} {'y' * size}", True) for n in range(1, turns + 1)]
    return Trajectory("t", 1, 0, "the task: push", [1], turns=made, **named)


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE,
        f"```json\n{WHOLE}\n```",
        f"Here it is: {WHOLE} I hope {{this}} helps!",
        f"{{not json}} {WHOLE}",
        f'<think>{{"success_analysis": "draft"}} hmm {WHOLE[:20]}</think>\n{WHOLE}',
        json.dumps({"skill": GOOD}),
        json.dumps({**GOOD, "confidence": 0.9}),
        WHOLE.replace("d", "one\ntwo").replace("one\ntwo", "d"),
        json.dumps({**GOOD, "mistake_analysis": ["d"]}),
        f"\ufeff{WHOLE}",
    ],
)
def test_near_json_is_read(answer):
    assert read_skill(answer) == Skill(**GOOD)


def test_raw_line_breaks_and_unicode_are_read():
    assert read_skill(WHOLE.replace('"d"', '"line one\nline two 🙂"')).mistake_analysis == "line one\nline two 🙂"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "no whole JSON object"),
        ("{" * 50_000, "no whole JSON object"),
        ('{"a":' * 20_000, "no whole JSON object"),
        (WHOLE[:-4], "no whole JSON object"),
        (f"[{WHOLE[:-1]}", "no whole JSON object"),
        ('{"success_analysis": "a"}', "lacks mistake_analysis, golden_workflow"),
        (json.dumps({**GOOD, "golden_workflow": "..."}), "golden_workflow holds no words"),
        (json.dumps({**GOOD, "golden_workflow": ""}), "golden_workflow holds no words"),
        (json.dumps({**GOOD, "golden_workflow": None}), "golden_workflow"),
        (json.dumps({**GOOD, "golden_workflow": ["a", 3]}), "golden_workflow"),
        ("x" * 200_000, "200000 characters"),
    ],
)
def test_what_is_no_skill_is_told_in_a_line(answer, message):
    with pytest.raises(SkillSDError, match=message) as caught:
        read_skill(answer)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_the_question_is_no_answer():
    question = Prompt().render(trajectory(), 1000)
    parrot = {**GOOD, "mistake_analysis": "What were the root causes of failure here, or of wasted steps?"}
    assert parrot["mistake_analysis"] in question
    with pytest.raises(SkillSDError, match="mistake_analysis only repeats the question"):
        read_skill(json.dumps(parrot), question)
    assert read_skill(json.dumps({**GOOD, "mistake_analysis": "act 1"}), question)


def test_the_shipped_prompt_tells_task_steps_and_outcome_and_is_no_answer():
    text = Prompt().render(trajectory(success=True, status="done", completion=1.0), 1000)
    assert "Result: success. Steps taken: 2. Completion: 100 %." in text
    assert "[Task]\nthe task: push\n\n[Agent, step 1]\nact 1 " in text
    assert all(f'"{name}"' in text for name in GOOD)
    assert "$" not in text
    with pytest.raises(SkillSDError, match="holds no words"):
        read_skill(text)
    failed = Prompt().render(trajectory(status="token_limit", completion=0.25), 1000)
    assert "failure, out of tokens" in failed
    assert "Completion: 25 %." in failed


def test_a_prompt_of_ones_own_is_filled_in_and_else_left_alone(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("Kosten: 5 $$. ${conversation} {braces} 🙂", encoding="utf-8")
    odd = trajectory(turns=1)
    odd.turns[0].observation = "price $steps \ud800"
    text = Prompt(str(path)).render(odd, 1000)
    assert text.startswith("Kosten: 5 $. [Task]")
    assert text.endswith("{braces} 🙂")
    assert "price $steps ?" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Say something.", r"holds no \$conversation"),
        (b"$conversation $trajectory", r"unknown placeholder \$trajectory; there are \$conversation"),
        (b"$conversation for 5$ only", "begins no placeholder"),
        (b"\xff\xfe$", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_prompts_that_do_not_fit_are_refused_with_the_reason(tmp_path, content, message):
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        Prompt(str(path))


@pytest.mark.parametrize("turns", [1, 3, 30, 300])
@pytest.mark.parametrize("size", [10, 400, 5000])
def test_a_long_conversation_keeps_its_ends_and_says_what_is_missing(turns, size):
    limit, long = 2000, trajectory(turns, size)
    whole, text = conversation(long, 10**9), conversation(long, limit)
    assert "left out" not in whole
    assert text == whole or "left out here]" in text
    assert len(text) < 1.2 * limit
    assert text.startswith("[Task]\nthe task: push")
    assert f"saw {turns} " in text
    if size == 10 and turns == 300:
        note = next(line for line in text.splitlines() if "messages" in line)
        count = int(note.removeprefix("[").split()[0])
        assert count + text.count("[Agent") + text.count("[Environment") + 1 == 601


def test_a_huge_task_is_shortened_too():
    huge = Trajectory("t", 1, 0, "start " + "z" * 10**6 + " end", [1], turns=[Turn("a", "b", True)])
    text = conversation(huge, 2000)
    assert len(text) < 2000
    assert "start zzz" in text
    assert "zzz end" in text


def summary(name, good=False):
    made = Trajectory(name, 1, 0, "p", [1])
    return Summary(made, Skill(**GOOD) if good else None, None if good else "no", True)


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_failures_are_tried_again_as_often_as_configured_also_across_a_resume(limit):
    retries, tried = Retries(limit), 0
    assert retries.note([summary("a"), summary("b", good=True)]) == min(limit, 1)
    while waiting := retries.take():
        tried += 1
        assert [t.task_id for t in waiting] == ["a"]
        state = json.loads(json.dumps(retries.state()))
        assert state["failures"] == {"000001/a/0": tried}
        retries = Retries(limit, state["failures"], [])
        retries.note([summary("a")])
    assert tried == limit
    assert retries.state() == {"failures": {}, "waiting": []}


def test_a_success_forgets_the_failures():
    retries = Retries(1)
    retries.note([summary("a")])
    retries.take()
    assert retries.note([summary("a", good=True)]) == 0
    assert retries.note([summary("a")]) == 1

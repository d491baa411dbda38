"""The OpenAI-compatible summariser against a real server that misbehaves, alone and in real training."""

import sqlite3
import subprocess
import sys

import pytest

from fault_server import GOOD
from skillsd.config import SummarizerConfig
from skillsd.errors import SkillSDError, UsageError
from skillsd.skills import Skill
from skillsd.skills.summarize.openai import OpenAISummarizer
from skillsd.skills.summarize.queue import SummaryQueue
from skillsd.skills.summarize.store import SummaryStore
from skillsd.types import SummaryRequest, Task, Trajectory, Turn

KEY = "sk-very-secret-0123456789"
SKILL = Skill(**GOOD)


def request(name="t", number=0):
    turns = [Turn("```up```", "wall", True), Turn("```left```", "", True)]
    trajectory = Trajectory(name, 1, number, "Solve – 解け", [1, 2], [3, number], turns=turns, completion=0.5)
    return SummaryRequest(trajectory, Task(name))


def summarizer(server, store=None, **settings):
    values = {"base_url": server.url, "model": "m", "api_key_env": "MY_KEY", "timeout": 0.5, "max_retries": 1}
    return OpenAISummarizer(SummarizerConfig(**{**values, **settings}), store or SummaryStore(None))


def test_a_call_tells_the_episode_and_its_answer_is_the_skill(serve):
    server = serve("good")
    asked = summarizer(server, temperature=0.5, extra={"top_p": 0.9})
    assert asked.summarize(request()) == SKILL
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("m", 0.5, 0.9, 1024)
    assert body["response_format"]["json_schema"]["schema"]["required"] == list(GOOD)
    text = body["messages"][0]["content"]
    assert "Result: failure, out of turns. Steps taken: 2. Completion: 50 %." in text
    assert "Solve – 解け" in text
    assert "[Agent, step 2]\n```left```" in text
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    counts, notes = asked.drain()
    assert counts == {
        "summarizer_calls": 1, "summarizer_call_retries": 0, "summarizer_second_asks": 0, "summarizer_tokens": 100,
        "summarizer_cache_hits": 0,
    }  # fmt: skip
    assert notes == []
    assert asked.drain()[0]["summarizer_calls"] == 0


def test_the_key_may_be_absent_and_the_limit_may_have_another_name(serve):
    server = serve("good")
    summarizer(server, api_key_env=None, extra={"max_completion_tokens": 9}).summarize(request())
    assert "Authorization" not in server.headers[0]
    assert "max_tokens" not in server.bodies[0]
    assert "temperature" not in server.bodies[0]


FAULTS = {  # what it is, what is said of it, calls that it costs
    "garbage": ("no whole JSON object.*trains", 2),
    "half": ("cut off at summarizer.answer_tokens", 2),
    "wrong_schema": ("lacks mistake_analysis, golden_workflow", 2),
    "wrong_types": ("golden_workflow: Input should be a valid string", 2),
    "surrogates": ("success_analysis", 2),
    "many_words": ("has 200000 characters", 2),
    "long_field": ("at most 4000", 2),
    "no_content": ("answered nothing", 2),
    "not_json": ("no chat completion.*hello", 1),
    "no_choices": ("no chat completion", 1),
    "deep": ("no chat completion", 1),
    "latin": ("not UTF-8", 1),
    "huge": ("larger than 4 MiB", 1),
    "very_busy": ("quota; too long to wait", 1),
    "broken": ("HTTP 500: Internal Server Error", 2),
    "no_model": ("HTTP 404: The model `x` does not exist.; are summarizer.base_url", 2),
    "echo_key": (r"HTTP 401: wrong key Bearer \*\*\*; summarizer.api_key_env", 1),
    "moved": ("HTTP 302", 1),
    "closes": ("no answer from http", 2),
    "silent": ("within 0.5 s", 2),
    "drips": ("within 0.5 s", 2),
    "parrot": ("only repeats the question", 2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_one_clear_line(serve, fault):
    message, calls = FAULTS[fault]
    asked = summarizer(serve(fault))
    with pytest.raises(SkillSDError, match=message) as caught:
        asked.summarize(request())
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert asked.drain()[0]["summarizer_calls"] == calls


def test_a_dead_server_is_told_as_one_that_does_not_answer(serve):
    server = serve("good")
    server.close()
    with pytest.raises(SkillSDError, match=r"no answer from .*refused"):
        summarizer(server).summarize(request())


@pytest.mark.parametrize(
    ("plan", "retries", "second"),
    [(["fenced"], 0, 0), (["garbage", "good"], 0, 1), (["broken", "good"], 1, 0), (["closes", "good"], 1, 0),
     (["silent", "half", "broken", "good"], 2, 1)],
)  # fmt: skip
def test_what_passes_is_overcome(serve, plan, retries, second):
    server = serve(*plan)
    asked = summarizer(server)
    assert asked.summarize(request()) == SKILL
    counts = asked.drain()[0]
    assert (counts["summarizer_call_retries"], counts["summarizer_second_asks"]) == (retries, second)
    if second:  # the second question quotes the bad answer and says what is wrong with it
        question, bad, complaint = server.bodies[-1]["messages"]
        assert question["content"] == server.bodies[0]["messages"][0]["content"]
        assert bad["role"] == "assistant"
        assert "cannot be used: the answer" in complaint["content"]


def test_retry_after_is_honoured(serve):
    server = serve("busy", "good")
    assert summarizer(server).summarize(request()) == SKILL
    assert 1.0 <= server.times[1] - server.times[0] < 5


def test_a_server_without_schemas_is_asked_plainly_and_that_is_said_once(serve):
    server = serve("schema_only_refused")
    asked = summarizer(server)
    for number in range(3):
        assert asked.summarize(request(number=number)) == SKILL
    assert ["response_format" in body for body in server.bodies] == [True, False, False, False]
    notes = asked.drain()[1]
    assert len(notes) == 1
    assert "no JSON-schema output" in notes[0]
    assert "response_format is not supported" in notes[0]
    assert asked.drain()[1] == []
    plain = serve("no_schema")  # refused for another reason: schemas stay on
    asked = summarizer(plain)
    for number in range(2):
        with pytest.raises(SkillSDError, match="HTTP 400"):
            asked.summarize(request(number=number))
    assert ["response_format" in body for body in plain.bodies] == [True, False] * 2
    assert not any(
        "response_format" in body for body in (summarizer(serve("good"), json_schema=False), server)[1].bodies[1:]
    )


def test_the_cache_knows_trajectory_outcome_prompt_and_model(serve, tmp_path):
    server, path = serve("good"), tmp_path / "deep" / "cache.sqlite"
    for _ in range(2):  # the second time as another process would
        asked = summarizer(server, SummaryStore(path))
        assert asked.summarize(request()) == SKILL
    assert asked.drain()[0]["summarizer_cache_hits"] == 1
    assert len(server.bodies) == 1
    other = request()
    other.trajectory.success = True
    (tmp_path / "p.txt").write_text("$conversation", encoding="utf-8")
    asked.summarize(other)
    asked.summarize(request(number=9))
    summarizer(server, SummaryStore(path), model="n").summarize(request())
    summarizer(server, SummaryStore(path), prompt=str(tmp_path / "p.txt")).summarize(request())
    assert len(server.bodies) == 5
    assert KEY.encode() not in path.read_bytes()


def test_a_damaged_summary_is_asked_for_again_and_told(serve, tmp_path):
    server, path = serve("good"), tmp_path / "cache.sqlite"
    summarizer(server, SummaryStore(path)).summarize(request())
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE summaries SET skill = CAST(x'ff7b' AS TEXT)")
    asked = summarizer(server, SummaryStore(path))
    for _ in range(2):
        assert asked.summarize(request()) == SKILL
    counts, (note,) = asked.drain()
    assert (counts["summarizer_cache_hits"], len(server.bodies)) == (1, 2)
    assert f"{path}: a damaged entry is asked for again" in note


STORE = """
import sys
from skillsd.skills.summarize.store import BudgetSpent, SummaryStore
store, spent = SummaryStore(sys.argv[1]), 0
for i in range(100):
    try:
        store.spend_call(60, 0)
        spent += 1
    except BudgetSpent:
        break
    store.put(f"key-{i}", "x")
    assert store.get(f"key-{i}") == "x"
print(spent)
"""


def test_processes_share_cache_and_budget(tmp_path):
    path = tmp_path / "s.sqlite"
    command = [sys.executable, "-c", STORE, str(path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    spent = [int(process.communicate(timeout=60)[0]) for process in running]
    assert sum(spent) == 60
    assert sqlite3.connect(path).execute("SELECT calls FROM spent").fetchone() == (60,)


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"junk" * 1000)
    for path in (tmp_path / "x", tmp_path / "x" / "y", tmp_path):
        with pytest.raises(SkillSDError, match=r"summarizer.cache: .*cannot be used"):
            SummaryStore(path)


def test_a_cache_that_fails_costs_no_answer(serve, monkeypatch):
    asked = summarizer(serve("good"))

    def full(key, skill):
        raise SkillSDError("disk full")

    monkeypatch.setattr(asked.store, "put", full)
    assert asked.summarize(request()) == SKILL
    assert asked.drain()[1] == ["disk full"]


@pytest.mark.parametrize("budget", [{"max_calls": 3}, {"max_tokens": 250}])
def test_the_budget_ends_the_calls(serve, tmp_path, budget):
    server = serve("good")
    failed = []
    for start in (0, 10):  # a resumed run starts from what was spent
        asked = summarizer(server, SummaryStore(tmp_path / "s.sqlite"), **budget)
        queue = SummaryQueue(asked, workers=1)
        queue.submit([request(number=number) for number in range(start, start + 5)])
        failed += [s.error for s in queue.collect(wait=True, timeout=20) if s.skill is None]
    assert len(failed) == 7
    assert all("the budget is spent (3 calls, 300 tokens)" in error for error in failed)
    assert len(server.bodies) == 3
    assert asked.summarize(request(number=0)) == SKILL  # what is in the cache costs nothing


def test_no_more_calls_run_at_once_than_there_are_workers(serve):
    server = serve("slow")
    queue = SummaryQueue(summarizer(server), workers=3)
    queue.submit([request(number=n) for n in range(9)])
    found = queue.collect(wait=True, timeout=20)
    assert [s.trajectory.sample for s in found] == list(range(9))
    assert all(s.skill == SKILL for s in found)
    assert server.busiest == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": None}, "needs summarizer.base_url"),
        ({"model": None}, "needs summarizer.model"),
        ({"api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
        ({"api_key_env": "ODD_KEY"}, "ODD_KEY holds characters"),
        ({"prompt": "/nowhere"}, "cannot be read"),
    ],
)
def test_missing_or_unusable_settings_are_refused_without_showing_the_key(serve, monkeypatch, settings, message):
    monkeypatch.setenv("ODD_KEY", f"{KEY}\nx\u00e9")
    with pytest.raises(UsageError, match=message) as caught:
        summarizer(serve("good"), **settings)
    assert KEY not in str(caught.value)

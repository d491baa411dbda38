"""The OpenAI-compatible summariser against a real server that misbehaves, alone and in real training."""

import json
import sqlite3
import subprocess
import sys
import threading
from itertools import pairwise

import pytest

from fault_server import GOOD, FaultServer
from skillsd import load_config, train
from skillsd.config import SummarizerConfig
from skillsd.envs.base import Task
from skillsd.errors import SkillSDError, UsageError
from skillsd.run_dir import RunDir
from skillsd.skills import Skill, SkillBank
from skillsd.skills.summarize import SummaryRequest
from skillsd.skills.summarize.openai import OpenAISummarizer
from skillsd.skills.summarize.queue import SummaryQueue
from skillsd.skills.summarize.store import SummaryStore
from skillsd.trajectory import Trajectory, Turn

KEY = "sk-very-secret-0123456789"
SKILL = Skill(**GOOD)


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setattr("skillsd.skills.summarize.endpoint._FIRST_WAIT", 0.01)
    servers = []

    def start(*plan):
        servers.append(FaultServer(*plan))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def request(name="t", number=0):
    turns = [Turn("```up```", "wall", True), Turn("```left```", "", True)]
    trajectory = Trajectory(name, 1, number, "Solve – 解け", [1, 2], [3, number], turns=turns, completion=0.5)
    return SummaryRequest(trajectory, Task(name))


def summarizer(server, store=None, **settings):
    values = {"base_url": server.url, "model": "m", "api_key_env": "MY_KEY", "timeout": 0.5, "max_retries": 1}
    return OpenAISummarizer(SummarizerConfig(**{**values, **settings}), store or SummaryStore(None))


def test_what_is_asked_and_answered(serve):
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


def test_no_key_and_other_names_for_the_limit(serve):
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
    "no_content": ("answered nothing", 1),
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


def test_a_dead_server(serve):
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


def test_a_file_that_is_no_cache(tmp_path):
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


def test_at_most_so_many_at_once(serve):
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
def test_missing_settings(serve, monkeypatch, settings, message):
    monkeypatch.setenv("ODD_KEY", f"{KEY}\nx\u00e9")
    with pytest.raises(UsageError, match=message) as caught:
        summarizer(serve("good"), **settings)
    assert KEY not in str(caught.value)


# -- in real training ----------------------------------------------------------------------------------------

TINY = [
    "env.train_tasks=3", "rollout.tasks_per_iteration=3", "rollout.group_size=3", "rollout.max_turns=4",
    "eval.tasks=2", "eval.panel_every=0", "skills.summarizer=openai", "skills.per_visit=0", "skills.workers=4",
    "summarizer.model=m", "summarizer.api_key_env=MY_KEY", "summarizer.timeout=0.5", "summarizer.max_retries=0",
]  # fmt: skip


def config(server, *overrides):
    return load_config("sokoban-smoke", [*TINY, f"summarizer.base_url={server.url}", *overrides])


def trained(settings, out, **named):
    told = []
    train(
        settings,
        out,
        evaluate=False,
        listen=lambda kind, data: told.append(data["text"]) if kind == "warning" else None,
        **named,
    )
    assert KEY not in " ".join(told)
    for path in out.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
    return RunDir(out).read_metrics(), told


def test_training_goes_on_whatever_the_server_does(serve, tmp_path):
    """Every trajectory has one fate, for good; all are counted, and those that fail are tried again once, or never."""
    fates, lock = {}, threading.Lock()
    kinds = ["good", "garbage", "half", "broken", "closes", "silent", "huge", "latin", "echo_key", "key_in_skill"]

    def fate(body):
        question = body["messages"][0]["content"]
        with lock:
            return fates.setdefault(question, kinds[len(fates) % len(kinds)])

    server = serve(fate)
    rows, told = trained(config(server, "trainer.iterations=3"), tmp_path / "run")
    bad = [row["skills_failed"] for row in rows]
    assert bad[0] >= 5
    assert bad[0] == rows[0]["skills_retried"]  # all of them get another chance in the next iteration
    for before, row in pairwise(rows):
        new = row["skills_failed"] - before["skills_retried"]  # those tried again failed again
        assert row["skills_retried"] == new
        assert row["skills_added"] + row["skills_duplicate"] + row["skills_failed"] == 9 + before["skills_retried"]
    assert all(row["summarizer_calls"] > 0 and row["summaries_pending"] == 0 for row in rows)
    assert any("no skill from" in text for text in told)
    rows, _ = trained(config(server, "trainer.iterations=2", "skills.retries=0"), tmp_path / "dropped")
    assert rows[0]["skills_failed"] >= 5
    assert [row["skills_retried"] for row in rows] == [0, 0]
    bank = SkillBank(tmp_path / "run" / "skills.sqlite")
    assert any("箱を押す 🙂" in s.skill.success_analysis for s in bank.skills())
    assert any("use Bearer ***" in s.skill.success_analysis for s in bank.skills())
    bank.close()


def test_what_failed_is_tried_again_after_a_resume_and_what_was_answered_is_not_asked_twice(serve, tmp_path):
    down = serve("broken")
    out, settings = tmp_path / "run", config(down, "trainer.iterations=1")
    rows, told = trained(settings, out)
    assert (rows[0]["skills_failed"], rows[0]["skills_added"]) == (9, 0)
    assert told == [text for text in told if "and 8 more: HTTP 500" in text]
    up = serve("good")  # elsewhere: on resume summarizer.* may change
    rows, _ = trained(config(up, "trainer.iterations=2"), out, resume=True)
    assert (rows[1]["skills_failed"], rows[1]["skills_added"] + rows[1]["skills_duplicate"]) == (0, 18)
    answered = len(up.bodies)
    for folder in (out / "checkpoints").iterdir():  # a crash before the first checkpoint: all from the beginning
        (folder / "state.json").unlink()
    moved = serve("good")
    rows, _ = trained(config(moved, "trainer.iterations=2"), out, resume=True)
    assert (rows[0]["summarizer_cache_hits"], rows[0]["summarizer_calls"]) == (9, 0)
    assert len(moved.bodies) < answered


def test_a_spent_budget_stops_no_training(serve, tmp_path):
    server = serve("good")
    rows, told = trained(config(server, "trainer.iterations=2", "summarizer.max_calls=4"), tmp_path / "run")
    assert len(server.bodies) == 4
    assert [row["summarizer_calls"] for row in rows] == [4, 0]
    assert rows[0]["skills_failed"] == 5
    assert any("the budget is spent (4 calls" in text for text in told)


def test_hindsight_asks_side_by_side(serve, tmp_path):
    server = serve("slow")
    rows, _ = trained(config(server, "method=skill_sd_hindsight", "trainer.iterations=1"), tmp_path / "run")
    assert rows[0]["summarizer_calls"] <= 9  # the bank's summaries of the best come from the cache
    assert 1 < server.busiest <= 4


def test_a_missing_key_is_refused_before_any_work_and_only_where_it_is_needed(serve, tmp_path, monkeypatch):
    server = serve("good")
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(UsageError, match="MY_KEY is not set"):
        train(config(server), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(config(server, "method=grpo", "trainer.iterations=1"), tmp_path / "grpo", evaluate=False)
    assert server.bodies == []


@pytest.mark.parametrize("setting", [f"summarizer.api_key_env={KEY}", f"summarizer.base_url=http://u:{KEY}@h/v1",
                                     f"summarizer.base_url=http://h/v1?key={KEY}", f"summarizer.api_key={KEY}",
                                     "summarizer.base_url=localhost:8000", "skills.summarizer=policy"])  # fmt: skip
def test_a_key_in_the_settings_is_refused_and_not_repeated(setting):
    with pytest.raises(UsageError, match="summarizer") as caught:
        load_config("sokoban-smoke", ["skills.wait=false", setting])
    assert KEY not in str(caught.value)


def test_settings_come_back_from_a_runs_folder(serve, tmp_path):
    settings = config(serve("good"), "summarizer.extra={ chat_template_kwargs = { enable_thinking = false } }")
    run = RunDir(tmp_path / "run")
    run.create(settings)
    assert run.load_config() == settings


def test_trying_a_summariser_changes_nothing(serve, tmp_path, monkeypatch):
    server = serve("good", "echo_key", "good")
    train(
        load_config("sokoban-smoke", [*TINY, "skills.summarizer=rules", "trainer.iterations=1"]),
        tmp_path / "run",
        evaluate=False,
    )
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    command = [sys.executable, "-m", "skillsd", "skills", "try", "run", "--set", "skills.summarizer=openai"]
    command += ["--set", f"summarizer.base_url={server.url}"]

    def tried(*more):
        return subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    done = tried("--limit", "2", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert sorted(s["error"] is None for s in found["summaries"]) == [False, True]
    assert found["summarizer_calls"] == 2
    assert KEY not in done.stdout + done.stderr
    one = found["summaries"][0]["trajectory"]
    done = tried("--trajectory", one, "--show-prompt")
    assert done.returncode == 0, done.stderr
    assert "箱を押す 🙂" in done.stdout
    assert "An agent worked on a task" in done.stdout
    done = tried("--trajectory", "9/none/0")
    assert (done.returncode, "holds no trajectory" in " ".join(done.stderr.split())) == (2, True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before

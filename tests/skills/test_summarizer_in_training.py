"""An LLM summariser in real training: whatever its server does, training goes on, and the key stays a secret."""

import json
import subprocess
import sys
import threading
from itertools import pairwise

import pytest

from skillsd import load_config, train
from skillsd.errors import SkillSDError, UsageError
from skillsd.runs.folder import RunDir
from skillsd.skills import SkillBank

KEY = "sk-very-secret-0123456789"
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


@pytest.mark.parametrize(
    ("fault", "iterations"),
    [("no_model", 1), ("moved", 1), ("echo_key", 1), ("no_schema", 1), ("broken", 3), ("garbage", 3)],
)
def test_a_run_that_never_gets_a_skill_stops_saved_and_goes_on_when_that_is_mended(serve, tmp_path, fault, iterations):
    """What cannot be better next time stops at once; a server that is down is given three iterations."""
    out = tmp_path / "run"
    upkeep = ["trainer.checkpoint_every=9", "skills.retries=0"]
    wrong = config(serve(fault), "trainer.iterations=9", *upkeep)
    with pytest.raises(
        SkillSDError, match=rf"iteration {iterations}: skills.summarizer = openai has given no skill.*--"
    ):
        train(wrong, out, evaluate=False)
    assert len(RunDir(out).read_metrics()) == iterations
    mended = config(serve("good"), f"trainer.iterations={iterations + 1}", *upkeep)
    assert train(mended, out, resume=True, evaluate=False).iterations == iterations + 1
    assert RunDir(out).read_metrics()[-1]["skills_added"] > 0


def test_a_server_that_goes_away_later_ends_no_run(serve, tmp_path):
    server = serve(*["good"] * 9, "broken")
    rows, _ = trained(config(server, "trainer.iterations=6", "skills.retries=0"), tmp_path / "run")
    assert [row["skills_failed"] for row in rows] == [0, 9, 9, 9, 9, 9]

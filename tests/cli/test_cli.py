"""The command line as a person, and as a hostile one, would use it."""

import json
import subprocess
import sys

import pytest

from skillsd.rollouts.results import bootstrap_interval, pass_at_k, wilson_interval


def run(*arguments, **options):
    command = [sys.executable, "-m", "skillsd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, **options)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    result = run(
        "train", "sokoban-smoke", "--out", out, "--json", "--set", "eval.tasks=8", "--set", "eval.panel_every=0"
    )
    assert result.returncode == 0, result.stderr
    return out, result


def test_train_and_everything_that_looks_at_a_run(smoke):
    out, result = smoke
    summary = json.loads(result.stdout)
    assert summary["iterations"] == 3
    assert summary["after"]["tasks"] == 8
    assert "iter reward" in result.stderr
    page = (out / "report.html").read_text("utf-8")
    assert page.count('role="img"') >= 5
    assert 'class="board"' in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    listed = json.loads(run("skills", "list", out, "--json").stdout)
    assert listed
    assert run("skills", "show", out, listed[0]["id"]).stdout.startswith("What works: ")
    assert run("skills", "show", out, 10**6).returncode == 2
    exported = out / "skills.jsonl"
    assert run("skills", "export", out, exported).returncode == 0
    assert len(exported.read_text("utf-8").splitlines()) == len(listed)
    assert run("report", out).stdout.strip() == str(out / "report.html")
    found = json.loads(run("evaluate", out, "--limit", 4, "--json").stdout)
    assert len(found["per_task"]) == 4


def test_resume_keeps_its_settings(smoke):
    out, _ = smoke
    result = run("train", "sokoban-smoke", "--out", out, "--resume", "--set", "trainer.iterations=4", "--json")
    assert json.loads(result.stdout)["iterations"] == 4, result.stderr
    result = run("train", "sokoban-smoke", "--out", out, "--resume", "--set", "optim.lr=1")
    assert result.returncode == 2
    assert "other settings" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train", "nonsense"], 2, "no preset or file"),
        (["train", "sokoban-smoke", "--set", "optim.lrr=3", "--out", "x"], 2, "optim.lrr"),
        (["train", "sokoban-smoke", "--set", "model.path=./none", "--out", "x"], 1, "no folder"),
        (["train", "sokoban-smoke", "--set", "skills.summarizer=oracle", "--out", "x"], 2, "oracle"),
        (["train", "sokoban-smoke", "--set", "skills.summarizer=openai", "--out", "x"], 2, "summarizer.base_url"),
        (["skills", "try", "nowhere"], 2, "holds no run"),
        (["train", "sokoban-smoke", "--resume", "--out", "x"], 2, "no run to resume"),
        (["train", "sokoban-smoke", "--out", "/proc/nowhere/run"], 1, "cannot be written"),
        (["evaluate", "./none"], 1, "no folder"),
        (["evaluate", "embedded", "--split", "dev"], 2, "no split"),
        (["evaluate", "embedded", "--env", "chess"], 2, "no task set"),
        (["compare", "nothing.toml", "--out", "x"], 2, "nothing.toml"),
        (["skills", "list", "nowhere"], 2, "no skill bank"),
        (["report", "nowhere"], 2, "holds no run"),
        (["play", "sokoban", "--index", "9999"], 2, "tasks 0 to"),
        (["train"], 2, "Missing argument"),
        (["fly"], 2, "No such command"),
        (["train", "sokoban-smoke", "--nonsense"], 2, "No such option"),
    ],
)
def test_bad_usage_is_told_in_a_line(tmp_path, arguments, code, said):
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_a_damaged_bank_is_told(tmp_path):
    (tmp_path / "skills.sqlite").write_bytes(b"junk" * 1000)
    result = run("skills", "list", tmp_path)
    assert result.returncode == 1
    assert "not a usable skill bank" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "command",
    [[], ["train"], ["evaluate"], ["skills"], ["skills", "list"], ["skills", "try"], ["play"], ["report"], ["doctor"],
     ["presets"], ["compare"], ["base-model", "build"]],
)  # fmt: skip
def test_every_command_gives_an_example_in_its_help(command):
    result = run(*command, "--help")
    assert result.returncode == 0
    assert "Example:" in result.stdout or command == ["skills"]


def test_play_over_a_pipe_goes_on_to_the_next_level():
    result = run("play", "sokoban", "--env-option", "variant=one_box", input="a\nhello\n```up```\nn\nq\n")
    assert result.returncode == 0
    assert "one_box-test-000" in result.stdout
    assert "one_box-test-001" in result.stdout
    assert "No move was made" in result.stdout
    assert "turn 3 of 20" in result.stdout


def test_the_doctor_passes_this_machine_and_fails_a_missing_model():
    found = json.loads(run("doctor", "--json").stdout)
    assert found["ok"]
    assert found["threads"] >= 1
    assert run("doctor", "./nothing").returncode == 1


def test_wilson_equals_its_formula_and_the_bootstrap_holds_the_mean():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    low, high = wilson_interval(40, 64)
    assert (low, high) == pytest.approx((0.5025, 0.7335), abs=2e-4)  # by hand from Wilson's formula
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(10, 10)[1] == pytest.approx(1.0)
    low, high = bootstrap_interval([0.0, 1.0] * 50)
    assert 0.38 < low < 0.5 < high < 0.62
    assert bootstrap_interval([0.5]) == (0.5, 0.5)


def test_pass_at_k_is_the_share_of_draws_with_a_success():
    from itertools import combinations

    for wins in range(6):
        outcomes = [1] * wins + [0] * (5 - wins)
        for k in range(1, 6):
            draws = list(combinations(outcomes, k))
            assert pass_at_k(5, wins, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    with pytest.raises(ValueError, match="needs at least"):
        pass_at_k(2, 1, 3)


def test_the_version_is_printed_after_the_name():
    assert run("--version").stdout.startswith("skillsd 0.")

"""The commands of README.md and docs/: every one is understood, and those that this machine can run do run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from skillsd import cli, load_config
from skillsd.config import presets

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: What makes minutes seconds, behind the command as it is written.
SMALLER = {
    "train": [
        word for setting in (
            "env.train_tasks=2", "rollout.tasks_per_iteration=2", "rollout.group_size=2", "rollout.max_turns=3",
            "eval.tasks=2", "eval.panel_tasks=2", "trainer.iterations=2",
        )
        for word in ("--set", setting)
    ],
    "evaluate": ["--limit", "2"],
    "probe": ["--limit", "2", "--samples", "2"],
}  # fmt: skip
#: For names that stand for the reader's own.
FILLED = {"base_url=...": "base_url=http://localhost:1/v1", "HOST": "localhost"}


def commands(page):
    """The words of every skillsd command in the page's blocks, as a shell would have them."""
    for block in re.findall(r"```\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for mark, name in FILLED.items():
                line = line.replace(mark, name)
            if "skillsd" not in line:
                continue
            words = shlex.split(line, comments=True)
            if words and words[0].removeprefix(".venv/bin/") == "skillsd":
                yield words[1:]
            elif "skillsd" in words and "-m" in words:  # behind a launcher
                yield words[words.index("skillsd") + 1 :]


FOUND = [(page.name, words) for page in PAGES for words in commands(page)]


def test_there_are_commands_to_test():
    assert len(FOUND) > 40
    assert {name for name, _ in FOUND} >= {"README.md", "models.md", "teacher.md", "vllm.md"}


@pytest.mark.parametrize(("page", "words"), FOUND, ids=[f"{page}: {' '.join(words)[:60]}" for page, words in FOUND])
def test_a_command_is_understood(page, words, monkeypatch):
    monkeypatch.chdir(ROOT / "examples" if "doors.toml" in words else ROOT)
    command, rest = typer.main.get_command(cli.app), list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    context = command.make_context("skillsd", rest)
    if words[0] == "train" and not context.params["resume"]:
        assert context.params["preset"] in presets() or context.params["preset"] == "doors.toml"
        load_config(context.params["preset"], context.params["set_"] or ())


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder like a clone of the repository, with runs of its own."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("comparisons", "docs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "examples").mkdir()
    for file in (ROOT / "examples").glob("doors.*"):
        (folder / "examples" / file.name).symlink_to(file)
    run(folder, ["train", "sokoban-demo", "--out", "runs/demo"])
    return folder


def run(folder, words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "skillsd", *words, *SMALLER.get(words[0], [])],
        cwd=folder, env=environment, input="q\n", capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def runs(page, *beginnings):
    """Those commands of a page that begin so."""
    found = [words for name, words in FOUND if name == page and " ".join(words).startswith(beginnings)]
    assert len(found) >= len(beginnings)
    return found


def test_the_readmes_commands_run(here):
    for words in runs(
        "README.md", "presets", "train sokoban-demo --set method=grpo", "train sokoban-demo --out runs/grpo --resume",
        "evaluate", "skills list", "probe", "explain", "play", "doctor",
    ):  # fmt: skip
        run(here, words)


def test_the_commands_about_the_teacher_run(here):
    for words in runs("teacher.md", "probe embedded", "probe runs/demo"):
        run(here, words)
    assert "student" in run(here, *runs("teacher.md", "explain runs/demo")[:1])


def test_the_commands_about_ones_own_environment_run(here):
    for words in runs("environments.md", "env check doors", "train doors.toml", "skills export"):
        run(here if words[0] == "skills" else here / "examples", words)
    assert any((here / "skills").iterdir())

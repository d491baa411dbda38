"""Text that others wrote does nothing to a terminal or a page: it is shown."""

import io
import json
import os
import sqlite3
import subprocess
import sys

import pytest
from rich.table import Table
from rich.text import Text

from skillsd import load_config, train
from skillsd.analysis.pages import render
from skillsd.analysis.report import write_report
from skillsd.envs.play import _Player
from skillsd.errors import reason
from skillsd.system.terminal import Screen, printable
from skillsd.types import Score, Step, Task

#: Clears the screen, names the window, fills the clipboard, all in C0 and C1; deletes; turns words round.
HOSTILE = (
    "\x1b[2J\x1b]0;mine\x07\x1b]52;c;ZXZpbA==\x07 \x9b31m\x08\x7f\r \u202egnp.exe\u2066 \u2028 [red]x[/red] [/nope]"
)


def obeyed(text):
    """Characters that something obeys, colours of our own aside."""
    return [c for c in text if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u2066\u2028"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"), ("\x9b1m", r"\x9b1m"), ("a\x00b\x7f", r"a\x00b\x7f"),
        ("\u202ea\u2069", r"\u202ea\u2069"), ("\ud800", r"\ud800"), ("\U000e0041", r"\U000e0041"),
        ("a\r\nb", "a\nb"), ("a\rb", r"a\x0db"), ("\ta\nb", "\ta\nb"),
        ("箱 🙂 👩\u200d💻 é שלום", "箱 🙂 👩\u200d💻 é שלום"), ("[bold]", "[bold]"), ("", ""),
    ],
)  # fmt: skip
def test_what_would_be_obeyed_is_shown_and_all_else_stays(text, shown):
    assert printable(text) == shown


def test_one_line_stays_one_line_whatever_is_raised():
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    assert printable("a\n b\tc\u2028d\x0be", lines=False) == "a b c d e"
    assert reason(ValueError(f"a\n{HOSTILE}")).isprintable()
    assert reason(Broken()) == "Broken, which cannot be told"


def test_a_screen_shows_strings_tables_and_ready_made_text_alike():
    out = io.StringIO()
    screen = Screen(file=out, width=300, force_terminal=False)
    table = Table("a")
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    for what in (HOSTILE, table, Text(HOSTILE), f":smile: {HOSTILE}"):
        screen.print(what)
    assert obeyed(out.getvalue()) == []
    assert out.getvalue().count(r"\x1b[2J") == 5
    assert out.getvalue().count("[/nope]") == 5
    assert ":smile:" in out.getvalue()


def test_a_screen_keeps_its_own_colours():
    out = io.StringIO()
    Screen(file=out, force_terminal=True, color_system="standard").print("\x1b[5m", style="red")
    assert out.getvalue() == "\x1b[31m\\x1b[5m\x1b[0m\n"


def test_pages_show_it_too_and_stay_pages():
    page = render("skillsd.analysis.report", "report.html.jinja", name=HOSTILE, config=load_config("sokoban-smoke"),
                  last={}, alarms=[{"iteration": 1, "alarm": HOSTILE}], method=HOSTILE, results=[], charts=[],
                  episodes=[], skills={}, settings=HOSTILE)  # fmt: skip
    assert obeyed(page) == []
    assert "<h1>" in page
    assert r"\x1b[2J" in page


class World:
    """An environment whose every word is hostile."""

    def reset(self, task):
        return HOSTILE

    def step(self, action):
        return Step(HOSTILE, True)

    def score(self):
        return Score(1.0, True, 1.0)

    def close(self):
        pass


class Worlds:
    name, max_turns = "worlds", 2

    def tasks(self, split):
        return [Task(f"t{HOSTILE}")]

    def make(self):
        return World()


def test_playing_shows_it(capsys):
    player = _Player(Worlds())
    player.level(Worlds().tasks("test")[0], 0, iter(["up", "q"]))
    shown = capsys.readouterr().out
    assert obeyed(shown) == []
    assert shown.count(r"\x1b[2J") >= 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder whose bank and trajectories somebody filled with hostile text."""
    out = tmp_path_factory.mktemp("hostile") / "run"
    settings = ["trainer.iterations=1", "env.train_tasks=2", "rollout.tasks_per_iteration=2", "rollout.group_size=2",
                "rollout.max_turns=2", "eval.panel_every=0", "skills.per_visit=0"]  # fmt: skip
    train(load_config("sokoban-smoke", settings), out, evaluate=False)
    skill = json.dumps(dict.fromkeys(("success_analysis", "mistake_analysis", "golden_workflow"), HOSTILE))
    with sqlite3.connect(out / "skills.sqlite") as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(skills)")]
        for name in set(columns) & {"skill", "success_analysis", "mistake_analysis", "golden_workflow"}:
            database.execute(f"UPDATE skills SET {name} = ?", (skill if name == "skill" else HOSTILE,))
        assert set(columns) & {"skill", "golden_workflow"}
        number = database.execute("SELECT id FROM skills").fetchone()[0]
    return out, number


@pytest.mark.parametrize("command", [["skills", "list"], ["skills", "show"], ["skills", "export"]])
def test_commands_show_what_a_bank_holds(run, command, tmp_path):
    out, number = run
    words = [*command, str(out), *{"show": [str(number)], "export": [str(tmp_path / "x.jsonl")]}.get(command[1], [])]
    env = {**os.environ, "COLUMNS": "400"}
    done = subprocess.run(
        [sys.executable, "-m", "skillsd", *words], capture_output=True, text=True, env=env, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert obeyed(done.stdout + done.stderr) == []
    if command[1] != "export":
        assert r"\x1b[2J" in done.stdout


def test_a_report_shows_what_a_bank_holds(run):
    page = write_report(run[0]).read_text("utf-8")
    assert obeyed(page) == []
    assert r"\x1b[2J" in page


def test_an_error_shows_what_was_typed_in():
    done = subprocess.run(
        [sys.executable, "-m", "skillsd", "train", f"no{HOSTILE}".replace("\x00", "")],
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 2
    assert obeyed(done.stdout + done.stderr) == []

"""What of AppWorld needs no engine: reading code before it is run, reading trajectories, scenario completion."""

from __future__ import annotations

import contextlib
import random

import pytest

from skillsd.config import load_config
from skillsd.envs.appworld.guard import MODULES, Refused, check
from skillsd.envs.appworld.install import find_engine, state
from skillsd.envs.base import Task
from skillsd.errors import UsageError
from skillsd.evaluation import summarize
from skillsd.skills.summarize import make_summarizer
from skillsd.skills.summarize.appworld_rules import AppWorldRules, read
from skillsd.skills.summarize.base import SummaryRequest
from skillsd.trajectory import Trajectory, Turn

HONEST = """
import re
from collections import Counter
from datetime import datetime, timedelta
songs, page = [], 0
while found := apis.spotify.show_song_library(page_index=page, access_token=token):
    songs, page = songs + found, page + 1
best = max(songs, key=lambda song: song['play_count'])
names = sorted({artist['name'] for song in songs for artist in song['artists']})
print(f"{best['title']!r}: {best['play_count']:>6d}", type(best).__name__, "a.b.c", "it's __here__")
def total(values, _scale=1):
    return sum(value * _scale for value in values)
try:
    print(total([1, 2]), re.search(r'(\\d+)', 'a1').group(1), apis.file_system.show_file(file_path='~/a'))
except Exception as error:
    print(error)
"""


def test_honest_code_passes():
    check(HONEST)
    check("")
    for module in MODULES:
        check(f"import {module}")


@pytest.mark.parametrize(
    "code",
    [
        "import os.path", "from os import path", "from . import x", "import json, sys", "x = [os for os in ()]",
        "a.__class__", "a._private", "lambda: exec('1')", "class A:\n    x = open", "print(json.codecs)",
        "from json import codecs", "__builtins__", "f'{().__class__}'", "'{0.__class__}'.format(1)",
        "match x:\n    case A(__class__=y): pass", "vars()", "re.enum.sys", "del requester",
    ],
)  # fmt: skip
def test_ways_out_are_offences(code):
    with pytest.raises(Refused, match=r"^line [12]") as caught:
        check(code)
    assert caught.value.offence


@pytest.mark.parametrize("code", ["import pandas", "from requests import get", "import yaml as y"])
def test_what_is_not_there_is_no_offence(code):
    with pytest.raises(Refused, match="these modules are there: array, bisect") as caught:
        check(code)
    assert not caught.value.offence


@pytest.mark.parametrize("code", ["def f(:", "x = '\0'", "(" * 10_000, "x" * 10 + "\n  y", "\ud800", "!ls", "%run x"])
def test_what_is_no_python_is_a_syntax_error(code):
    with pytest.raises(SyntaxError):
        check(code)


def test_noise_never_breaks_the_readers():
    """Whatever a model writes: a verdict or a syntax error, and a skill."""
    rng = random.Random(0)
    pieces = ["apis", ".", "login", "(", ")", "\n", "x=", "'", "```", "python", "\\", "{", "é", "\0"]
    for _ in range(300):
        code = "".join(rng.choice(pieces) for _ in range(rng.randrange(30)))
        with contextlib.suppress(Refused, SyntaxError):
            check(code)
        turns = [Turn(f"```python\n{code}\n```", rng.choice(["ok", "Execution failed. ", "\0"]), True, {})]
        trajectory = Trajectory("t", 1, 0, "p", [], turns=turns)
        assert AppWorldRules().summarize(SummaryRequest(trajectory, Task("t"))).golden_workflow


def test_calls_behind_the_failing_line_never_ran():
    code = "a = apis.x.one(k=1)\nb = apis.x.two(password='p')\napis.x.three()"
    failed = (
        'Execution failed. Traceback:\n  File "<python-input>", line 2, in <module>\nException: Response status code'
    )
    attempt = read([Turn("", f'{failed} is 422:\n{{"message":"k: field\\n required"}}', True, {"action": code})])
    assert [(call.name, call.error) for call in attempt.calls] == [
        ("x.one", None), ("x.two", "status 422, k: field required"),
    ]  # fmt: skip
    assert str(attempt.calls[1]) == "x.two(password=...)"


def test_rules_are_chosen_by_the_environment():
    config = load_config("appworld-smoke")
    assert isinstance(make_summarizer("rules", config), AppWorldRules)
    assert not isinstance(make_summarizer("rules", load_config("sokoban-smoke")), AppWorldRules)


def test_without_an_engine_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLSD_APPWORLD_HOME", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="run `skillsd appworld setup`"):
        find_engine()
    found = state()
    assert not found["ok"]
    assert "skillsd appworld setup" in found["engine"]


def test_a_scenario_counts_only_as_a_whole():
    tasks = [Task(f"{name}_{i}", {"scenario": name}) for name in ("a", "b") for i in range(2)]
    won = {"a_0": True, "a_1": True, "b_0": True, "b_1": False}
    trajectories = [Trajectory(task.id, 0, 0, "p", [], success=won[task.id]) for task in tasks]
    assert summarize("dev", tasks, trajectories, 1).scenario_accuracy == 0.5
    assert summarize("dev", [Task("x")], [Trajectory("x", 0, 0, "p", [])], 1).scenario_accuracy is None

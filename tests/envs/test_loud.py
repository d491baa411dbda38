"""What an environment prints, and what it raises, as people read it."""

import json
import subprocess
import sys

import pytest

from fuzzing import Untellable, raising, ring
from skillsd.errors import LONGEST, SkillSDError, UsageError, one_line, reason, shown
from skillsd.skills.summarize.queue import summarize_now
from skillsd.types import SummaryRequest, Task, Trajectory


def test_a_summariser_whose_failure_cannot_be_told_holds_nobody_up():
    class Failing:
        name = "failing"
        summarize = staticmethod(raising(Untellable()))

    episode = Trajectory("t", 1, 0, "p", [1])
    (summary,) = summarize_now(Failing(), [SummaryRequest(episode, Task("t"))], 1)
    assert (summary.skill, summary.error) == (None, "Untellable, which cannot be told")


def test_one_line_keeps_what_can_be_read_of_anything():
    assert one_line("\x1b[1;31mred\x1b[0m\r\n\ttext\x07 \x1b]0;title\x07end\x9b2J \u202eup") == "red text end up"
    assert one_line("a" * 1000, 20) == "a" * 11 + "..." + "a" * 6
    assert len(one_line("x\n" * 10**7)) == 200
    assert reason(ValueError()) == "ValueError"
    assert reason(UsageError("ours")) == "ours"
    assert shown(ring()) == "{'list': [{'list': [...]}]}" or "..." in shown(ring())
    assert shown(object()) == "<object object>"
    assert len(shown("y" * 10**6)) <= 80
    assert str(SkillSDError("a\nb" + "c" * 10**5)).startswith("a bccc")
    assert len(str(SkillSDError("a\nb" + "c" * 10**5))) == LONGEST


LOUD = """
import ctypes, os, subprocess, sys
print("imported")
from skillsd.envs import Score, Step, Task
class One:
    def reset(self, task):
        print("printed"); os.write(1, b"written\\n"); subprocess.run(["echo", "echoed"]); ctypes.CDLL(None).puts(b"put")
        return "Say something."
    def step(self, action):
        sys.stdout.write("more"); os.chdir("/")
        return Step("on", True, {"n": {1, 2}})
    def score(self): return Score(0.0, False, 0.0)
    def close(self): print("closed")
class Loud:
    name, max_turns = "loud", 3
    def tasks(self, split): print("asked"); return [Task(f"{split}{i}") for i in range(2)]
    def make(self): return One()
"""


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "embedded", "--env", "loud:Loud", "--limit", "1", "--json"],
        ["env", "check", "loud:Loud", "--json"],
        ["train", "sokoban-smoke", "--out", "out", "--json", "--set", "env.name=loud:Loud", "--set",
        "trainer.iterations=1",
         "--set", "eval.tasks=1", "--set", "rollout.tasks_per_iteration=2",
         "--set", "skills.summarizer=trajectory", "--set", "rollout.max_new_tokens=2"],
    ],
)  # fmt: skip
def test_what_an_environment_prints_never_reaches_standard_output(tmp_path, command):
    (tmp_path / "loud.py").write_text(LOUD)
    ran = subprocess.run([sys.executable, "-m", "skillsd", *command], cwd=tmp_path, capture_output=True, text=True)
    assert isinstance(json.loads(ran.stdout), dict), ran.stderr
    for said in ("imported", "printed", "written", "echoed", "put", "closed", "asked"):
        assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert (tmp_path / "out" / "report.html").is_file() == (command[0] == "train")

"""`skillsd env check` finds each fault that it names, one at a time, and nothing where nothing is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from skillsd.envs.check import check

GOOD = """
import random, threading, time
from skillsd.envs import Score, Step, Task
from skillsd.errors import UsageError

class World:
    shared = []
    def reset(self, task):
        self.task, self.turns, self.won = task, 0, False
        return f"Say {task.data['word']}."
    def step(self, action):
        if not self.won:
            self.turns += 1
            self.won = action == self.task.data["word"]
        return Step(f"turn {self.turns}", self.won, {"valid": True})
    def score(self):
        return Score(float(self.won), self.won, float(self.won))
    def close(self):
        pass

class Words:
    name, max_turns = "words", 4
    def tasks(self, split):
        if split not in ("train", "test"):
            raise UsageError("no such split")
        return [Task(f"{split}-{i}", {"word": f"{split}{i}"}) for i in range(3)]
    def make(self):
        return World()
"""

#: What replaces what in GOOD, and what the check must say.
FAULTS = [
    ("name, max_turns =", "name, turns =", "lacks max_turns"),
    ('"words", 4', '"", 4', "name is ''"),
    ('"words", 4', '"words", True', "max_turns is True"),
    ('"words", 4', '"words", 0', "max_turns is 0"),
    ("    def make(self):\n        return World()", "    make = 3", "make is no method"),
    ("    def close(self):\n        pass", "", "World lacks close"),
    ("return World()", "return World", "raised TypeError"),
    ("range(3)", "range(0)", "is empty"),
    ("        return [Task(", "        yield 1\n        return [Task(", "returned generator"),
    ("Task(f\"{split}-{i}\", {", "dict(id=f\"{split}-{i}\", data={", "holds a dict"),
    ('f"{split}-{i}"', "i", "a task's id is 0"),
    ('f"{split}-{i}"', "f'{split}'", "stands for several tasks"),
    ('f"{split}-{i}"', "f'{i}'", "3 ids are in train and test"),
    ('f"{split}-{i}"', "f'{split}-{i}-{random.random()}'", "gave other ids"),
    ('f"{split}-{i}"', "f'{split}-{i}-{hash(split)}'", "another process has other tasks"),
    ('"word": f"{split}{i}"', '"word": f"{split}{i}", "more": {1}', "is no JSON"),
    ('"word": f"{split}{i}"', '"word": f"{split}{i}", "more": (1,)', "changes through JSON"),
    ('raise UsageError("no such split")', "return []", "an unknown split was not refused"),
    ('raise UsageError("no such split")', "raise KeyError(split)", "raised KeyError"),
    ("return f\"Say {task.data['word']}.\"", "return ''", "returned ''"),
    ("return f\"Say {task.data['word']}.\"", "return None", "first user message"),
    ("return f\"Say {task.data['word']}.\"", "return f'Say {random.random()}'", "another prompt"),
    ("return f\"Say {task.data['word']}.\"", "self.shared.append(1); return 'Say it.' * (len(self.shared) < 5) + 'x'",
     "another prompt"),
    ("self.turns += 1", "self.turns += random.random()", "another answers"),
    ("self.turns += 1", "self.shared.append(1); self.turns = len(self.shared)", "another answers"),
    ("return Step(f", "int(action); return Step(f", "raised ValueError"),
    ("return Step(f", "action.encode(); return Step(f", "raised UnicodeEncodeError"),
    ("return Step(f", "assert len(action) < 1000; return Step(f", "raised AssertionError"),
    ("return Step(f", "raise SystemExit; return Step(f", "raised SystemExit"),
    ("return Step(f", "time.sleep(60); return Step(f", "no answer within"),
    ("return Step(f\"turn {self.turns}\"", "return Step(self.turns", "observation is int"),
    ("return Step(", "return (", "returned tuple"),
    ('{"valid": True}', '{"valid": "yes"}', "info['valid'] is 'yes'"),
    ('{"valid": True}', '{"action": 3}', "info['action'] is int"),
    ('{"valid": True}', '{"more": {1}}', "info is no JSON"),
    ("self.won, {", "0, {", "done is int"),
    ("self.won, {", "'no', {", "done is 'no'"),
    ("return Step(f\"turn {self.turns}\"", "return Step(b'turn'", "observation is bytes"),
    ("return Step(", "info = {}; info[0] = info; return Step('', True, info) or (", "no JSON (ValueError: Circular"),
    ('{"valid": True}', '{"events": "hit"}', "info['events'] is 'hit'"),
    ('{"valid": True}', "None", "info is None"),
    ("return Score(float(self.won)", "return Score(1e39", "reward is 1e+39"),
    ("self.won, float(self.won))", "'yes', float(self.won))", "success is 'yes'"),
    ('f"{split}-{i}"', "f'{split}\\n{i}'", "printable"),
    ('f"{split}-{i}"', "'x' * 300 + str(i)", "200 are the most"),
    ("        return [Task(", "        raise ValueError('a\\nb'); return [Task(", "raised ValueError: a b"),
    ("return Score(float(self.won)", "return Score(float('nan')", "reward is nan"),
    ("return Score(float(self.won)", "return Score('1'", "reward is str"),
    ("float(self.won))", "2.0)", "completion is 2"),
    ("float(self.won), self.won, float(self.won)", "1.0, True, 0.5", "success with completion 0.5"),
    ("float(self.won), self.won, float", "1.0, 1, float", "success is int"),
    ("return Score(float", "self.turns += 1; return Score(self.turns + float", "two calls in a row differ"),
    ("return Score(float", "self.turns / self.turns; return Score(float", "raised ZeroDivisionError"),
    ("        if not self.won:\n            self.turns += 1\n            self.won = action == self.task.data[\"word\"]",
     "        self.won = not self.won", "step after done: changed the score"),
    ("        pass", "        del self.task", "raised AttributeError"),
    ("        pass", "        assert not hasattr(self, 'shut'); self.shut = 1", "a second call fails"),
    ("    def make(self):\n        return World()", "    one = World()\n    def make(self):\n        return self.one",
     "same environment twice"),
    ("class World:", "class World(threading.local):", "raised AttributeError"),
]  # fmt: skip

SHARED = GOOD.replace(
    "self.task, self.turns, self.won = task, 0, False", "self.task, self.won = task, False; World.turns = 0"
).replace("self.turns += 1", "World.turns += 1")


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text):
        sys.modules.pop("checked_env", None)
        (tmp_path / "checked_env.py").write_text(text, encoding="utf-8")
        for cached in tmp_path.glob("__pycache__/*"):
            cached.unlink()
        return "checked_env:Words"

    return write


@pytest.mark.parametrize(("before", "after", "told"), FAULTS)
def test_each_fault_is_told(module, before, after, told):
    assert before in GOOD
    found = check(module(GOOD.replace(before, after)), {}, timeout=1.0)
    lines = [f"{f.check}: {f.message}" for f in found]
    assert any(told in line for line in lines), lines
    assert not any("\n" in line or len(line) > 320 for line in lines)


def test_shared_state_is_told(module):
    lines = [f.message for f in check(module(SHARED), {}, timeout=1.0)]
    assert any("disturb one another when played in turns" in line for line in lines), lines


def test_nothing_is_found_where_nothing_is_wrong(module):
    assert check(module(GOOD), {}) == []
    assert check("sokoban", {"variant": "one_box"}) == []


def test_the_command_tells_what_it_found_and_exits_by_it(module, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "skillsd", "env", "check", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)

    module(GOOD.replace("float(self.won))", "2.0)"))
    bad = run("checked_env:Words")
    assert bad.returncode == 1
    assert "completion is 2: keep it in [0, 1]" in bad.stdout
    assert "Traceback" not in bad.stderr
    told = json.loads(run("checked_env:Words", "--json").stdout)
    assert not told["ok"]
    assert {f["level"] for f in told["findings"]} == {"error"}
    module(GOOD)
    assert run("checked_env:Words").returncode == 0
    for arguments in (["nothing"], ["checked_env:No"], ["checked_env:Words", "--option", "a=1"], []):
        assert run(*arguments).returncode == 2


def test_the_example_is_right(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2] / "examples")
    assert check("doors:Doors", {}) == []

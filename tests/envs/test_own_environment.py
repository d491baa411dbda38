"""An environment and a summariser of one's own, as the README and the docs write them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from skillsd.analysis.evaluate import evaluate, open_policy
from skillsd.analysis.explain import explain
from skillsd.analysis.report import write_report
from skillsd.config import load_config
from skillsd.envs.check import examine
from skillsd.errors import SkillSDError, UsageError
from skillsd.runs.folder import RunDir
from skillsd.skills.bank import SkillBank
from skillsd.training.loop import train

ROOT = Path(__file__).parents[2]
#: Less of everything, so that a written command takes seconds.
SMALL = ["trainer.iterations=1", "eval.tasks=2", "rollout.tasks_per_iteration=2", "rollout.group_size=2",
         "rollout.max_new_tokens=3", "trainer.grad_norms_every=0", "optim.minibatches=1"]  # fmt: skip


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """A folder with the examples, and the doors under the names that the README uses."""
    shutil.copytree(ROOT / "examples", tmp_path, dirs_exist_ok=True)
    (tmp_path / "your_module.py").write_text("from doors import Doors as YourTasks\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def command(page, wanted):
    """The one line of ``page`` with ``wanted`` in it, as words."""
    (line,) = [
        line for line in (ROOT / page).read_text("utf-8").splitlines() if wanted in line and line.startswith("skillsd")
    ]
    return shlex.split(line, comments=True)[1:]


def run(words, small=True):
    more = [word for setting in SMALL for word in ("--set", setting)] if small else []
    return subprocess.run([sys.executable, "-m", "skillsd", *words, *more], capture_output=True, text=True)


def test_the_readmes_line_trains_on_an_environment_of_ones_own(examples):
    ran = run(command("README.md", "env.name=your_module:YourTasks"))
    assert ran.returncode == 0, ran.stderr
    assert load_config("runs/mine/config.toml").env.options == {}
    assert (examples / "runs/mine/report.html").is_file()


def test_the_summariser_in_the_docs_writes_skills(examples):
    page = (ROOT / "docs/summarisers.md").read_text("utf-8")
    (code,) = re.findall(r"## Your own\n.*?```python\n(.*?)```", page, re.DOTALL)
    Path("my_summariser.py").write_text(code)
    ran = run(command("docs/summarisers.md", "my_summariser:Facts"))
    assert ran.returncode == 0, ran.stderr
    bank = SkillBank("runs/facts/skills.sqlite")
    told = [stored.skill for stored in bank.skills()]
    bank.close()
    assert told
    assert all("turns of task train-" in skill.success_analysis for skill in told)


def test_the_fields_that_the_docs_name_are_there():
    from skillsd.types import Trajectory, Turn

    page = (ROOT / "docs/summarisers.md").read_text("utf-8")
    named = re.findall(r"^\| (`(?:trajectory|task)\..*?) \|", page, re.MULTILINE)
    fields = [field.rpartition(".")[2] for row in named for field in re.findall(r"`([\w.]+)`", row)]
    assert {"prompt", "turns", "success", "status", "logps"} <= set(fields)
    turn = Turn("a", "b", True, {})
    trajectory = Trajectory("t", 1, 0, "p", [1], [2], [1], [-1.0], [turn])
    for field in fields:
        assert field in ("id", "data") or hasattr(trajectory, field)


@pytest.mark.parametrize("method", ["skill_sd", "skill_sd_hindsight", "skill_augmented"])
def test_rules_with_an_environment_of_ones_own_are_refused_before_anything_is_trained(examples, method):
    config = load_config("sokoban-smoke", ["env.name=doors:Doors", f"method={method}", *SMALL])
    with pytest.raises(
        UsageError, match=r"skills\.summarizer = rules: env 'doors:Doors' brings no rules.*docs/summarisers"
    ):
        train(config, "runs/x")
    assert not RunDir("runs/x").read_metrics()


RULES = """
from doors import Doors
from skillsd.skills import Skill


class Told:
    name = "told"

    def summarize(self, request):
        said = ", ".join(turn.action for turn in request.trajectory.turns) or "nothing"
        return Skill(success_analysis=said, mistake_analysis="None.", golden_workflow="Go through the door.")


class WithRules(Doors):
    def rules(self):
        return Told()
"""


def test_an_environment_may_bring_its_own_rules(examples):
    Path("ruled.py").write_text(RULES, "utf-8")
    assert examine("ruled:WithRules", {}).notes == []
    config = load_config("sokoban-smoke", ["env.name=ruled:WithRules", *SMALL])
    train(config, "runs/ruled")
    with closing(SkillBank("runs/ruled/skills.sqlite")) as bank:
        assert {stored.skill.golden_workflow for stored in bank.skills()} == {"Go through the door."}


def test_methods_without_skills_need_no_summariser(examples):
    config = load_config("sokoban-smoke", ["env.name=doors:Doors", "method=grpo", *SMALL])
    assert train(config, "runs/x").iterations == 1


def test_the_check_names_the_setting_that_a_run_will_need(examples):
    (note,) = examine("doors:Doors", {}).notes
    assert "--set skills.summarizer=" in note
    assert examine("sokoban", {"variant": "one_box"}).notes == []
    ran = run(["env", "check", "doors:Doors", "--json"], small=False)
    assert json.loads(ran.stdout) == {"ok": True, "findings": [], "notes": [note]}
    assert "skills.summarizer" in run(["env", "check", "doors:Doors"], small=False).stdout


def test_probe_works_on_a_bare_model_with_an_environment_of_ones_own(examples):
    words = ["probe", "embedded", "--env", "doors:Doors", "--limit", "2", "--samples", "2", "--json"]
    ran = run(words, small=False)
    assert ran.returncode == 0, ran.stderr
    rows = {row["kind"]: row for row in json.loads(ran.stdout)}
    assert rows["no skill"]["tasks"] == 2
    assert rows["own failure"]["tasks"] + rows["own success"]["tasks"] >= 2, "raw trajectories stand in for rules"
    assert "trajectory is used" in " ".join(ran.stderr.split())
    refused = run([*words, "--set", "optim.lr=1"], small=False)
    assert refused.returncode == 2
    assert "probe does not use the setting 'optim.lr'" in refused.stderr
    Path("silent.py").write_text(
        "class S:\n    name = 's'\n    def summarize(self, request):\n        raise ValueError('no')\n"
    )
    given = run([*words, "--set", "skills.summarizer=silent:S"], small=False)
    assert given.returncode == 0, given.stderr
    assert "ValueError: no" in given.stderr


STRANGE = """
import datetime, itertools, math, pathlib, random
import numpy as np, torch
from skillsd.envs import Score, Step, Task
COUNT = itertools.count()
class One:
    def reset(self, task):
        self.number, self.turn = next(COUNT), 0
        task.data["mine"] = object()
        return np.str_("Say \\ud800 something.")
    def step(self, action):
        self.turn += 1
        random.seed(0); np.random.seed(0); torch.manual_seed(0)
        info = {"valid": np.bool_(True), "reward": np.float32("nan"), "seen": {b"a", 1}, 5: pathlib.Path("/a")}
        info |= {"when": datetime.date(2026, 1, 2), "events": ("hit",), "frame": np.zeros((64, 64, 3))}
        info["tensor"] = torch.ones(2)
        info["itself"] = info
        if self.number % 7 == 3:
            raise ValueError("two\\nlines \\x1b[31m")
        return Step("on \\udfff", np.bool_(self.turn == 2), info)
    def score(self):
        reward = math.nan if self.number % 5 == 2 else np.float64(self.number % 2)
        return Score(reward, np.bool_(self.number % 2), np.float32(0.25))
    def close(self):
        raise RuntimeError("closed")
class Tasks:
    name, max_turns = "strange", np.int64(3)
    def tasks(self, split):
        return np.array([Task(np.str_(f"{split}/{i}"), {"scenario": [1]}) for i in range(2)], dtype=object)
    def make(self): return One()
    def render_html(self, observation): raise KeyError("no picture")
"""


def test_a_run_on_strange_but_usable_answers_can_be_looked_at_in_every_way(examples, capsys):
    Path("strange.py").write_text(STRANGE)
    config = load_config("sokoban-smoke", ["env.name=strange:Tasks", "skills.summarizer=trajectory", *SMALL,
                                           "rollout.group_size=8", "trainer.iterations=2"])  # fmt: skip
    warnings = []
    train(config, "runs/x", listen=lambda kind, data: warnings.append(data["text"]) if kind == "warning" else None)
    assert "eval.panel_every: strange:Tasks has no reference solutions: no teacher is measured" in warnings
    assert any("(ValueError: two lines)" in text for text in warnings)
    assert any("(reward is nan: make it finite)" in text for text in warnings)
    run_dir = RunDir("runs/x")
    assert sum(row["dropped"] for row in run_dir.read_metrics()) > 0
    info = run_dir.read_trajectories(1)[0].turns[0].info
    assert info == {
        "valid": True, "reward": None, "seen": ["a", 1], "5": "/a", "when": "2026-01-02", "events": ["hit"],
        "frame": "ndarray of shape (64, 64, 3)", "tensor": [1.0, 1.0], "itself": "(itself)",
    }  # fmt: skip
    assert write_report("runs/x").stat().st_size > 1000
    assert explain("runs/x").actions
    assert evaluate("runs/x", limit=1).tasks == 1


def test_an_evaluation_in_which_nothing_was_played_is_an_error_not_a_result(examples):
    Path("gone.py").write_text(
        "from doors import Door, Doors\nclass Gone(Door):\n    def reset(self, task): raise OSError('server away')\n"
        "class Away(Doors):\n    def make(self): return Gone()\n"
    )
    with pytest.raises(SkillSDError, match=r"every episode was dropped \(OSError: server away\)"):
        evaluate("embedded", env="gone:Away", limit=2)


def test_options_of_a_runs_own_environment_are_laid_over_those_that_it_has():
    assert open_policy("embedded", env_options={"max_turns": 3})[2].env.options == {
        "variant": "one_box",
        "max_turns": 3,
    }
    other = open_policy("embedded", env="sokoban", env_options={"variant": "paper"})
    assert (other[1].max_turns, other[2].env.options) == (40, {"variant": "paper"})


def test_a_resume_with_other_tasks_is_refused(examples):
    Path("drifting.py").write_text(
        "from pathlib import Path\nfrom doors import Door, Doors\nfrom skillsd.envs import Task\n"
        "class Drifting(Doors):\n    def tasks(self, split):\n"
        "        return [Task(Path('prefix').read_text() + t.id, t.data) for t in super().tasks(split)]\n"
    )
    Path("prefix").write_text("a")
    settings = ["env.name=drifting:Drifting", "skills.summarizer=trajectory", *SMALL]
    train(load_config("sokoban-smoke", settings), "runs/x")
    Path("prefix").write_text("b")
    longer = load_config("sokoban-smoke", [*settings, "trainer.iterations=2"])
    with pytest.raises(UsageError, match="its training tasks are not those that the run began with"):
        train(longer, "runs/x", resume=True)
    with pytest.raises(UsageError, match=r"has no task 'atrain-.' any more"):
        explain("runs/x")
    Path("prefix").write_text("a")
    assert train(longer, "runs/x", resume=True).iterations == 2


def test_an_environment_that_seeds_everything_changes_no_result(examples):
    plain = (
        "from skillsd.envs.sokoban.taskset import Sokoban, SokobanTasks as Base\nclass SokobanTasks(Base):\n    pass\n"
    )
    meddling = plain.replace("pass", "def make(self):\n        return World()") + (
        "import random, numpy as np, torch\n"
        "class World(Sokoban):\n"
        "    def step(self, action):\n"
        "        random.seed(1); np.random.seed(1); torch.manual_seed(1); torch.rand(3)\n"
        "        return super().step(action)\n"
    )
    ends = []
    for name, code in (("plain_env", plain), ("meddling_env", meddling)):
        Path(f"{name}.py").write_text(code)
        small = [setting for setting in SMALL if "minibatches" not in setting]
        options = [f"env.name={name}:SokobanTasks", "env.options.variant=one_box", "optim.minibatches=3", *small]
        train(load_config("sokoban-smoke", options), f"runs/{name}", evaluate=False)
        run_dir = RunDir(f"runs/{name}")
        weights = (run_dir.checkpoints / "step-000001" / "model.safetensors").read_bytes()
        ends.append((run_dir.read_trajectories(1), weights))
    assert ends[0] == ends[1]

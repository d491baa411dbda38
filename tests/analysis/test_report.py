"""The report of an environment that only has words."""

from __future__ import annotations

import os

from skillsd.analysis.report import write_report
from skillsd.config import load_config
from skillsd.runs.folder import RunDir
from skillsd.skills.bank import SkillBank
from skillsd.types import Skill, Trajectory, Turn


class Words:
    """A task set without pictures."""

    name, max_turns = "words", 3

    def tasks(self, split):
        return []

    def make(self):
        raise NotImplementedError


def test_a_conversation_is_shown_in_full_and_never_as_markup(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    run = RunDir(tmp_path / "run")
    run.create(load_config("sokoban-smoke", ["env.name=test_report:Words", "env.options={}"]))
    turns = [
        Turn("```python\nprint('<b>')\n```", "<script>alert(1)</script>", True, {}),
        Turn("second", "x" * 100_000, True, {}),
    ]
    run.write_trajectories(1, [Trajectory("t", 1, 0, "Do <this>", [1], turns=turns)])
    run.append_metrics({"iteration": 1, "accuracy": 0.0, "env_refused": 3})
    page = write_report(run.path).read_text()
    assert page.index("Do &lt;this&gt;") < page.index("&lt;b&gt;") < page.index("&lt;script&gt;alert(1)")
    assert "<script>alert" not in page
    assert 'class="agent"' in page
    assert "x" * 6000 in page
    assert "x" * 6001 not in page
    assert "Events in the environment" in page


def test_first_skills_are_shown_also_where_the_environment_is_not_installed(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create(load_config("sokoban-smoke", ["env.name=gone:Tasks", "env.options={}"]))
    run.append_metrics({"iteration": 1, "accuracy": 0.0})
    run.write_trajectories(1, [Trajectory("t", 1, 0, "Do it", [1], turns=[Turn("said", "heard", True, {})])])
    bank = SkillBank(run.bank)
    for number in range(12):
        text = f"note {number} <i>"
        skill = Skill(success_analysis=text, mistake_analysis="avoid", golden_workflow="go")
        assert bank.add(f"task {number % 3}", skill, 1.0)
    bank.close()
    page = write_report(run.path).read_text()
    assert "heard" in page
    first = page[page.index("First skills kept") :]
    assert [f"note {n} &lt;i&gt;" in first for n in range(12)] == [n < 3 for n in range(12)]


def test_numbers_that_no_chart_can_hold_are_left_out_and_told(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create(load_config("sokoban-smoke"))
    run.metrics.write_text('{"iteration": 1, "accuracy": 1.7e308, "completion": -1.7e308, "loss_policy": 1e29}\n')
    told = []
    assert "Losses" in write_report(run.path, told.append).read_text("utf-8")
    assert "'accuracy' of line 1" in told[0]
    assert "'completion' of line 1" in told[0]


def test_a_chart_that_cannot_be_drawn_is_left_out_and_told(tmp_path, monkeypatch):
    run = RunDir(tmp_path / "run")
    run.create(load_config("sokoban-smoke"))
    run.metrics.write_text('{"iteration": 1, "accuracy": 0.5}\n')

    def fail(*arguments, **named):
        raise OverflowError("cannot\\nbe drawn")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    told = []
    page = write_report(run.path, told.append).read_text("utf-8")
    assert [text for text in told if "the chart 'Training episodes' cannot be drawn (OverflowError" in text] == told
    assert "cannot be drawn" in page

"""Tables and pages of a comparison, from made-up cells whose truth is known."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from skillsd.compare.cell import Cell, Point, SplitResult, load_cell, save_cell
from skillsd.compare.report import summarize, write
from skillsd.errors import SkillSDError

TASKS = [f"task-{i}" for i in range(40)]


def split(rate, rng):
    success = [int(rng.random() < rate) for _ in TASKS]
    return SplitResult(task_ids=TASKS, success=success, completion=[max(s, 0.5) for s in success])


def cell(row, seed, rate, curve=True):
    rng = np.random.default_rng([seed, len(row)])
    points = [
        Point(iteration=i, episodes=64 * i, accuracy=rate * i / 20, eval_accuracy=rate * i / 20 if i % 4 == 0 else None)
        for i in range(1, 21)
    ]
    return Cell(
        row=row, seed=seed, method="grpo", overrides={"optim": {"lr": 0.1}}, after={"test": split(rate, rng)},
        curve=points if curve else [], episodes=1280, iterations=20 if curve else 0,
        seconds={"rollout": 40.0, "update": 20.0, "total": 70.0} if curve else {}, versions={"python": "3"},
    )  # fmt: skip


def made():
    rates = {"base": 0.1, "grpo": 0.4, "skill_sd": 0.8, "<script>alert(1)</script> | λ": 0.5, "$x^": 0.3}
    return [
        cell(row, seed, rate, row != "base") for row, rate in rates.items() for seed in range(1 if row == "base" else 5)
    ]


def test_numbers():
    cells = made()
    table = summarize(cells, ["grpo", "opd"], ["test"])["splits"]["test"]
    ours = [c for c in cells if c.row == "skill_sd"]
    assert table["skill_sd"]["accuracy"]["mean"] == pytest.approx(np.mean([c.after["test"].success for c in ours]))
    assert table["skill_sd"]["accuracy"]["seeds"] == 5
    gap = table["skill_sd"]["against"]["grpo"]
    assert gap["mean"] == pytest.approx(table["skill_sd"]["accuracy"]["mean"] - table["grpo"]["accuracy"]["mean"])
    assert gap["low"] > 0
    assert gap["p"] <= gap["p_holm"] < 0.05
    assert table["grpo"]["against"] == {}
    assert table["base"]["against"] == {}
    assert "opd" not in gap


def test_sample_efficiency_and_cost():
    summary = summarize(made(), ["grpo"], ["test"])
    # grpo's curve is a line from 0.08 at 256 episodes to 0.4 at 1280.
    assert summary["reach"]["grpo"]["20"]["episodes"] == pytest.approx(640)
    assert summary["reach"]["grpo"]["50"] == {"episodes": None, "seeds": 0, "of": 5}
    assert "base" not in summary["reach"]
    assert summary["cost"]["grpo"]["rollout"] == pytest.approx(2.0)
    assert summary["cost"]["grpo"]["other"] == pytest.approx(0.5)
    assert summary["hours"] == pytest.approx(20 * 70 / 3600)


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def test_files(tmp_path):
    write(made(), tmp_path, baselines=["grpo"], splits=["test"])
    assert json.loads((tmp_path / "results.json").read_text())["splits"]["test"]["skill_sd"]["against"]["grpo"]
    markdown = (tmp_path / "compare.md").read_text("utf-8")
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    table = lines[: next(i for i, line in enumerate(lines) if "10 %" in line)]
    assert len({line.count("|") for line in table}) == 1, markdown
    assert len(table) == 2 + 5
    page = Page()
    page.feed((tmp_path / "compare.html").read_text("utf-8"))
    assert "script" not in page.tags
    assert any("<script>alert(1)</script>" in text for text in page.text)
    assert page.tags.count("img") == 4
    assert "http" not in (tmp_path / "compare.html").read_text("utf-8").replace("http-equiv", "")


def test_without_curves_and_baseline(tmp_path):
    write(
        [cell("base", 0, 0.5, curve=False), cell("opd", 3, 0.5, curve=False)],
        tmp_path,
        baselines=["grpo"],
        splits=["test"],
    )
    assert "opd" in (tmp_path / "compare.md").read_text("utf-8")


def test_cells_survive_their_file(tmp_path):
    original = made()[3]
    save_cell(original, tmp_path / "cell.json")
    assert load_cell(tmp_path / "cell.json") == original


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"row": 3}', b"[]"])
def test_a_damaged_cell_is_one_clear_line(tmp_path, content):
    (tmp_path / "cell.json").write_bytes(content)
    with pytest.raises(SkillSDError, match=r"cell\.json: not a finished cell") as failure:
        load_cell(tmp_path / "cell.json")
    assert "\n" not in str(failure.value)

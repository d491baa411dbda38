"""Tables and pages of a comparison, from made-up cells whose truth is known."""

import json
import re
import unicodedata
from html.parser import HTMLParser

import numpy as np
import pytest

from skillsd.compare.cell import Cell, Point, SplitResult, load_cell, save_cell
from skillsd.compare.report import summarize, write
from skillsd.compare.stats import mean_interval
from skillsd.errors import SkillSDError

TASKS = [f"task-{i}" for i in range(40)]
NASTY = "<script>alert(1)</script> | λ"


def split(rate, rng, tasks=TASKS):
    success = [int(rng.random() < rate) for _ in tasks]
    return SplitResult(task_ids=tasks, success=success, completion=[max(s, 0.5) for s in success])


def cell(row, seed, rate, curve=True, **changes):
    rng = np.random.default_rng([seed, len(row)])
    points = [
        Point(
            iteration=i, episodes=64 * i, accuracy=rate * i / 20,
            eval_accuracy=rate * i / 20 if i % 4 == 0 else None,
            teacher_accuracy=0.9 if i % 10 == 0 and row == "skill_sd" else None,
        )
        for i in range(1, 21)
    ]  # fmt: skip
    values = {
        "row": row, "seed": seed, "method": "grpo", "overrides": {"optim": {"lr": 0.1}},
        "after": {"test": split(rate, rng)}, "curve": points if curve else [],
        "episodes": 1280, "iterations": 20 if curve else 0,
        "seconds": {"rollout": 40.0, "update": 20.0, "checkpoint": 2.0, "total": 70.0} if curve else {},
        "versions": {"python": "3"},
    }  # fmt: skip
    return Cell(**{**values, **changes})


def made():
    rates = {"grpo": 0.4, "skill_sd": 0.8, NASTY: 0.5, "$x^": 0.3}
    trained = [cell(row, seed, rate) for seed in range(5) for row, rate in rates.items()]
    return [*trained, cell("base", 0, 0.1, curve=False)]


def matrix(cells, row):
    return np.array([c.after["test"].success for c in cells if c.row == row], dtype=float)


def test_numbers():
    cells = made()
    table = summarize(cells, ["grpo", "opd"], ["test"])["splits"]["test"]
    assert list(table) == ["base", "grpo", "skill_sd", NASTY, "$x^"]  # the untrained model first
    ours = matrix(cells, "skill_sd")
    found = table["skill_sd"]["accuracy"]
    expected = mean_interval(dict(enumerate(ours)))
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((ours.mean(), expected.low, expected.high))
    assert found["seeds"] == 5
    assert table["skill_sd"]["tasks"] == 40
    assert table["skill_sd"]["completion"]["mean"] == pytest.approx(np.maximum(ours, 0.5).mean())
    assert table["skill_sd"]["by_seed"]["3"] == pytest.approx(ours[3].mean())
    gap = table["skill_sd"]["against"]["grpo"]
    assert gap["mean"] == pytest.approx(ours.mean() - matrix(cells, "grpo").mean())
    assert gap["low"] > 0
    assert gap["p"] <= gap["p_holm"] < 0.05
    assert gap["p_holm"] == pytest.approx(3 * gap["p"])  # the smallest of three
    assert list(table["skill_sd"]["against"]) == ["grpo"]  # there is no opd
    assert table["grpo"]["against"] == {}
    assert table["base"]["against"] == {}
    assert table["base"]["accuracy"]["notes"] == ["untrained: spread over tasks alone"]


def test_the_untrained_model_as_a_baseline_is_the_same_for_every_seed():
    cells = made()
    gap = summarize(cells, ["base"])["splits"]["test"]["grpo"]["against"]["base"]
    assert gap["mean"] == pytest.approx(matrix(cells, "grpo").mean() - matrix(cells, "base").mean())
    assert (gap["seeds"], gap["notes"]) == (5, [])


def test_rows_with_fewer_seeds_are_compared_on_those():
    cells = [c for c in made() if c.row == "grpo" or (c.row == "skill_sd" and c.seed in (1, 4))]
    gap = summarize(cells, ["grpo"])["splits"]["test"]["skill_sd"]["against"]["grpo"]
    expected = (matrix(cells, "skill_sd") - matrix(cells, "grpo")[[1, 4]]).mean()
    assert (gap["mean"], gap["seeds"]) == (pytest.approx(expected), 2)
    assert any("2 common seeds" in note for note in gap["notes"])


def test_sample_efficiency_and_cost():
    summary = summarize(made(), ["grpo"], ["test"])
    # grpo's curve is a line from 0.08 at 256 episodes to 0.4 at 1280.
    assert list(summary["reach"]["grpo"]) == ["20", "40", "60", "80"]
    assert summary["reach"]["grpo"]["20"] == {
        "episodes": pytest.approx(640), "at_first": False,
        "low": pytest.approx(640), "high": pytest.approx(640), "seeds": 5, "of": 5,
    }  # fmt: skip
    assert summary["reach"]["grpo"]["60"]["episodes"] is None
    assert summary["reach"]["grpo"]["60"]["seeds"] == 0
    assert "base" not in summary["reach"]
    cost = summary["cost"]["grpo"]
    assert (cost["rollout"], cost["update"], cost["other"]) == pytest.approx((2.0, 1.0, 0.5))
    assert cost["total"] == pytest.approx(3.6)  # saving checkpoints comes on top
    assert summary["hours"] == pytest.approx(20 * 72 / 3600)


VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Fails for tags that do not match; remembers what a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.ids, self.attributes = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(out):
    return Page((out / "compare.html").read_text("utf-8"))


def test_the_page(tmp_path):
    write(made(), tmp_path, baselines=["grpo"], splits=["test"])
    page = page_of(tmp_path)
    assert "script" not in page.tags
    assert page.text.count(NASTY) >= 8  # tables and figures
    assert page.tags.count("svg") == 5  # forest, held-out, training, teacher, cost
    assert len(page.ids) == len(set(page.ids))
    links = [value for _, name, value in page.attributes if name in ("src", "href", "xlink:href") and value]
    assert all(value.startswith("#") and value[1:] in page.ids for value in links)
    text = (tmp_path / "compare.html").read_text("utf-8")
    assert "http" not in text
    assert all(name in page.ids for name in re.findall(r"url\(#([^)]+)\)", text))


def cells_of(line):
    return [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_markdown(tmp_path):
    summary = write([*made(), cell("漢字 の 行", 0, 0.5)], tmp_path, baselines=["grpo"], splits=["test"])
    text = (tmp_path / "compare.md").read_text("utf-8")
    results = text.split("## Accuracy on test")[1].split("###")[0]
    lines = [line for line in results.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 6
    assert len({len(cells_of(line)) for line in lines}) == 1
    widths = {sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line) for line in lines}
    assert len(widths) == 1  # the columns line up
    row = next(cells_of(line) for line in lines if "skill_sd" in line)
    found = summary["splits"]["test"]["skill_sd"]["accuracy"]
    assert row[:4] == [
        "skill_sd", "5", f"{100 * found['mean']:.1f}", f"{100 * found['low']:.1f} to {100 * found['high']:.1f}",
    ]  # fmt: skip
    against = text.split("### Accuracy against grpo")[1].split("##")[0]
    gap = summary["splits"]["test"]["skill_sd"]["against"]["grpo"]
    row = next(cells_of(line) for line in against.splitlines() if "skill_sd" in line)
    assert row[2] == f"{100 * gap['mean']:+.1f}"
    assert row[4:6] == ["<0.001", "<0.001"]
    assert "640 (640 to 640)" in text
    assert "<script>" not in text
    assert "95 % interval says" in text


def test_results_are_json(tmp_path):
    summary = write(made(), tmp_path, baselines=["grpo"], splits=["test"])
    assert json.loads((tmp_path / "results.json").read_text()) == summary


def test_without_curves_and_baseline(tmp_path):
    cells = [cell("base", 0, 0.5, curve=False), cell("opd", 3, 0.5, curve=False)]
    summary = write(cells, tmp_path / "new", baselines=["grpo"], splits=["test"])
    assert summary["baselines"] == []
    assert summary["reach"] == summary["cost"] == {}
    assert "opd" in (tmp_path / "new" / "compare.md").read_text("utf-8")
    assert page_of(tmp_path / "new").tags.count("svg") == 1
    assert "one seed: spread over tasks alone" in page_of(tmp_path / "new").text


@pytest.mark.parametrize(
    "name",
    ["_hidden", "$\\frac{1$", "</svg><b>", 'a"b', "a\nb\x07", "x" * 300, "😀 漢字", "%s {{ name }}", "]]>", "&amp;"],
)
def test_rows_may_be_named_anything(tmp_path, name):
    write([cell("grpo", 0, 0.4), cell(name, 0, 0.5)], tmp_path)
    page = page_of(tmp_path)
    assert "b" not in page.tags
    assert name in page.text
    shown = " ".join("".join(c if c.isprintable() else " " for c in name).split())[:20]
    assert sum(shown in text for text in page.text) >= 5  # tables and figures


def test_only_the_base_and_no_split(tmp_path):
    write([cell("base", 0, 0.5, curve=False)], tmp_path)
    write([cell("base", 0, 0.5, curve=False)], tmp_path, splits=["train"])
    assert "No row was evaluated" in (tmp_path / "compare.html").read_text("utf-8")


def test_what_cannot_be_compared_is_told_clearly():
    with pytest.raises(SkillSDError, match="no cell is finished"):
        summarize([])
    with pytest.raises(SkillSDError, match="two cells with seed 0"):
        summarize([cell("grpo", 0, 0.5), cell("grpo", 0, 0.6)])
    other = split(0.5, np.random.default_rng(0), TASKS[::-1])
    with pytest.raises(SkillSDError, match="different tasks of 'test'"):
        summarize([cell("grpo", 0, 0.5), cell("opd", 0, 0.6, after={"test": other})])
    short = SplitResult(task_ids=TASKS, success=[1], completion=[1.0])
    with pytest.raises(SkillSDError, match="seed 3"):
        summarize([cell("grpo", 0, 0.5), cell("opd", 3, 0.6, after={"test": short})])


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

"""Tables and pages of a comparison, from made-up cells whose truth is known."""

import json
import re
import unicodedata
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from cells import NASTY, TASKS, cell, made, split
from skillsd.analysis.compare.cell import Point, SplitResult, load_cell, save_cell
from skillsd.analysis.compare.report import summarize, write
from skillsd.analysis.compare.stats import mean_interval
from skillsd.errors import SkillSDError
from skillsd.system.terminal import printable


def matrix(cells, row):
    return np.array([c.after["test"].success for c in cells if c.row == row], dtype=float)


def test_the_numbers_are_those_of_the_cells():
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


def test_sample_efficiency_and_cost_are_those_by_hand():
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


def learner(row, seed, points):
    """A cell that was evaluated at ``points``, and trained one iteration further."""
    last = max((episodes for episodes, _ in points), default=0) + 64
    curve = [Point(iteration=n, episodes=e, accuracy=0.5, eval_accuracy=a) for n, (e, a) in enumerate(points, 1)]
    curve.append(Point(iteration=len(curve) + 1, episodes=last, accuracy=0.5))
    return cell(row, seed, 0.5).model_copy(update={"curve": curve})


def learners(*rows):
    return [
        learner(row, seed, points)
        for row, seeds in rows
        for seed, points in enumerate(seeds)
    ]  # fmt: skip


GRPO = ("grpo", [[(0, 0.2), (100, 0.2), (200, 0.4)], [(0, 0.1), (200, 0.3)]])
#: Evaluated at other episodes, and only from 100 on.
OURS = ("ours", [[(100, 0.4), (300, 0.8)], [(100, 0.5), (150, 0.5), (250, 0.5)]])


def test_learning_speed_is_the_one_by_hand_in_every_form(tmp_path):
    base = cell("base", 0, 0.1, curve=False)
    summary = write([base, *learners(GRPO, OURS)], tmp_path, baselines=["grpo", "base"])
    speed = summary["speed"]
    assert (speed["first"], speed["last"]) == (100, 200)
    assert list(speed["rows"]) == ["grpo", "ours"]
    grpo, ours = speed["rows"]["grpo"], speed["rows"]["ours"]
    # By hand, from 100 to 200: 0.2 to 0.4; 0.2 to 0.3; 0.4 to 0.6; 0.5 throughout.
    assert grpo["by_seed"] == {"0": pytest.approx(0.3), "1": pytest.approx(0.25)}
    assert ours["by_seed"] == {"0": pytest.approx(0.5), "1": pytest.approx(0.5)}
    half = 12.7062 * 0.025  # the standard error of two values that are 0.05 apart
    assert (grpo["mean"], grpo["low"], grpo["high"]) == pytest.approx((0.275, 0, 0.275 + half), abs=1e-4)
    assert (ours["low"], ours["notes"]) == (None, ["all seeds equal: no interval"])
    gap = ours["against"]["grpo"]  # 0.2 and 0.25
    assert (gap["mean"], gap["low"], gap["high"]) == pytest.approx((0.225, 0.225 - half, 0.225 + half), abs=1e-4)
    assert gap["p"] == gap["p_holm"] == pytest.approx(1 - 2 / np.pi * np.arctan(9))
    assert list(ours["against"]) == ["grpo"]
    assert grpo["against"] == {}
    assert json.loads((tmp_path / "results.json").read_text())["speed"] == speed

    text = (tmp_path / "compare.md").read_text("utf-8")
    places = [
        text.index(part)
        for part in (
            "## Accuracy on test", "## Held-out accuracy", "### Mean held-out accuracy during training\n",
            "### Mean held-out accuracy during training against grpo", "### Training episodes until",
        )
    ]  # fmt: skip
    assert places == sorted(places)
    lines = text[places[3] : places[4]].splitlines()
    row = next(cells_of(line) for line in lines if line.startswith("| ours"))
    assert row == ["ours", "2", "+22.5", f"{22.5 - 100 * half:+.1f} to {22.5 + 100 * half:+.1f}", "0.070", "0.070"]
    assert "from 100 to 200 training episodes" in text
    shown = page_of(tmp_path).text
    assert "Mean held-out accuracy during training against grpo, percentage points" in shown
    assert shown.index("Mean held-out accuracy during training") < shown.index(
        "Training episodes until the held-out accuracy is reached"
    )


def test_learning_speed_is_corrected_for_the_number_of_rows():
    other = ("other", [[(100, 0.3), (200, 0.3)], [(100, 0.4), (200, 0.4)]])
    alone = ("alone", [[(100, 0.9), (200, 0.9)]])  # one seed: not tested, so not counted
    rows = summarize(learners(GRPO, OURS, other, alone))["speed"]["rows"]
    ours, other, alone = (rows[name]["against"]["grpo"] for name in ("ours", "other", "alone"))
    assert ours["p_holm"] == pytest.approx(2 * ours["p"])
    assert other["p_holm"] == pytest.approx(other["p"])  # 0 and 0.15: p is 0.5
    assert (alone["p"], alone["p_holm"]) == (None, None)


def test_learning_speed_with_one_seed_has_no_interval(tmp_path):
    one = [(name, seeds[:1]) for name, seeds in (GRPO, OURS)]
    rows = write(learners(*one), tmp_path)["speed"]["rows"]
    gap = rows["ours"]["against"]["grpo"]
    assert (gap["mean"], gap["low"], gap["p"], gap["p_holm"]) == (pytest.approx(0.2), None, None, None)
    assert rows["grpo"]["notes"] == gap["notes"] == ["one seed: no interval"]
    text = (tmp_path / "compare.md").read_text("utf-8").split("### Mean held-out accuracy during training against")[1]
    row = next(cells_of(line) for line in text.splitlines() if line.startswith("| ours"))
    assert row == ["ours", "1", "+20.0", "", "", "", "one seed: no interval"]


def test_rows_without_a_curve_have_no_learning_speed(tmp_path):
    never, once = ("never", [[], []]), ("once", [[(100, 0.3)], [(100, 0.3)]])
    rows = summarize(learners(GRPO, never, once))["speed"]["rows"]
    assert list(rows) == ["grpo"]
    assert summarize(learners(never, GRPO), ["never"])["speed"]["rows"]["grpo"]["against"] == {}
    later = ("later", [[(300, 0.3), (400, 0.3)]])
    for rows in ((never,), (once,), (GRPO, later)):
        assert write(learners(*rows), tmp_path)["speed"] == {}
        assert "Mean held-out" not in (tmp_path / "compare.md").read_text("utf-8").split("## How to read")[0]
        assert not any("Mean held-out" in part for part in page_of(tmp_path).text if "learning speed" not in part)


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


def test_the_page_has_all_figures_and_neither_scripts_nor_links_outside(tmp_path):
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


def test_the_tables_of_the_markdown_line_up_and_show_the_results(tmp_path):
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


def linked(out):
    """(alternative text, file) of each image in the Markdown, in order."""
    return re.findall(r"^!\[(.*)\]\((\S+)\)$", (out / "compare.md").read_text("utf-8"), re.MULTILINE)


def test_figures_are_files_that_the_markdown_shows(tmp_path):
    write(made(), tmp_path, baselines=["grpo"], splits=["test"])
    images = linked(tmp_path)
    assert images == [
        ("Accuracy on test, 95 % intervals", "figures/accuracy-test.svg"),
        ("Held-out accuracy during training", "figures/curve-held-out.svg"),
        ("Accuracy of the training episodes", "figures/curve-training.svg"),
        ("The teacher's accuracy", "figures/curve-teacher.svg"),
        ("Seconds an iteration, by phase", "figures/cost.svg"),
    ]
    assert {f"figures/{f.name}" for f in (tmp_path / "figures").iterdir()} == {file for _, file in images}
    for alternative, file in images:
        root = ElementTree.fromstring((tmp_path / file).read_bytes())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("aria-label") == alternative
        assert re.fullmatch(r"[\d.]+pt", root.get("width"))
        ground = root[0]  # under everything else
        assert (ground.tag.rpartition("}")[2], ground.get("fill"), ground.get("width")) == ("rect", "#ffffff", "100%")
    sections = (tmp_path / "compare.md").read_text("utf-8").split("\n## ")
    assert [s.splitlines()[0] for s in sections if "![" in s] == [
        "Accuracy on test: 40 tasks, in %", "Held-out accuracy during training", "Accuracy of the training episodes",
        "The teacher's accuracy", "Seconds an iteration, by phase",
    ]  # fmt: skip


def test_many_rows_get_a_panel_each(tmp_path):
    names = ["grpo", *(f"row {i}" for i in range(12))]
    write([cell(name, seed, 0.5) for name in names for seed in range(2)], tmp_path, baselines=["grpo"])
    root = ElementTree.fromstring((tmp_path / "figures" / "curve-held-out.svg").read_bytes())
    texts = ["".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if text in names] == names
    assert any(text.endswith("dotted: grpo") for text in texts)
    panels = [g for g in root.iter("{http://www.w3.org/2000/svg}g") if re.search(r"axes_\d+$", g.get("id", ""))]
    assert len(panels) == len(names), "the empty places of the grid are gone"


def test_the_same_cells_give_the_same_figures_and_old_ones_go(tmp_path):
    write(made(), tmp_path)
    folder = tmp_path / "figures"
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    (folder / "my-own.svg").write_text("<svg/>")
    write(made(), tmp_path)
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == {**before, "my-own.svg": b"<svg/>"}
    write([cell("grpo", 0, 0.5, curve=False)], tmp_path)
    assert {f.name for f in folder.iterdir()} == {"accuracy-test.svg", "my-own.svg"}


@pytest.mark.parametrize("names", [["Test", "test"], ["../x", "x"], ["漢 字", "\x07]<b>"], ["", "y" * 300]])
def test_splits_may_be_named_anything(tmp_path, names):
    part = split(0.5, np.random.default_rng(0))
    write([cell("grpo", 0, 0.5, after=dict.fromkeys(names, part))], tmp_path)
    files = [file for _, file in linked(tmp_path) if "accuracy-" in file]
    assert len({file.lower() for file in files}) == 2
    for file in files:
        assert re.fullmatch(r"figures/accuracy-[a-z0-9._-]{1,60}\.svg", file)
        ElementTree.fromstring((tmp_path / file).read_bytes())
    assert "b" not in page_of(tmp_path).tags


def test_results_are_json(tmp_path):
    summary = write(made(), tmp_path, baselines=["grpo"], splits=["test"])
    assert json.loads((tmp_path / "results.json").read_text()) == summary


def test_a_report_does_without_curves_and_baseline(tmp_path):
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
    assert printable(name) in page.text
    shown = " ".join("".join(c if c.isprintable() else " " for c in name).split())[:20]
    assert sum(shown in text for text in page.text) >= 5  # tables and figures


def test_a_report_of_the_base_alone_says_that_no_row_was_evaluated(tmp_path):
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

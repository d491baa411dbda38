"""Primary contrasts: declared in the file, exact where they can be, and nominal where there is nothing to find."""

from itertools import product

import numpy as np
import pytest

from cells import cell, made
from skillsd.analysis.compare.cell import Point
from skillsd.analysis.compare.matrix import expand, load_matrix
from skillsd.analysis.compare.primary import contrast
from skillsd.analysis.compare.report import write
from skillsd.analysis.compare.runner import Comparison
from skillsd.analysis.compare.stats import sign_flip
from skillsd.analysis.compare.worker import kept, machine
from skillsd.errors import UsageError

OFFICE = """
preset = "sokoban-smoke"
seeds = [0, 1]
primary = [{ row = "ours", against = "grpo" }]
[settings]
env = { name = "office", options = { difficulty = "easy" } }
[vary]
"env.options.world" = [7, 9]
[rows.grpo]
method = "grpo"
[rows.ours]
[rows.some]
seeds = [1]
"""


def test_signs_are_counted_exactly():
    differences = [0.1, 0.25, -0.05, 0.3]
    ways = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in product((1, -1), repeat=4)]
    assert sign_flip(differences) == sum(way >= abs(sum(differences)) - 1e-12 for way in ways) / 16
    assert sign_flip([0.1] * 5) == 2 / 32
    assert sign_flip([0.0] * 5) == 1
    assert sign_flip([]) is None
    assert sign_flip([0.1] * 21) is None


def test_primary_contrasts_find_nothing_as_often_as_they_say_where_there_is_nothing():
    """GRPO against itself, ten paired seeds, simulated through the code that reports it: nominal rates."""
    rng, runs = np.random.default_rng(0), 2000
    p_t, p_sign, held = [], [], 0
    for _ in range(runs):
        shared = rng.normal(0.6, 0.08, 10)  # what the world and the seed make of both rows
        rows = {
            name: [ended(name, seed, shared[seed] + rng.normal(0, 0.05, 5)) for seed in range(10)]
            for name in ("a", "b")
        }
        found = contrast(rows, "a", "b")
        p_t.append(found["p"])
        p_sign.append(found["p_sign"])
        held += found["low"] <= 0 <= found["high"]
    for level, slack in ((0.05, 0.015), (0.2, 0.027)):  # three standard errors of 2,000 runs
        assert np.mean(np.array(p_t) <= level) == pytest.approx(level, abs=slack)
        assert np.mean(np.array(p_sign) <= level) == pytest.approx(level, abs=slack)
    assert held / runs == pytest.approx(0.95, abs=0.015)


def ended(row, seed, evaluations):
    points = [
        Point(iteration=i, episodes=i, accuracy=0, eval_accuracy=min(1, max(0, e)))
        for i, e in enumerate(evaluations, 1)
    ]
    return cell(row, seed, 0.5).model_copy(update={"curve": points})


def test_who_learns_sooner_is_measured_over_all_of_training():
    rows = {"early": [ended("early", s, [0, 1, 1, 1, 1]) for s in (0, 1)]}
    rows["late"] = [ended("late", s, [0, 0, 0.5 * s, 1, 1, 1]) for s in (0, 1)]
    assert contrast(rows, "early", "late")["mean"] == 0
    found = contrast(rows, "early", "late", "training")
    assert found["by_seed"] == {"0": [3.5 / 4, 2.5 / 5], "1": [3.5 / 4, 3 / 5]}
    assert found["measure"] == "training"


def test_a_contrast_is_measured_by_the_last_evaluations():
    rows = {
        "a": [ended("a", s, [0, 0.3, 0.6, 0.9]) for s in range(3)],
        "b": [ended("b", s, [1, 0, 0, 0]) for s in (1, 2)],
    }
    found = contrast(rows, "a", "b")
    assert (found["mean"], found["seeds"], found["levels"]) == (pytest.approx(0.6), 2, [pytest.approx(0.6), 0])
    assert contrast(rows, "a", "c") is None
    rows["base"] = [cell("base", 0, 0.2, curve=False)]
    base = np.mean(rows["base"][0].after["test"].success)
    assert contrast(rows, "a", "base")["mean"] == pytest.approx(0.6 - base)


def load(tmp_path, text):
    (tmp_path / "matrix.toml").write_text(text)
    return load_matrix(tmp_path / "matrix.toml")


def test_every_seed_has_a_world_of_its_own(tmp_path):
    cells = expand(load(tmp_path, OFFICE))
    worlds = [(c.row, c.seed, c.config.env.options) for c in cells]
    easy = {"difficulty": "easy"}
    assert worlds == [
        ("base", 0, {**easy, "world": 7}), ("base", 1, {**easy, "world": 9}),
        ("grpo", 0, {**easy, "world": 7}), ("ours", 0, {**easy, "world": 7}), ("some", 1, {**easy, "world": 9}),
        ("grpo", 1, {**easy, "world": 9}), ("ours", 1, {**easy, "world": 9}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[7, 9]", "[7]"), "one value for each seed"),
        (("seeds = [0, 1]", "seeds = [0, 0]"), "each seed once"),
        (("seeds = [1]", "seeds = [2]"), r"rows.some.seeds: there are values in \[vary\]"),
        (('against = "grpo"', 'against = "gpro"'), "there is no row 'gpro'"),
        (('against = "grpo"', 'against = "grpo", measure = "best"'), "primary.0.measure"),
        (("[7, 9]", "[7, -1]"), "world must be a whole number"),
        (('"env.options.world"', '"env.optoins.world"'), "unknown setting"),
    ],
)
def test_what_is_declared_wrongly_is_refused(tmp_path, change, message):
    def start():
        Comparison(load(tmp_path, OFFICE.replace(*change)), tmp_path / "out", jobs=1, threads=1)

    with pytest.raises(UsageError, match=message):
        start()


def test_the_report_begins_with_what_was_declared(tmp_path):
    declared = [("skill_sd", "grpo", "end"), ("none", "grpo", "end")]
    summary = write(made(), tmp_path / "out", baselines=["grpo"], primary=declared)
    (found,) = summary["primary"]
    assert (found["row"], found["against"], found["seeds"]) == ("skill_sd", "grpo", 5)
    for name in ("compare.md", "compare.html"):
        page = (tmp_path / "out" / name).read_text()
        assert page.index("Primary contrasts") < page.index("Accuracy on test")
    write(made(), tmp_path / "none")
    assert "Primary contrasts" not in (tmp_path / "none" / "compare.md").read_text()


def test_a_cell_keeps_what_tells_how_training_went():
    rows = [{"valid_actions": 0.123456, "entropy": 1, "tokens": 9}, {"valid_actions": 1.0, "l_rms": None}]
    assert kept(rows) == {"valid_actions": [0.1235, 1.0], "entropy": [1.0, None]}
    assert {"cpu", "threads"} <= machine().keys()

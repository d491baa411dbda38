"""A comparison's file: what it may say, and what it is told when it is wrong."""

from pathlib import Path

import pytest

from skillsd.analysis.compare.matrix import expand, load_matrix
from skillsd.errors import UsageError

SHIPPED = Path(__file__).parents[2] / "comparisons"

GOOD = """
preset = "sokoban-smoke"
seeds = [0, 1, 2]
[settings]
trainer.iterations = 2
loss.distill_weight = 0.5
[rows.grpo]
method = "grpo"
[rows."lambda 0.01"]
loss.distill_weight = 0.01
seeds = [0, 1]
"""


def write(tmp_path, text):
    file = tmp_path / "matrix.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_rows_and_seeds_become_cells_with_merged_settings(tmp_path):
    cells = expand(load_matrix(write(tmp_path, GOOD)))
    assert [(c.row, c.seed) for c in cells] == [
        ("base", 0), ("grpo", 0), ("lambda 0.01", 0), ("grpo", 1), ("lambda 0.01", 1), ("grpo", 2),
    ]  # fmt: skip
    grpo, swept = cells[1].config, cells[2].config
    assert (grpo.method, grpo.loss.distill_weight, grpo.trainer.iterations) == ("grpo", 0.5, 2)
    assert (swept.method, swept.loss.distill_weight, swept.seed) == ("skill_sd", 0.01, 0)
    assert swept.loss.clip_high == grpo.loss.clip_high  # a section is merged, not replaced
    assert cells[3].config.seed == 1
    assert cells[2].overrides == {"loss": {"distill_weight": 0.01}}


def test_folders_differ_whatever_the_names(tmp_path):
    names = ["a b", "a-b", "a/b", "ä", "λ = 0.1", "..", "a_b"]
    text = 'preset = "sokoban-smoke"\nseeds = [0]\n' + "".join(f'[rows."{n}"]\n' for n in names)
    folders = [c.folder for c in expand(load_matrix(write(tmp_path, text)))]
    assert len(set(folders)) == len(names) + 1
    assert all(folder.count("/") == 1 and ".." not in folder for folder in folders)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[rows.grpo]", "[rows.base]"), "base"),
        (('method = "grpo"', 'method = "gpro"'), "rows.grpo: .*gpro"),
        (('method = "grpo"', "optim.lr = -1"), "rows.grpo: optim.lr"),
        (
            ('method = "grpo"', "rollout.group_size = 2"),
            r"rows.grpo: \d+ episodes .*rollout.group_size\), and \d+ elsewhere: they must be the same",
        ),
        (('method = "grpo"', 'model.path = "x"'), "model must be the same"),
        (("seeds = [0, 1, 2]", "seeds = []"), "seeds"),
        (("seeds = [0, 1]\n", 'seeds = ["a"]\n'), "rows.lambda 0.01.seeds"),
        (("seeds = [0, 1, 2]", "seeds = [0, 1, 2]\ncolour = 3"), "colour"),
        (('"sokoban-smoke"', '"nowhere"'), "nowhere"),
        (("[settings]", "[settings"), "TOML"),
    ],
)
def test_mistakes_are_named_before_anything_runs(tmp_path, change, message):
    assert change[0] in GOOD
    with pytest.raises(UsageError, match=message):
        expand(load_matrix(write(tmp_path, GOOD.replace(*change))))


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda file: file.stem)
def test_shipped_comparisons_are_fair_and_whole(file):
    cells = expand(load_matrix(file))
    assert len({c.folder for c in cells}) == len(cells)
    assert "grpo" in {c.row for c in cells}


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.toml"):
        load_matrix(tmp_path / "nothing.toml")

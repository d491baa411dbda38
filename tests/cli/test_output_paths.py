"""Where a command is to write: what cannot be is told in one line, before the work is done."""

import pytest
from test_cli import run


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "embedded", "--save", ""],
        ["train", "sokoban-smoke", "--out", ""],
        ["warm-up", "sokoban-smoke", "--out", " "],
        ["compare", "comparisons/smoke.toml", "--out", ""],
        ["skills", "export", ".", "--out", ""],
        ["skills", "export", ".", ""],
        ["base-model", "build", "--out", ""],
    ],
)
def test_an_empty_path_is_refused(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert "it is empty: name a path" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["", "file/x.json", "file/deep/x.json"])
def test_a_result_that_cannot_be_saved_is_told_before_the_evaluation(tmp_path, place):
    (tmp_path / "file").write_text("")
    done = run("evaluate", "embedded", "--limit", "1", "--save", tmp_path / place, "--json")
    assert done.returncode == 2
    assert not done.stdout, "nothing was evaluated"
    assert len(done.stderr.strip().splitlines()) == 1

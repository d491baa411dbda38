"""docs/RESULTS.md and the README show what results/ holds."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("page", "least"), [("docs/RESULTS.md", 6), ("README.md", 1)])
def test_the_tables_are_those_of_the_results(page, least):
    made, number = runpy.run_path(str(ROOT / "docs" / "results_tables.py"))["anew"](ROOT / page)
    assert number >= least
    assert made == (ROOT / page).read_text("utf-8"), "run: python docs/results_tables.py"

"""docs/RESULTS.md and the README show what results/ holds."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("page", "mark", "make", "least"),
    [("docs/RESULTS.md", "TABLE", "made", 6), ("README.md", "HEADLINE", "headline", 1)],
)
def test_the_tables_are_those_of_the_results(page, mark, make, least):
    script = runpy.run_path(str(ROOT / "docs" / "results_tables.py"))
    text = (ROOT / page).read_text("utf-8")
    made, number = script[mark].subn(script[make], text)
    assert number >= least
    assert made == text, "run: python docs/results_tables.py"

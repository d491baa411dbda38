"""docs/RESULTS.md shows what results/ holds."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_the_tables_are_those_of_the_results():
    script = runpy.run_path(str(DOCS / "results_tables.py"))
    page = (DOCS / "RESULTS.md").read_text("utf-8")
    made, number = script["TABLE"].subn(script["made"], page)
    assert number > 5
    assert made == page, "run: python docs/results_tables.py"

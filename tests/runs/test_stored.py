"""A run and a comparison that version 0.1 made (``tests/stored``): they open, resume, and report as then."""

import json
import tarfile
from pathlib import Path

import pytest

from skillsd import load_config, train
from skillsd.analysis.compare.matrix import load_matrix
from skillsd.analysis.compare.report import write
from skillsd.analysis.compare.runner import Comparison
from skillsd.analysis.evaluate import evaluate
from skillsd.analysis.report import write_report
from skillsd.runs.folder import RunDir

STORED = Path(__file__).parents[1] / "stored" / "version-0.1.tar.gz"


@pytest.fixture
def old(tmp_path, monkeypatch):
    with tarfile.open(STORED) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)  # the model is named as it lay there
    return tmp_path


def test_a_run_reports_and_is_evaluated(old):
    page = write_report("run").read_text("utf-8")
    assert page.count("<svg") > 5
    assert evaluate("run", limit=2).tasks == 2


def test_a_run_goes_on_as_if_the_version_had_not_changed(old):
    config = load_config("run/config.toml", ["trainer.iterations=3"])
    assert not hasattr(config.loss, "anchor_weight")
    train(config, "run", resume=True)
    found = RunDir("run").read_metrics()
    wanted = [json.loads(line) for line in Path("expected.jsonl").read_text("utf-8").splitlines()]
    assert len(found) == len(wanted) == 3
    for row, then in zip(found, wanted, strict=True):
        for name, value in then.items():
            if "second" not in name and "memory" not in name:
                assert row[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_a_comparison_keeps_its_finished_cells(old):
    comparison = Comparison(load_matrix("matrix.toml"), Path("compared"), jobs=1, threads=1)
    assert [progress.state for progress in comparison.progress] == ["done"] * 3  # before anything was run
    cells = comparison.run()
    wanted = json.loads(Path("expected_results.json").read_text("utf-8"))
    assert write(cells, Path("compared"), baselines=["grpo"], splits=["test"]) == {**wanted, "primary": []}

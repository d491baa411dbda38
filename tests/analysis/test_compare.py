"""A small comparison for real: two methods, two seeds, cells in processes of their own."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skillsd.analysis.compare.matrix import expand, load_matrix
from skillsd.analysis.compare.runner import Comparison
from skillsd.errors import SkillSDError, UsageError

SMOKE = Path(__file__).parents[2] / "comparisons" / "smoke.toml"


def cells(out):
    return {f.parent.relative_to(out / "cells"): f.stat().st_mtime_ns for f in out.glob("cells/*/*/cell.json")}


def test_stopped_then_extended_and_every_finished_cell_kept(tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    command = [sys.executable, "-m", "skillsd", "compare", str(SMOKE), "--out", str(out), "--jobs", "2"]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            deadline = time.monotonic() + 200
            while not cells(out) and time.monotonic() < deadline:
                assert process.poll() is None, log.read_text()
                time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 130, log.read_text()
        finally:
            process.kill()
    kept = cells(out)
    assert kept
    assert "the same command goes on" in log.read_text()

    interim = subprocess.run(
        [*command, "--report-only", "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert interim.returncode == 0, interim.stderr
    assert f"{len(kept)} of 5 cells are finished" in interim.stderr
    assert cells(out) == kept
    assert sum(map(len, json.loads(interim.stdout)["seeds"].values())) == len(kept)

    comparison = Comparison(load_matrix(SMOKE), out, jobs=2, threads=1)
    assert sum(p.state == "done" for p in comparison.progress) == len(kept)
    finished = comparison.run()
    assert [(c.row, c.seed) for c in finished] == [
        ("base", 0), ("grpo", 0), ("skill_sd", 0), ("grpo", 1), ("skill_sd", 1),
    ]  # fmt: skip
    assert {name: when for name, when in cells(out).items() if name in kept} == kept

    base, *trained = finished
    tasks = base.after["validation"].task_ids
    assert len(tasks) == 64
    for cell in trained:
        assert cell.after["validation"].task_ids == tasks
        assert (cell.iterations, cell.episodes) == (2, 2 * 4 * 4)
        assert [p.episodes for p in cell.curve] == [16, 32]
        assert all(p.eval_accuracy is not None for p in cell.curve)
        assert cell.seconds["total"] >= cell.seconds["rollout"] > 0
    # Paired: in the first iteration both methods meet the same tasks with the same sampling seeds and weights.
    first = {(c.row, c.seed): c.curve[0].accuracy for c in trained}
    assert first["grpo", 0] == first["skill_sd", 0]
    assert first["grpo", 1] == first["skill_sd", 1]
    assert not list(out.glob("cells/*/*/run/checkpoints"))

    again = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)
    assert cells(out) == {Path(s.folder): cells(out)[Path(s.folder)] for s in expand(load_matrix(SMOKE))}
    assert (out / "compare.html").is_file()
    assert "skill_sd" in (out / "compare.md").read_text("utf-8")


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    Comparison(load_matrix(SMOKE), tmp_path, jobs=1, threads=1).prepare()
    file = tmp_path / "other.toml"
    file.write_text(SMOKE.read_text("utf-8").replace("trainer.iterations = 2", "trainer.iterations = 3"), "utf-8")
    with pytest.raises(UsageError, match="other settings"):
        Comparison(load_matrix(file), tmp_path, jobs=1, threads=1)


def test_a_setting_that_came_later_does_not_spoil_old_cells(tmp_path):
    comparison = Comparison(load_matrix(SMOKE), tmp_path, jobs=1, threads=1)
    comparison.prepare()
    spec = tmp_path / "cells" / comparison.progress[1].spec.folder / "spec.json"
    tree = json.loads(spec.read_text("utf-8"))
    del tree["config"]["loss"]["gate_beta"]
    spec.write_text(json.dumps(tree), "utf-8")
    Comparison(load_matrix(SMOKE), tmp_path, jobs=1, threads=1)
    tree["config"]["optim"]["max_tokens_per_device"] = 100  # and a cell may go on on a smaller machine
    spec.write_text(json.dumps(tree), "utf-8")
    Comparison(load_matrix(SMOKE), tmp_path, jobs=1, threads=1)
    spec.write_text("{", "utf-8")
    with pytest.raises(UsageError, match="other settings"):
        Comparison(load_matrix(SMOKE), tmp_path, jobs=1, threads=1)


def test_a_report_of_nothing_is_refused_and_makes_no_folder(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "skillsd", "compare", str(SMOKE), "--out", str(out), "--report-only"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert "no cell is finished" in result.stderr
    assert not out.exists()


def test_a_corrupt_cell_is_named(tmp_path):
    comparison = Comparison(load_matrix(SMOKE), tmp_path, jobs=1, threads=1)
    comparison.prepare()
    file = tmp_path / "cells" / comparison.progress[1].spec.folder / "cell.json"
    file.write_text('{"row": ', encoding="utf-8")
    with pytest.raises(SkillSDError, match=r"cell\.json"):
        Comparison(load_matrix(SMOKE), tmp_path, jobs=1, threads=1)


def test_a_split_that_does_not_exist_is_refused_at_the_start(tmp_path):
    file = tmp_path / "matrix.toml"
    file.write_text(SMOKE.read_text("utf-8").replace('"validation"', '"nowhere"'), "utf-8")
    with pytest.raises(UsageError, match="nowhere"):
        Comparison(load_matrix(file), tmp_path / "out", jobs=1, threads=1)


def test_a_failing_cell_is_reported_in_one_line(tmp_path):
    file = tmp_path / "matrix.toml"
    file.write_text(
        'preset = "sokoban-smoke"\nseeds = [0]\n[settings]\nmodel.path = "nowhere"\n[rows.grpo]\nmethod = "grpo"\n',
        "utf-8",
    )
    comparison = Comparison(load_matrix(file), tmp_path / "out", jobs=2, threads=1)
    assert comparison.run() == []
    for progress in comparison.progress:
        assert progress.state == "failed"
        assert "nowhere" in progress.reason
        assert "\n" not in progress.reason

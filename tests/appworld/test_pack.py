"""The pack: every solution scores as promised, on the engine's own evaluator; the same sources give the same files."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from skillsd.envs.appworld.install import data_root

PACK = Path("src/skillsd/envs/appworld/pack")


@pytest.fixture(scope="module")
def root(engine):
    return data_root("pack")


@pytest.fixture(scope="module")
def manifest(root):
    return json.loads((root / "pack.json").read_text())["tasks"]


def test_every_solution_scores_as_promised(engine, root, manifest, tmp_path):
    """Reference: all tests pass. Giving up at once, and every plausible mistake: never a success, nor worth more."""
    names = sorted(manifest)
    runs = [
        subprocess.Popen(
            [engine.python, PACK / "check.py", root, *names[half::2]], stdout=subprocess.PIPE, text=True,
            env={"APPWORLD_CACHE": str(engine.cache), "HOME": str(tmp_path)},
        )
        for half in (0, 1)
    ]  # fmt: skip
    rows = [json.loads(line) for run in runs for line in run.communicate()[0].splitlines()]
    assert all(run.returncode == 0 for run in runs)
    assert sorted(row["task"] for row in rows) == names
    for row in rows:
        assert row["reference"] == 1.0, (row["task"], row["failures"])
        assert row["nothing"] <= 1 / 3, row["task"]
        assert row["wrong"], f"{row['task']} has no wrong solution"
        assert row["nothing"] - 1e-9 <= min(row["wrong"]) <= max(row["wrong"]) < 1.0, row["task"]


def test_it_is_what_its_page_says(root, manifest):
    practice = {name: entry for name, entry in manifest.items() if entry["split"].startswith("practice")}
    assert len(practice) == 8 * 18
    assert len({entry["scenario"] for entry in practice.values()}) == 8
    assert [entry["split"] for entry in practice.values()].count("practice_test") == 8 * 6
    texts = [entry["instruction"] for entry in manifest.values()]
    assert len(set(texts)) == len(texts)
    manifest = {name: entry for name, entry in manifest.items() if name not in practice}
    scenarios = {entry["scenario"]: entry for entry in manifest.values()}
    assert len(scenarios) >= 30
    assert len(manifest) == 3 * len(scenarios)
    assert len({app for entry in scenarios.values() for app in entry["apps"]}) >= 7
    assert {entry["difficulty"] for entry in scenarios.values()} == {1, 2, 3}
    for entry in manifest.values():
        assert entry["split"] == scenarios[entry["scenario"]]["split"], "all variants of a scenario are in one split"
    for split in ("train", "dev", "test"):
        listed = (root / "data" / "datasets" / f"{split}.txt").read_text().split()
        assert sorted(listed) == sorted(name for name, entry in manifest.items() if entry["split"] == split)


def test_the_same_sources_give_the_same_files(engine, root, tmp_path):
    subprocess.run(
        [engine.python, PACK / "build.py", "--root", tmp_path / "again"], check=True, capture_output=True,
        env={"APPWORLD_CACHE": str(engine.cache), "HOME": str(tmp_path), "PYTHONHASHSEED": "77"},
    )  # fmt: skip

    def files(folder):
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix != ".pyc"  # the evaluator leaves its bytecode beside a task's tests
        }

    assert files(tmp_path / "again") == files(root)


def test_the_agents_copy_has_no_ground_truth(tasks, root):
    there = {path.name for path in tasks.pool.agents.rglob("*")}
    assert {"specs.json", "base_dbs", "train.txt"} <= there
    assert not there & {"ground_truth", "answer.json", "evaluation.py", "solutions.json", "pack.json"}
    assert (root / "data" / "tasks" / "notewrite_1" / "ground_truth" / "answer.json").is_file()

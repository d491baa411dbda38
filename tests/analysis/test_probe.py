"""What the teacher knows: the statistics against brute force, the whole on the embedded model."""

import itertools
import json
import math
import random

import pytest

from skillsd.analysis.evaluate import open_policy
from skillsd.analysis.probe import action_spans, auc, probe
from skillsd.cli import main
from skillsd.envs import make_taskset
from skillsd.envs.base import HasVerdicts
from skillsd.envs.sokoban.game import Board
from skillsd.envs.sokoban.solver import solve
from skillsd.types import Task


def test_auc_is_the_share_of_ordered_pairs():
    rng = random.Random(0)
    for _ in range(50):
        low = [rng.randrange(6) for _ in range(rng.randrange(1, 6))]
        high = [rng.randrange(6) for _ in range(rng.randrange(1, 6))]
        pairs = [1.0 if a < b else 0.5 if a == b else 0.0 for a, b in itertools.product(low, high)]
        assert auc(low, high) == pytest.approx(sum(pairs) / len(pairs))
    assert auc([], [1.0]) is None
    assert auc([1.0], []) is None


def test_turns_are_the_runs_of_action_tokens():
    assert action_spans([1, 1, 0, 1, 0, 0, 1, 1, 1]) == [2, 1, 3]
    assert action_spans([]) == []


def test_sokoban_knows_good_moves_from_bad_ones():
    taskset = make_taskset("sokoban", variant="one_box")
    assert isinstance(taskset, HasVerdicts)
    for task in taskset.tasks("validation")[:8]:
        level = str(task.data["level"])
        best = [f"```{move}```" for move in solve(Board(level)) or []]
        assert taskset.verdicts(task, best) == [True] * len(best)
        assert taskset.verdicts(task, ["what?", *best]) == [False, *[True] * len(best)]
        assert taskset.verdicts(task, [*best, best[-1]])[-1] is None  # solved: nothing is left to judge


def test_a_level_that_is_lost_has_no_verdict():
    taskset = make_taskset("sokoban", variant="one_box")
    task = Task("to be lost", {"level": "######\n#P___#\n#_X__#\n#____#\n#__O_#\n######"})
    to_the_wall = [f"```{move}```" for move in ("right", "right", "down", "left", "left")]
    assert taskset.verdicts(task, to_the_wall)[3:] == [False, None]


@pytest.fixture(scope="module")
def readings():
    student, taskset, config = open_policy("embedded")
    found = probe(student, student, taskset, config, taskset.rules(), split="validation", limit=24, samples=4)
    return {reading.kind: reading for reading in found}


def test_without_a_skill_the_teacher_is_the_student(readings):
    plain = readings["no skill"]
    assert plain.tasks == 24
    assert plain.l_rms == pytest.approx(0.0, abs=1e-5)


def test_a_good_skill_tells_good_actions_from_bad_ones(readings):
    reference, plain = readings["reference"], readings["no skill"]
    assert reference.accuracy > plain.accuracy + 0.3
    assert reference.action_auc > 0.8
    assert reference.action_correlation > 0.3
    assert readings["own success"].tasks < 24  # some groups have no success


def test_a_kind_that_no_task_has_is_left_blank():
    student, taskset, config = open_policy("embedded")
    config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"max_turns": 1})})
    found = probe(student, student, taskset, config, taskset.rules(), split="test", limit=2, samples=2)
    own = next(reading for reading in found if reading.kind == "own success")
    assert (own.tasks, own.accuracy, own.l_rms, own.action_auc, own.episode_auc) == (0, None, None, None, None)


def test_the_command_prints_a_table_or_json(capsys, monkeypatch):
    command = ["skillsd", "probe", "embedded", "--limit", "2", "--samples", "2"]
    monkeypatch.setattr("sys.argv", [*command, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["kind"] for row in rows][:2] == ["no skill", "own success"]
    assert all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit):
        main()
    assert "reference" in capsys.readouterr().out

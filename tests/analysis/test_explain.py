"""An episode explained: probabilities are those of the models named, and what is not there is said in a line."""

import json
import math

import pytest

from skillsd.analysis.explain import explain
from skillsd.cli import main
from skillsd.config import load_config
from skillsd.errors import UsageError
from skillsd.runs.folder import RunDir
from skillsd.training.loop import train

SMALL = ("trainer.iterations=2", "env.train_tasks=4", "rollout.tasks_per_iteration=4", "rollout.group_size=2",
         "eval.tasks=1", "rollout.max_turns=6")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    train(load_config("sokoban-smoke", [*SMALL, "optim.lr=1e-9", "method=skill_sd_hindsight"]), out)
    return out


def test_student_then_and_now_agree_where_nothing_was_learned(run):
    found = explain(run)
    assert found.trajectory.iteration == 2
    assert len(found.actions) == len(found.trajectory.turns)
    for action, turn in zip(found.actions, found.trajectory.turns, strict=True):
        assert action.text == turn.action
        assert action.then == pytest.approx(action.now, abs=1e-3)
        assert action.good in (True, False, None)
    total = sum(found.trajectory.logps)
    assert sum(action.then for action in found.actions) == pytest.approx(total, abs=1e-4)
    assert any(abs(action.teacher - action.now) > 1e-3 for action in found.actions)


def test_any_episode_is_explained_with_any_teacher(run):
    ids = [t.id for t in RunDir(run).read_trajectories(2)]
    found = explain(run, ids[-1].removeprefix("00000"), teacher="embedded")
    assert found.trajectory.id == ids[-1]
    assert all(math.isfinite(action.teacher) for action in found.actions)


@pytest.mark.parametrize("episode", ["", "x", "2/none/0", "77/a/0", "../2/a/0"])
def test_an_episode_that_is_not_there_is_refused(run, episode):
    with pytest.raises(UsageError, match="holds no episode"):
        explain(run, episode)


def test_a_teacher_that_read_no_skill_is_refused(tmp_path):
    train(load_config("sokoban-smoke", [*SMALL, "trainer.iterations=1"]), tmp_path / "run")
    with pytest.raises(UsageError, match="read no skill"):
        explain(tmp_path / "run")


def test_the_command_prints_the_skill_and_the_teacher_or_json(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["skillsd", "explain", str(run)])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    assert "Workflow:" in shown
    assert "teacher" in shown
    monkeypatch.setattr("sys.argv", ["skillsd", "explain", str(run), "--json"])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)["actions"]

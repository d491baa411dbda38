"""Weights that are no numbers: whoever made them, they are told, and never saved."""

import pytest
import torch

from skillsd import load_config, train
from skillsd.errors import SkillSDError
from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir
from skillsd.training.trainer import Trainer
from skillsd.training.warm_up import warm_up


def config(*overrides):
    settings = ["trainer.iterations=3", "trainer.checkpoint_every=1", "trainer.keep_checkpoints=1", "eval.tasks=2"]
    return load_config("sokoban-smoke", ["rollout.tasks_per_iteration=2", *settings, *overrides])


def break_step(monkeypatch, which, value):
    """The optimiser's step number ``which`` puts ``value`` into one weight."""
    original, count = torch.optim.AdamW.step, []

    def step(self, *arguments, **named):
        result = original(self, *arguments, **named)
        count.append(1)
        if len(count) == which:
            self.param_groups[0]["params"][1].data.view(-1)[3] = value
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", step)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_that_breaks_the_weights_is_told_and_loses_nothing(tmp_path, monkeypatch, value):
    run = RunDir(tmp_path / "run")
    with monkeypatch.context() as patch:
        break_step(patch, 2, value)
        with pytest.raises(SkillSDError, match=r"iteration 2: .* weights that are not finite; the last checkpoint"):
            train(config(), run.path)
    assert [row["iteration"] for row in run.read_metrics()] == [1]
    assert latest(run).name.endswith("1")
    assert train(config(), run.path, resume=True).iterations == 3


def test_a_warm_up_that_breaks_the_weights_saves_none(tmp_path, monkeypatch):
    break_step(monkeypatch, 1, float("nan"))
    with pytest.raises(SkillSDError, match="weights that are not finite"):
        warm_up(config(), tmp_path / "warm", demonstrations=4, batch=2, until=1.0, measure_every=9)
    assert not (tmp_path / "warm").exists()


def test_a_model_that_comes_with_broken_weights_is_told_as_that(tmp_path, monkeypatch):
    original = Trainer.retrieve

    def spoil(self, tasks):
        self.model.get_input_embeddings().weight.data[:] = float("nan")
        return original(self, tasks)

    monkeypatch.setattr(Trainer, "retrieve", spoil)
    with pytest.raises(SkillSDError, match="the model's weights are not finite"):
        train(config(), tmp_path / "run", evaluate=False)

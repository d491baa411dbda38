"""Summaries that are not ready in time: none is lost, and none holds up the run."""

import json
import shutil
import threading

import pytest

from runs_lab import bank_rows, config, numbers
from skillsd import train
from skillsd.envs.sokoban.rules import SokobanRules
from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir
from skillsd.training.loop import Loop


class Held:
    """The rules summariser, but what it is asked about iteration ``held`` and later waits for the gate."""

    name = "held"

    def __init__(self, held, seconds=0.0):
        self.held, self.seconds, self.gate, self.rules = held, seconds, threading.Event(), SokobanRules()

    def summarize(self, request):
        if request.trajectory.iteration >= self.held:
            self.gate.wait(self.seconds or None)
        return self.rules.summarize(request)


def hold(monkeypatch, held, seconds=0.0):
    summarizer = Held(held, seconds)
    monkeypatch.setattr("skillsd.training.parts.make_summarizer", lambda name, config, **named: summarizer)
    return summarizer


def check_bank(run, iterations):
    """Every summary of those iterations, 2 for each of 3 tasks, was put away exactly once, and the end is saved."""
    skills, stats = bank_rows(run / "skills.sqlite")
    assert stats.added + stats.duplicates == 6 * iterations
    assert len({s.source.trajectory_id for s in skills}) == len(skills)
    assert bank_rows(latest(RunDir(run)) / "skills.sqlite") == (skills, stats)
    assert json.loads((latest(RunDir(run)) / "state.json").read_text())["pending"] == []


def test_a_run_that_does_not_wait_still_gets_its_last_summaries(tmp_path, monkeypatch):
    hold(monkeypatch, held=3, seconds=0.3)
    told = []
    train(config("skills.wait=false"), tmp_path / "run", listen=lambda kind, data: told.append(kind))
    assert "warning" not in told
    check_bank(tmp_path / "run", 3)
    assert numbers(tmp_path / "run")[-1]["summaries_pending"] == 0


def test_late_summaries_are_counted_and_found_by_resume(tmp_path, monkeypatch):
    summarizer, told = hold(monkeypatch, held=3), []
    monkeypatch.setattr("skillsd.skills.summarize.intake.LAST_SUMMARIES", 1.0)

    def listen(kind, data):
        told.append(data["text"]) if kind == "warning" else None

    out, settings = tmp_path / "run", config("skills.wait=false")
    train(settings, out, listen=listen)
    assert len(told) == 1
    assert told[0].startswith("6 summaries were not ready in time")
    shutil.copytree(out, tmp_path / "longer")
    summarizer.gate.set()
    monkeypatch.setattr("skillsd.skills.summarize.intake.LAST_SUMMARIES", 60.0)
    train(settings, out, resume=True, listen=listen)  # the same run again: nothing left to do but this
    check_bank(out, 3)
    train(config("skills.wait=false", "trainer.iterations=4"), tmp_path / "longer", resume=True, listen=listen)
    check_bank(tmp_path / "longer", 4)
    assert len(told) == 1


def test_an_error_is_not_held_up_by_summaries_nor_hidden(tmp_path, monkeypatch):
    summarizer, out, settings = hold(monkeypatch, held=1), tmp_path / "run", config("skills.wait=false")
    evaluate = Loop.evaluation_metrics

    def fail(loop):
        if loop.trainer.iteration == 2:
            raise RuntimeError("on the way out")
        return evaluate(loop)

    monkeypatch.setattr(Loop, "evaluation_metrics", fail)
    with pytest.raises(RuntimeError, match="on the way out"):
        train(settings, out)
    assert len(json.loads((latest(RunDir(out)) / "state.json").read_text())["pending"]) == 6
    summarizer.gate.set()
    monkeypatch.setattr(Loop, "evaluation_metrics", evaluate)
    train(settings, out, resume=True)
    check_bank(out, 3)

"""Who may write to a run's folder, and when it is taken: never before the run can start, never by two."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skillsd import SkillSDError, UsageError, load_config, train
from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir
from skillsd.system.files import locked, put_in_place, tidy, write_atomic
from skillsd.training.warm_up import warm_up
from skillsd.types import Trajectory

TINY = [
    "env.train_tasks=2", "rollout.tasks_per_iteration=2", "rollout.group_size=2", "rollout.max_turns=2", "eval.tasks=1",
    "eval.panel_every=0", "trainer.iterations=1",
]  # fmt: skip


@pytest.fixture
def config(llama_folder):
    return lambda *overrides: load_config("sokoban-smoke", [*TINY, f"model.path={llama_folder}", *overrides])


def everything(folder):
    """Every name below ``folder`` with its content and when it was changed."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in (folder, *folder.rglob("*"))
    }


HOLD = """
import sys, time
from pathlib import Path
from skillsd.runs.folder import RunDir
with RunDir(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder ``run``, as one that is still loading its model does."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


# -- a start that fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    ["model.path=./none", "skills.summarizer=oracle", "env.train_split=nowhere", "env.options={variant='seven_box'}",
     "model.device=cuda:99", "env.name=nothing"],
)  # fmt: skip
@pytest.mark.parametrize("there", [False, True])
def test_a_start_that_fails_leaves_the_folder_as_it_was(tmp_path, config, wrong, there):
    out = tmp_path / "runs" / "a" / "run"
    if there:
        out.mkdir(parents=True)
        (out / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SkillSDError):
        train(config(wrong), out)
    assert sorted(tmp_path.rglob("*")) == before
    assert train(config(), out, evaluate=False).iterations == 1


def test_what_fails_before_its_first_iteration_ended_can_be_started_anew_with_other_settings(
    tmp_path, config, monkeypatch
):
    out = tmp_path / "run"
    monkeypatch.setattr("skillsd.training.learner.Learner.update", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(config(), out)
    assert (out / "config.toml").is_file()
    monkeypatch.undo()
    with pytest.raises(UsageError, match="can be started anew without --resume"):
        train(config("optim.lr=1e-5"), out, resume=True)
    assert train(config("optim.lr=1e-5"), out).iterations == 1
    assert RunDir(out).load_config().optim.lr == 1e-5
    with pytest.raises(UsageError, match="already holds a run"):
        train(config("optim.lr=1e-6"), out)


def test_settings_that_are_not_a_runs_are_never_overwritten(tmp_path, config):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.toml").write_text("[tool]\nname = 'somebody else'\n")
    with pytest.raises(UsageError, match="already holds a run"):
        train(config(), out)
    assert (out / "config.toml").read_text().startswith("[tool]")


@pytest.mark.parametrize("left", ["metrics", "bank", "trajectories", "checkpoints"])
def test_a_run_that_lost_its_settings_is_not_overwritten(tmp_path, config, left):
    run = RunDir(tmp_path / "run")
    run.trajectories.mkdir(parents=True)
    if left == "metrics":
        run.append_metrics({"iteration": 1})
    elif left == "bank":
        run.bank.write_bytes(b"skills")
    elif left == "trajectories":
        run.write_trajectories(1, [Trajectory("t", 1, 0, "p", [1])])
    else:
        (run.checkpoints / "step-000001").mkdir(parents=True)
    before = everything(run.path)
    with pytest.raises(UsageError, match="choose another --out"):
        train(config(), run.path)
    assert everything(run.path) == before


def test_a_file_where_a_folder_belongs_is_refused_before_any_work(tmp_path, config):
    out = tmp_path / "run"
    train(config(), out)
    for name in ("trajectories", "results", "checkpoints"):
        damaged = tmp_path / name
        shutil.copytree(out, damaged)
        shutil.rmtree(damaged / name)
        (damaged / name).write_text("")
        before = everything(damaged)
        with pytest.raises(SkillSDError, match=rf"{name}: is a file where a folder belongs; move it away"):
            train(config("trainer.iterations=2"), damaged, resume=True)
        assert everything(damaged) == before
    for name in ("report.html", "skills.sqlite", "results/after.json", "metrics.jsonl", "trajectories/000001.parquet"):
        damaged = tmp_path / f"{Path(name).stem}-is-a-folder"
        shutil.copytree(out, damaged)
        (damaged / name).unlink(missing_ok=True)
        (damaged / name).mkdir()
        with pytest.raises(SkillSDError, match="is a folder where a file belongs; move it away"):
            train(config("trainer.iterations=2"), damaged, resume=True)


# -- two at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [False, True])
def test_whoever_comes_second_changes_nothing(tmp_path, config, holder, resume):
    out = tmp_path / "run"
    if resume:
        RunDir(out).create(config())
    before = everything(out)
    with pytest.raises(UsageError, match="another process is training here"):
        train(config(), out, resume=resume)
    assert everything(out) == before


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path, config, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / ".lock").exists()
    assert train(config(), tmp_path / "run", evaluate=False).iterations == 1
    assert not (tmp_path / "run" / ".lock").exists()


def test_two_that_start_together_make_one_whole_run(tmp_path, llama_folder):
    out = tmp_path / "run"
    commands = [
        [sys.executable, "-m", "skillsd", "train", "sokoban-smoke", "--out", str(out)]
        + [part for setting in (*TINY, f"model.path={llama_folder}", f"seed={seed}") for part in ("--set", setting)]
        for seed in (1, 2)
    ]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands
    ]
    told = [process.communicate(timeout=120)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], told
    assert ("another process" in told[codes.index(2)]) or ("already holds a run" in told[codes.index(2)])
    assert RunDir(out).load_config().seed == codes.index(0) + 1
    assert [row["iteration"] for row in RunDir(out).read_metrics()] == [1]


def test_a_second_warm_up_into_one_folder_is_refused(tmp_path, config):
    out, seen = tmp_path / "warm", []

    def second(*step):
        with pytest.raises(UsageError, match="another process is warming up into it"):
            warm_up(config(), out, demonstrations=2, batch=2)
        seen.append(step)

    warm_up(config(), out, demonstrations=2, batch=2, until=1.0, report=second)
    assert seen
    assert json.loads((out / "warm_up.json").read_text())["demonstrations"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["warm"]


def test_a_warm_up_is_kept_when_its_place_was_taken_meanwhile(tmp_path, config):
    out = tmp_path / "warm"

    def take(*step):
        out.mkdir()
        (out / "file").write_text("in the way")

    with pytest.raises(SkillSDError, match=r"could not be written.*the model is in .*\.warm\.tmp"):
        warm_up(config(), out, demonstrations=2, batch=2, until=1.0, report=take)
    assert (tmp_path / ".warm.tmp" / "model.safetensors").is_file()
    assert (out / "file").read_text() == "in the way"


def test_a_lock_file_that_was_taken_away_meanwhile_is_not_a_lock(tmp_path, monkeypatch):
    """The one before lets go between our opening of its file and our locking it: that file is nobody's any more."""
    import fcntl

    file, flock, calls = tmp_path / ".lock", fcntl.flock, []

    def late(descriptor, how):
        if not calls:
            file.unlink()
        calls.append(descriptor)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(file, "held"):
        assert len(calls) == 2
        assert file.exists()
        with pytest.raises(UsageError, match="held"), locked(file, "held"):
            pass
    assert not file.exists()


# -- writing whole -------------------------------------------------------------------------------------------------


def test_what_kills_left_is_finished_or_undone(tmp_path):
    def folder(name, text="x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)

    folder("step-000001")
    folder(".step-000001.old", "replaced")
    folder(".step-000002.old", "its successor did not come")
    folder(".step-000003.tmp")
    folder(".step-000004.deleted")
    folder(".other.tmp")
    (tmp_path / ".best.17.tmp").write_text("")
    tidy(tmp_path, "step-*", "best")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.tmp", "step-000001", "step-000002"]
    assert (tmp_path / "step-000001" / "file").read_text() == "x"
    tidy(tmp_path / "nowhere", "*")


def test_a_folder_takes_anothers_place(tmp_path):
    for text in ("one", "two"):
        (tmp_path / "new" / "deep").mkdir(parents=True)
        (tmp_path / "new" / "deep" / "file").write_text(text)
        put_in_place(tmp_path / "new", tmp_path / "final")
        assert (tmp_path / "final" / "deep" / "file").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    write_atomic(tmp_path / "file", b"old")
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_checkpoint_that_is_written_again_is_never_missing(tmp_path, config, monkeypatch):
    """A finished run's late summaries change its last checkpoint: killed between the two renames, it is still there."""
    out = tmp_path / "run"
    train(config("trainer.keep_checkpoints=1"), out, evaluate=False)
    step = latest(RunDir(out))
    os.replace(step, step.with_name(f".{step.name}.old"))
    shutil.copytree(step.with_name(f".{step.name}.old"), step.with_name(f".{step.name}.tmp"))
    assert train(config("trainer.keep_checkpoints=1"), out, resume=True, evaluate=False).iterations == 1
    assert [path.name for path in step.parent.iterdir()] == [step.name]


def test_reading_a_run_that_trains_disturbs_nobody(tmp_path, llama_folder):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "skillsd"]
    settings = [*TINY, f"model.path={llama_folder}", "trainer.iterations=100000", "trainer.checkpoint_every=2"]
    training = subprocess.Popen(
        [*command, "train", "sokoban-smoke", "--out", str(out), *(p for s in settings for p in ("--set", s))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while latest(RunDir(out)) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        for reading in (["report", out], ["skills", "list", out, "--json"], ["skills", "try", out, "--limit", "1"]):
            found = subprocess.run([*command, *map(str, reading)], capture_output=True, text=True, timeout=120)
            assert found.returncode == 0, found.stderr
        assert training.poll() is None
        training.send_signal(signal.SIGTERM)
        _, told = training.communicate(timeout=60)
    finally:
        training.kill()
    assert training.returncode == 128 + signal.SIGTERM, told
    done = [row["iteration"] for row in RunDir(out).read_metrics()]
    assert done == list(range(1, len(done) + 1))

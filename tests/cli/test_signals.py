"""Signals to stop, and readers that go away: nothing that was done is lost, and exit codes say what happened."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import contextmanager

import pytest

from skillsd import UsageError, load_config, train
from skillsd.analysis.compare.matrix import load_matrix
from skillsd.analysis.compare.runner import Comparison
from skillsd.config import ModelConfig
from skillsd.policy.loading import load_policy
from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir
from skillsd.system.interrupt import AGAIN, ONE_PRESS, at_once, cut_short, exit_code, on_interrupt

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU]
TINY = [
    "env.train_tasks=2", "rollout.tasks_per_iteration=2", "rollout.group_size=2", "rollout.max_turns=2", "eval.tasks=1",
    "eval.panel_every=0",
]  # fmt: skip


def command(model, *arguments, settings=()):
    given = [*TINY, f"model.path={model}", *settings]
    return [sys.executable, "-m", "skillsd", *map(str, arguments), *(p for s in given for p in ("--set", s))]


def wait_for(condition, process, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", STOPPING)
def test_a_run_whose_reader_is_gone_stops_with_a_checkpoint_and_a_report(tmp_path, llama_folder, number):
    """As ctrl-C does to ``skillsd train ... | tee``: tee is the first to go."""
    out = tmp_path / "run"
    settings = ["trainer.iterations=100000", "trainer.checkpoint_every=100000"]
    process = subprocess.Popen(
        command(llama_folder, "train", "sokoban-smoke", "--out", out, "--json", settings=settings),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_for(lambda: RunDir(out).metrics.is_file(), process)
        process.stdout.close()
        done = len(RunDir(out).read_metrics())
        wait_for(lambda: len(RunDir(out).read_metrics()) > done + 1, process)  # it prints a line each, to nobody
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    finally:
        process.kill()
    done = len(RunDir(out).read_metrics())
    assert json.loads((latest(RunDir(out)) / "state.json").read_text())["iteration"] == done
    assert (out / "report.html").is_file()
    resumed = load_config("sokoban-smoke", [*TINY, f"model.path={llama_folder}", f"trainer.iterations={done + 1}"])
    assert train(resumed, out, resume=True, evaluate=False).iterations == done + 1


@pytest.mark.parametrize("where", [">&- 2>&-", "> /dev/full 2> /dev/full", "2>&1 | true"])
def test_output_that_goes_nowhere_costs_the_output_alone(tmp_path, llama_folder, where):
    out = tmp_path / "run"
    parts = command(llama_folder, "train", "sokoban-smoke", "--out", out, settings=["trainer.iterations=1"])
    line = " ".join(f"'{part}'" for part in parts)
    subprocess.run(["bash", "-c", f"{line} {where}; echo ${{PIPESTATUS[0]}} > {tmp_path}/code"], timeout=120)
    assert (tmp_path / "code").read_text() == "0\n"
    run = RunDir(tmp_path / "run")
    assert [row["iteration"] for row in run.read_metrics(pytest.fail)] == [1]
    assert run.report.is_file()
    assert run.load_config().trainer.iterations == 1  # no message has ended up in a file of ours


SLOW = """
import pathlib
from skillsd.envs.sokoban.taskset import SokobanTasks

class Slow(SokobanTasks):
    def make(self):
        pathlib.Path("{file}").touch()
        return super().make()
"""


def test_evaluation_ends_at_once_and_says_by_what(tmp_path, llama_folder):
    begun = tmp_path / "begun"
    (tmp_path / "slow.py").write_text(SLOW.format(file=begun))
    process = subprocess.Popen(
        [sys.executable, "-m", "skillsd", "evaluate", str(llama_folder), "--env", "slow:Slow", "--samples", "5000",
         "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for(begun.exists, process)
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert out == ""
    assert "interrupted" in error
    assert "Traceback" not in error


def test_a_warm_up_saves_what_was_learnt_at_any_signal(tmp_path, llama_folder):
    out, last = (
        tmp_path / "warm",
        ["--demonstrations", "1000000", "--batch", "2", "--until", "1", "--measure-every", "5"],
    )
    settings = [f"model.path={llama_folder}", "rollout.max_turns=2", "eval.tasks=1"]
    words = [sys.executable, "-m", "skillsd", "warm-up", "sokoban-smoke", "--out", out]
    words += [word for setting in settings for word in ("--set", setting)]
    process = subprocess.Popen([*words, *last], stderr=subprocess.PIPE, text=True)
    try:
        assert any("demonstrations: loss" in told for told in process.stderr), "it ended by itself"
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 128 + signal.SIGHUP
    finally:
        process.kill()
    assert json.loads((out / "warm_up.json").read_text())["interrupted"]
    load_policy(ModelConfig(path=str(out)))
    assert [path.name for path in tmp_path.iterdir()] == ["warm"]


def matrix(tmp_path, model, *settings, iterations=100000):
    lines = [f"model.path = '{model}'", "env.train_tasks = 2", "rollout.tasks_per_iteration = 2", "eval.tasks = 1",
             "rollout.group_size = 2", "rollout.max_turns = 2", f"trainer.iterations = {iterations}",
             "eval.panel_every = 0", "trainer.checkpoint_every = 100000", *settings]  # fmt: skip
    file = tmp_path / "matrix.toml"
    text = "\n".join(lines)
    file.write_text(f'preset = "sokoban-smoke"\nseeds = [0]\n[settings]\n{text}\n[rows.grpo]\nmethod = "grpo"\n')
    return load_matrix(file)


def test_a_comparison_lets_its_cells_save_and_none_may_start_beside_it(tmp_path, llama_folder):
    comparison = Comparison(matrix(tmp_path, llama_folder), tmp_path / "out", jobs=2, threads=1)
    base, cell = comparison.progress
    refused = []

    def watch(progress):
        if not refused and cell.iteration >= 2 and base.state == "done":
            with pytest.raises(UsageError, match="another process is comparing here"):
                Comparison(matrix(tmp_path, llama_folder), tmp_path / "out", jobs=1, threads=1).run()
            refused.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

    comparison.run(watch)
    assert comparison.stopped
    assert refused
    assert exit_code() == 128 + signal.SIGTERM
    assert cell.state == "waiting"
    run = RunDir(tmp_path / "out" / "cells" / cell.spec.folder / "run")
    assert json.loads((latest(run) / "state.json").read_text())["iteration"] == len(run.read_metrics()) >= 2
    assert not list(tmp_path.rglob(".lock"))


def test_a_comparison_that_could_not_start_goes_on_with_settings_that_can(tmp_path, llama_folder):
    out = tmp_path / "out"
    comparison = Comparison(matrix(tmp_path, "nowhere", iterations=1), out, jobs=2, threads=1)
    assert comparison.run() == []
    assert {p.state for p in comparison.progress} == {"failed"}
    again = Comparison(matrix(tmp_path, llama_folder, iterations=1), out, jobs=2, threads=1)
    assert [cell.row for cell in again.run()] == ["base", "grpo"]
    with pytest.raises(UsageError, match="other settings"):
        Comparison(matrix(tmp_path, llama_folder, iterations=2), out, jobs=2, threads=1)


# -- the handlers themselves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", STOPPING)
def test_once_is_a_wish_and_twice_an_order(number):
    heard = []
    with on_interrupt(lambda: heard.append("first")):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # as `timeout` and closing terminals do
        assert heard == ["first"]
        time.sleep(ONE_PRESS + 0.1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert heard == ["first"]
    assert exit_code() == 128 + number


@pytest.mark.parametrize("trouble", [BrokenPipeError(32, "Broken pipe"), RuntimeError("reentrant call"), SystemExit(1)])
def test_a_message_that_cannot_be_told_does_not_end_what_it_is_about(trouble):
    """A pipe without a reader; a print interrupted in its middle; rich, which ends a program that has no reader."""

    def tell():
        raise trouble

    with on_interrupt(tell):
        os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back_and_nohup_is_respected():
    before = [signal.getsignal(number) for number in STOPPING]
    with at_once():
        for number in STOPPING:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
            assert exit_code() == 128 + number
    assert [signal.getsignal(number) for number in STOPPING] == before
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with at_once(), on_interrupt(lambda: pytest.fail("nohup")):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, old)


def test_another_thread_handles_no_signals():
    seen = []

    def work():
        with on_interrupt(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_a_listener_whose_reader_is_gone_does_not_end_a_run(tmp_path, llama_folder):
    def listen(kind, data):
        raise BrokenPipeError(32, "Broken pipe")

    settings = load_config("sokoban-smoke", [*TINY, f"model.path={llama_folder}", "trainer.iterations=1"])
    assert train(settings, tmp_path / "run", listen=listen).iterations == 1


class Watched:
    """Something that weak references can be had of."""


def press(*_):
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("block", [at_once, lambda: on_interrupt(lambda: None)])
def test_an_interrupt_that_went_nowhere_comes_again(block):
    """What a callback of a weak reference raises goes nowhere."""
    reached = []

    def work():
        with block():
            if block is not at_once:
                press()
                time.sleep(ONE_PRESS + 0.1)
            watched = Watched()
            reference = weakref.ref(watched, press)
            del watched
            reached.append(reference)
            wait_for(lambda: False, None)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached
    assert cut_short()
    assert exit_code() == 128 + signal.SIGTERM


class Late:
    """Is interrupted while it is deleted."""

    def __del__(self):
        press()
        ended.append("deleted")


ended = []


@pytest.mark.parametrize("what", ["Late()", "import interrupted_while_imported"])
def test_an_interrupt_waits_where_it_would_do_harm(tmp_path, monkeypatch, what):
    """Python prints what ``__del__`` raises, and C++ that is being imported (torch's) may abort."""
    (tmp_path / "interrupted_while_imported.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGTERM)\nfrom test_signals import ended\nended.append('imported')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "test_signals", sys.modules[__name__])
    ended.clear()

    def work():
        with at_once():
            exec(what, globals())
            wait_for(lambda: False, None)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert len(ended) == 1


def closing(closed, *, press_again=False):
    """Two things that take their time to be closed once they are interrupted."""

    @contextmanager
    def slow():
        try:
            yield
        finally:
            time.sleep(ONE_PRESS + 2 * AGAIN)
            if press_again:
                press()
            closed.append("first")

    with at_once():
        try:
            with slow():
                press()
        finally:
            time.sleep(3 * AGAIN)
            closed.append("second")


def test_an_interrupt_comes_once_while_things_are_closed():
    closed = []
    with pytest.raises(KeyboardInterrupt):
        closing(closed)
    time.sleep(2 * AGAIN)  # and none comes afterwards
    assert closed == ["first", "second"]


def test_whoever_presses_again_does_not_wait_for_what_is_closed():
    closed = []
    with pytest.raises(KeyboardInterrupt):
        closing(closed, press_again=True)
    assert closed == ["second"]


def test_what_a_signal_ended_before_in_the_same_process_is_over():
    with pytest.raises(KeyboardInterrupt), at_once():
        signal.raise_signal(signal.SIGINT)
    assert cut_short()
    with at_once():
        assert not cut_short()


def test_ctrl_c_while_the_command_line_is_imported_shows_no_traceback(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "-m", "skillsd", "presets"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")

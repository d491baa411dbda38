"""What a user's environment sets for the whole process is undone; what it gives is checked at the start."""

import os
import signal
import time

import pytest
import torch
from test_boundary import Given, Named, World, chat, play

from skillsd import evaluate, train
from skillsd.config import load_config
from skillsd.envs import boundary, make_taskset, register
from skillsd.envs.answers import task_of
from skillsd.errors import SkillSDError, UsageError
from skillsd.types import Task

__all__ = ["chat"]  # a fixture


def settings():
    return (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(),
        torch.get_default_device(), torch.get_float32_matmul_precision(), torch.get_deterministic_debug_mode(),
        torch.get_num_threads(),
        [(torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in ("cpu", "cuda")],
        boundary._depth(torch),
    )  # fmt: skip


CHANGES = {
    "gradients": lambda: torch.set_grad_enabled(False),
    "inference": lambda: torch.inference_mode().__enter__(),
    "type": lambda: torch.set_default_dtype(torch.float64),
    "device": lambda: torch.set_default_device("meta"),
    "precision": lambda: torch.set_float32_matmul_precision("medium"),
    "precision of a backend": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "determinism": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "autocast": lambda: torch.autocast("cpu", torch.float16).__enter__(),
    "autocast of a GPU": lambda: torch.set_autocast_enabled("cuda", True),
    "threads": lambda: torch.set_num_threads(7),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_task_set_sets_in_torch_is_undone(what):
    before, change = settings(), CHANGES[what]

    class Setting(Named):
        def tasks(self, split):
            change()
            return super().tasks(split)

        def reference(self, task):
            change()
            raise ValueError("none")

    register("setting", lambda: (change(), Setting([Task("a")]))[1])
    taskset = make_taskset("setting")
    assert settings() == before
    (task,) = boundary.tasks_of(taskset, "train")
    assert settings() == before
    with pytest.raises(SkillSDError, match="ValueError: none"):
        boundary.reference(taskset, task)
    assert settings() == before
    assert not torch.ones(1).is_inference()


@pytest.mark.parametrize("method", ["make", "reset", "step", "score", "close"])
@pytest.mark.parametrize("what", CHANGES)
def test_what_an_environment_sets_in_torch_is_undone(what, method, chat):
    class Setting(World):
        def __getattribute__(self, name):
            if name == method:
                CHANGES[what]()
            return super().__getattribute__(name)

    def make():
        if method == "make":
            CHANGES[what]()
        return Setting()

    before = settings()
    assert len(play(chat, make).trajectories) == 1
    assert settings() == before


@pytest.mark.parametrize("signals", [signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF])
def test_a_timer_neither_ends_the_program_nor_outlives_the_call(signals, chat):
    timer = {number: timer for timer, number in boundary._TIMERS.items()}[signals]
    before = signal.signal(signals, signal.SIG_DFL)

    def soon(answer):
        signal.setitimer(timer, 0.01)
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        signal.setitimer(timer, 60)
        return answer

    try:
        register("timed", lambda: soon(Named([Task("a")])))
        make_taskset("timed")
        assert (signal.getitimer(timer)[0], signal.getsignal(signals)) == (0, signal.SIG_DFL)
        assert len(play(chat, lambda: World(reset=lambda task: soon("begin"))).trajectories) == 1
        assert (signal.getitimer(timer)[0], signal.getsignal(signals)) == (0, signal.SIG_DFL)
        register("handled", lambda: signal.signal(signals, lambda *given: 1 / 0) and Named([Task("a")]))
        make_taskset("handled")
        assert signal.getsignal(signals) is signal.SIG_DFL
    finally:
        signal.signal(signals, before)


def test_a_timer_of_ours_goes_on():
    before = signal.signal(signal.SIGALRM, lambda *given: None)
    signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        boundary.tasks_of(Given([Task("a")]), "train")
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 50
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_interrupt_that_a_module_raises_at_import_is_its_failure_unless_a_signal_came(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(SkillSDError, match=r"env 'interrupted:Tasks': .* raised KeyboardInterrupt"):
        make_taskset("interrupted:Tasks")

    def stop(number, frame):
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        name = f"pressed_{int(number)}"
        (tmp_path / f"{name}.py").write_text(f"import os, time; os.kill(os.getpid(), {int(number)}); time.sleep(5)")
        before = signal.signal(number, stop)
        try:
            with pytest.raises(KeyboardInterrupt):
                make_taskset(f"{name}:Tasks")
            assert signal.getsignal(number) is stop
        finally:
            signal.signal(number, before)


@pytest.mark.parametrize("data", [{1: "x", "a": 2}, {1: 2, "1": 3}, {1: 2}, {"a": [({"b": {None: 1}},)]}, {True: 1}])
def test_data_whose_keys_are_no_texts_are_refused_at_the_start(data):
    with pytest.raises(
        UsageError, match=r"tasks\('train'\): data of task 'a' have the key .*: keys of data must be texts"
    ):
        boundary.tasks_of(Given([Task("a", data)]), "train")


class Lost(dict):
    def __deepcopy__(self, memo):
        return None


class Other(dict):
    def __deepcopy__(self, memo):
        return {"a": 2}


class Taken(Task):
    def __deepcopy__(self, memo):
        return None


@pytest.mark.parametrize("task", [Task("a", Lost(a=1)), Task("a", Other(a=1)), Taken("a")])
def test_a_task_whose_copy_is_another_is_refused(task):
    with pytest.raises(SkillSDError, match="task 'a' cannot be copied"):
        task_of(task)


def test_a_split_that_fails_is_named_once_and_a_limit_may_be_larger_than_any_list():
    class Failing(list):
        def __iter__(self):
            raise ValueError("gone")

    with pytest.raises(SkillSDError, match=r"^env 'given': tasks\('train'\) raised ValueError: gone$"):
        boundary.tasks_of(Given(Failing([1])), "train")
    assert len(boundary.tasks_of(Given([Task("a")]), "train", 10**24)) == 1


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: evaluate("embedded", samples=0), "samples is 0: make it a whole number of at least 1"),
        (lambda: evaluate("embedded", samples=-1), "samples is -1"),
        (lambda: evaluate("embedded", samples=10**24), "10000 are the most"),
        (lambda: evaluate("embedded", limit=0), "limit is 0"), (lambda: evaluate("embedded", limit=-1), "limit is -1"),
        (lambda: evaluate("embedded", limit="3"), "limit is '3'"), (lambda: evaluate(None), "None is no folder"),
        (lambda: train("sokoban-smoke", "out"), "the settings are 'sokoban-smoke': make them with load_config"),
        (lambda: train({}, "out"), r"the settings are \{\}"),
        (lambda: train(load_config("sokoban-smoke"), None), "None is no folder"),
    ],
)  # fmt: skip
def test_arguments_of_another_kind_are_one_usage_error(call, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=told):
        call()
    assert not os.listdir(tmp_path)

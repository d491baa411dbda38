"""What crosses from a user's environment: what is taken, what is refused, and that nothing is shared with it."""

import datetime
import io
import json
import math
import os
import pathlib
import signal
import threading
import time
from types import MappingProxyType

import numpy as np
import pytest
import torch

from fuzzing import Hostile, Untellable, Word, deep, raising, ring
from skillsd.config import ModelConfig
from skillsd.envs import boundary, make_taskset, register
from skillsd.envs.answers import finite, prompt_of, score_of, step_of, task_of, truth
from skillsd.envs.plain import ITEMS, plain
from skillsd.envs.play import play as play_by_hand
from skillsd.errors import LONGEST, SkillSDError, UsageError
from skillsd.policy.loading import load_policy
from skillsd.rollouts.rollout import Job, rollout
from skillsd.runs.episodes import read_trajectories, write_trajectories
from skillsd.training.warm_up import Reciter
from skillsd.types import Score, Step, Task


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.float32(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True), (np.array([[1, 2]]), [[1, 2]]),
        (np.array(2.5), 2.5), (torch.tensor([1.0]), [1.0]), (np.str_("a"), "a"),
        (np.zeros((40, 40)), "ndarray of shape (40, 40)"),
        ({3, 1, 2}, [1, 2, 3]), ({"b", 1}, ["b", 1]), (frozenset(), []), (b"ab\xff", "ab\ufffd"), ((1, (2,)), [1, [2]]),
        (math.nan, None), (-math.inf, None), (np.float64("nan"), None), (1j, "1j"), (10**30, str(10**30)),
        (10**99, "a number of 329 bits"),
        (datetime.date(2026, 1, 2), "2026-01-02"), (pathlib.PurePosixPath("/a"), "/a"),
        ("\ud83d\ude00 \ud800", "😀 \ufffd"),
        ({1: "a", None: "b", (1, 2): "c"}, {"1": "a", "None": "b", "(1, 2)": "c"}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (object(), "<object object>"), (Hostile(), "<Hostile>"), (Word("word"), "word"),
        (ring(), {"list": ["(itself)"]}),
        (list(range(ITEMS + 5)), [*range(ITEMS), "5 more"]),
    ],
)  # fmt: skip
def test_info_is_recorded_as_plain_json(value, written):
    told = plain({"it": value})["it"]
    assert told == written
    assert type(told) is type(written)
    assert json.loads(json.dumps(told, allow_nan=False)) == written


def test_a_record_stays_small_however_large_the_info_is():
    for value in (
        deep(),
        "x" * 10**7,
        [["y" * 1000] * 999] * 999,
        {i: [i] * 900 for i in range(10**4)},
        np.zeros(10**7),
    ):
        assert len(json.dumps(plain(value))) < 10**6


STEP_FAULTS = [
    (Step(b"x", False), "observation is bytes"), (Step(None, False), "observation is None"),
    (Step(3.5, False), "observation is float"), (Step("x" * 4_000_001, False), "4000001 characters"),
    (Step("", None), "done is None"), (Step("", "False"), "done is 'False'"), (Step("", 2), "done is 2"),
    (Step("", []), r"done is \[\]"), (Step("", False, None), "info is None"), (Step("", False, [1]), "info is list"),
    (Step("", False, {"valid": "yes"}), r"info\['valid'\] is 'yes'"), (Step("", False, {"valid": None}), "'valid'"),
    (Step("", False, {"action": 3}), r"info\['action'\] is int"), (Step("", False, {"events": "abc"}), "list of names"),
    (Step("", False, {"events": [["a"]]}), "list of names"), (("", False, {}), "step returned tuple"),
    (None, "step returned None"), (Hostile(), "step returned Hostile"), (Step("", Hostile()), "done is <Hostile>"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "refusal"), STEP_FAULTS)
def test_what_is_no_step_is_refused_by_its_name(answer, refusal):
    with pytest.raises(SkillSDError, match=refusal):
        step_of(answer)


def test_steps_of_numpy_environments_are_taken_as_plain_values():
    told = {"valid": np.bool_(False), "reward": np.float32(0.5), "events": ("hit", np.str_("x" * 99))}
    step = step_of(Step(np.str_("seen"), np.bool_(True), told))
    assert step == Step("seen", True, {"valid": False, "reward": 0.5, "events": ["hit", "x" * 60]})
    assert [type(step.observation), type(step.done), type(step.info["valid"])] == [str, bool, bool]
    told["valid"] = 7
    assert step.info["valid"] is False, "the environment may go on using its dict"
    assert step_of(Step("a\ud800b", 0)).observation == "a\ufffdb"


@pytest.mark.parametrize(
    ("score", "refusal"),
    [
        (Score(math.nan, False, 0.0), "reward is nan"), (Score(math.inf, False, 0.0), "reward is inf"),
        (Score(None, False, 0.0), "reward is None"), (Score("1", False, 0.0), "reward is str"),
        (Score(1j, False, 0.0), "reward is complex"), (Score(10**400, False, 0.0), "bits, too large for a float"),
        (Score(1e39, False, 0.0), "within 1e"), (Score(np.array([1.0, 2.0]), False, 0.0), "reward is ndarray"),
        (Score(torch.tensor(math.nan), False, 0.0), "reward is nan"),
        (Score(0.0, False, math.nan), "completion is nan"),
        (Score(0.0, False, None), "completion is None"), (Score(0.0, False, 1.5), "completion is 1.5"),
        (Score(0.0, None, 0.0), "success is None"), (Score(0.0, "yes", 0.0), "success is 'yes'"),
        (None, "score returned None"),
    ],
)  # fmt: skip
def test_what_is_no_score_is_refused_by_its_name(score, refusal):
    with pytest.raises(SkillSDError, match=refusal):
        score_of(score)


def test_numbers_of_every_library_are_taken():
    for one in (1, True, np.float32(1), np.int8(1), np.bool_(True), np.array(1.0), torch.tensor(1), torch.tensor(1.0)):
        assert (finite(one, "it"), type(finite(one, "it"))) == (1.0, float)
    for one in (1, True, np.bool_(True), np.int64(1), torch.tensor(True)):
        assert truth(one, "it") is True
    assert score_of(Score(np.float32(0.5), np.bool_(True), 1 + 1e-9)) == Score(0.5, True, 1.0)
    with pytest.raises(SkillSDError, match="answered with bytes, not str"):
        prompt_of(b"hello")


class Given:
    """A task set that answers what it was given."""

    name, max_turns = "given", 4

    def __init__(self, *listed):
        self.listed = list(listed)

    def tasks(self, split):
        listed = self.listed.pop(0) if len(self.listed) > 1 else self.listed[0]
        if isinstance(listed, BaseException):
            raise listed
        return listed


@pytest.mark.parametrize(
    ("listed", "refusal"),
    [
        (iter([]), "returned list_iterator: return a list of Task"), (None, "returned None"),
        ([], "the split has no tasks"),
        ([{"id": "a"}], "holds a dict"), ({"a": Task("a")}, "holds a str"), ("ab", "holds a str"),
        ([Task(3)], "a task's id is 3: make it a text"), ([Task(None)], "id is None"), ([Task("")], "id is ''"),
        ([Task("a\nb")], "printable"), ([Task("\x1b[31m")], "printable"), ([Task("\ud800")], "printable"),
        ([Task("x" * 201)], r"\(201 characters\)"),
        ([Task("same"), Task("same", {"n": 1})], "'same' stands for several"),
        ([Task("a", [1])], "data of task 'a' is list"), ([Task("a", {"n": np.int64(1)})], "no JSON"),
        ([Task("a", {"n": math.nan})], "no JSON"), ([Task("a", ring())], "no JSON"),
        ([Task("a", {"n": deep()})], "no JSON"),
        ([Task("a", {(1, 2): 1})], "no JSON"), (ValueError("a\nb"), "raised ValueError: a b$"),
        (SystemExit(0), "raised SystemExit: 0"), (KeyboardInterrupt(), "raised KeyboardInterrupt"),
        (Untellable(), "raised Untellable, which cannot be told"),
    ],
)  # fmt: skip
def test_tasks_that_no_run_could_use_are_refused_in_a_line_that_names_the_split(listed, refusal):
    with pytest.raises(SkillSDError, match=refusal) as caught:
        boundary.tasks_of(Given(listed), "train")
    assert str(caught.value).startswith("env 'given': tasks('train')")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= LONGEST


def test_tasks_that_change_between_two_calls_are_refused():
    with pytest.raises(UsageError, match="gave other tasks, or another order"):
        boundary.tasks_of(Given([Task("a"), Task("b")], [Task("b"), Task("a")]), "train")
    with pytest.raises(UsageError, match="gave other tasks"):
        boundary.tasks_of(Given([Task("a", {"n": 1})], [Task("a", {"n": 2})]), "train")


def test_tasks_are_copies_of_their_own_type_and_an_unknown_split_is_told_by_the_task_set():
    class Mine(Task):
        pass

    listed = np.array([Mine(np.str_("a"), {"n": [1]}), Mine("b", MappingProxyType({}))][:1], dtype=object)
    (task,) = boundary.tasks_of(Given(listed), "train")
    assert (type(task), type(task.id)) == (Mine, str)
    listed[0].data["n"].append(2)
    assert task.data == {"n": [1]}
    assert [t.id for t in boundary.tasks_of(Given([Task(f"t{i}") for i in range(9)]), "train", 2)] == ["t0", "t1"]
    with pytest.raises(UsageError, match=r"^no such split$"):
        boundary.tasks_of(Given(UsageError("no such split")), "train")
    unwilling = Mine("a")
    object.__setattr__(unwilling, "lock", threading.Lock())
    with pytest.raises(SkillSDError, match="cannot be copied"):
        task_of(unwilling)


@pytest.fixture(scope="module")
def chat():
    return load_policy(ModelConfig(path="embedded", device="cpu")).chat


class World:
    """Two turns of what the task's data do not say: every method may be replaced."""

    def __init__(self, **methods):
        self.turn, self.seen = 0, []
        vars(self).update(methods)

    def reset(self, task):
        return "begin"

    def step(self, action):
        self.turn += 1
        return Step("go on", self.turn == 2, {"turn": self.turn})

    def score(self):
        return Score(1.0, True, 1.0)

    def close(self):
        pass


class Worlds:
    name, max_turns = "worlds", 3

    def __init__(self, make):
        self.make = make


def play(chat, make, count=1, **limits):
    jobs = [Job(Task(f"t{i}", {"kept": [1]}), 0, i) for i in range(count)]
    settings = {"turn_timeout": 5.0, "episode_timeout": 60.0, "max_tokens": 4000, "batch_size": 4, **limits}
    reciter = Reciter(chat, [["one", "two", "three"]] * count)
    return rollout(reciter, chat, Worlds(make), jobs, iteration=1, max_turns=3, **settings)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (raising(OSError("no room")), "OSError: no room"), (raising(SystemExit(2)), "SystemExit: 2"),
        (lambda: None, "make returned None, which lacks reset, step, score, close"), (lambda: World, "reset"),
        (lambda: World(step=None), "lacks step"),
        (lambda: World(reset=lambda task: None), "answered with None, not str"),
        (lambda: World(reset=raising(KeyboardInterrupt())), "KeyboardInterrupt"),
        (lambda: World(reset=raising(Untellable())), "Untellable, which cannot be told"),
        (lambda: World(step=raising(ValueError("two\nlines \x1b[31mred\x1b[0m " + "x" * 10**6))),
        "ValueError: two lines red x"),
        (lambda: World(score=lambda: Score(math.nan, False, 0.0)), "reward is nan: make it finite"),
        (lambda: World(score=raising(KeyError("gone"))), "KeyError: 'gone'"),
        (lambda: time.sleep(9), "no answer from the environment within 0.2 s"),
    ],
)  # fmt: skip
def test_an_episode_that_fails_is_dropped_with_a_clean_line(chat, make, told):
    number = iter(range(2))
    batch = play(chat, lambda: make() if next(number) == 0 else World(), count=2, episode_timeout=0.2, batch_size=1)
    assert [d.job.task.id for d in batch.dropped] == ["t0"]
    assert told in batch.dropped[0].reason
    assert batch.dropped[0].reason.isprintable()
    assert len(batch.dropped[0].reason) <= 300
    assert [t.task_id for t in batch.trajectories] == ["t1"]


def test_what_an_environment_does_later_to_what_it_gave_or_got_changes_nothing(chat, tmp_path):
    info = {"list": [0]}

    def reset(task):
        task.data["kept"].append("mine")
        return "begin"

    def step(action):
        info["list"].append(len(info["list"]))
        return Step("again \ud800", len(info["list"]) == 3, info)

    def close():
        info.clear()

    batch = play(chat, lambda: World(reset=reset, step=step, close=close))
    assert [turn.info for turn in batch.trajectories[0].turns] == [{"list": [0, 1]}, {"list": [0, 1, 2]}]
    write_trajectories(tmp_path / "t.parquet", batch.trajectories)
    assert read_trajectories(tmp_path / "t.parquet") == batch.trajectories
    job = Job(Task("t", {"kept": [1]}), 0, 0)
    settings = {"turn_timeout": 5.0, "episode_timeout": 60.0, "max_tokens": 4000, "batch_size": 4, "max_turns": 3}
    rollout(Reciter(chat, [["x"]]), chat, Worlds(lambda: World(reset=reset)), [job], iteration=1, **settings)
    assert job.task.data == {"kept": [1]}


def test_the_working_folder_and_signal_handlers_stay_ours(chat, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGINT)

    def roam(task):
        os.chdir("/")
        return "begin"

    assert len(play(chat, lambda: World(reset=roam)).trajectories) == 1
    assert os.getcwd() == str(tmp_path)

    def rude():
        os.chdir("/")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return Named([Task("a")])

    register("rude", rude)
    make_taskset("rude")
    assert (os.getcwd(), signal.getsignal(signal.SIGINT)) == (str(tmp_path), before)


def test_the_users_own_ctrl_c_is_not_taken_for_the_environments():
    def press():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            boundary.built("mine", press)
    finally:
        signal.signal(signal.SIGINT, before)


class Named(Given):
    def make(self):
        return World()


@pytest.mark.parametrize(
    ("factory", "refusal"),
    [
        (lambda: vars(made := Named([])).update(max_turns="3") or made, "max_turns is '3'"),
        (lambda: vars(made := Named([])).update(max_turns=True) or made, "max_turns is True"),
        (lambda: vars(made := Named([])).update(max_turns=0) or made, "max_turns is 0"),
        (lambda: vars(made := Named([])).update(max_episodes=0) or made, "max_episodes is 0"),
        (lambda: vars(made := Named([])).update(name=3) or made, "name is 3"),
        (lambda: vars(made := Named([])).update(make=3) or made, "make is no method"),
        (raising(ValueError("bad\nvalue")), "making the task set raised ValueError: bad value"),
        (raising(SystemExit(0)), "raised SystemExit: 0"), (raising(KeyboardInterrupt()), "raised KeyboardInterrupt"),
        (lambda: None, "made no task set"),
    ],
)  # fmt: skip
def test_a_task_set_that_is_none_or_cannot_be_made_is_refused_in_a_line(factory, refusal):
    register("doubtful", factory)
    with pytest.raises(SkillSDError, match=refusal) as caught:
        make_taskset("doubtful")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("methods", "told"),
    [({"reset": raising(ValueError("a\nb"))}, "ValueError: a b"), ({"step": raising(SystemExit(1))}, "SystemExit: 1"),
     ({"step": lambda action: None}, "step returned None"),
     ({"score": lambda: Score(math.nan, True, 1.0)}, "reward is nan")],
)  # fmt: skip
def test_at_the_keyboard_an_environment_that_fails_is_told_in_a_line(methods, told, monkeypatch, capsys):
    class Played(Named):
        def make(self):
            return World(**methods, close=raising(RuntimeError("closed")))

    monkeypatch.setattr("sys.stdin", io.StringIO("go\ngo\n"))
    with pytest.raises(SkillSDError, match=told) as caught:
        play_by_hand(Played([Task("a")]), "train")
    assert str(caught.value).isprintable()


def test_a_module_that_fails_at_import_is_refused_in_a_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for number, line in enumerate(("import sys; sys.exit(0)", "1 / 0", "raise KeyError('a\\nb')", "undefined")):
        (tmp_path / f"failing_{number}.py").write_text(line)
        with pytest.raises(UsageError, match="cannot be imported") as caught:
            make_taskset(f"failing_{number}:Tasks")
        assert str(caught.value).isprintable()

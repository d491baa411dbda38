"""``skillsd env check``: exercise a task set as training would, and as a policy that writes rubbish does."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from skillsd.envs import boundary
from skillsd.envs.answers import prompt_of, score_of, skill_of, step_of, task_of
from skillsd.envs.base import Environment, HasDemonstrations, HasReference, HasRender, HasRules, TaskSet
from skillsd.envs.registry import build, fingerprint
from skillsd.errors import SkillSDError, UsageError, one_line, reason, shown
from skillsd.types import Score, Step, Task

SPLITS = ("train", "test")
#: What an untrained policy may say: nothing, rubbish, other scripts, control characters, far too much.
ACTIONS = (
    "", "   \n", "I do not know.", "\u2603 \u202e\u0000 \U0001f4a5 \u4f60\u597d", "\ud800", "-1", "9" * 400,
    "```\n```", '{"action": null}', "a" * 1_000_000,
)  # fmt: skip
#: Turns that are played at most in one episode of the check.
MOST_TURNS = 50

T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (``error``: training would fail or mislead) or doubtful (``warning``), and its remedy."""

    level: Literal["error", "warning"]
    check: str
    message: str


class _Stop(Exception):
    """What was found makes the rest of this part pointless."""


@dataclass(frozen=True)
class Examined:
    """What was found, and what a run on the task set needs: nothing that is wrong with it."""

    findings: list[Finding]
    notes: list[str]


def check(name: str, options: dict[str, Any], timeout: float = 10.0) -> list[Finding]:
    """Everything found wrong with the task set ``name`` made with ``options``; empty if nothing."""
    return examine(name, options, timeout).findings


def examine(name: str, options: dict[str, Any], timeout: float = 10.0) -> Examined:
    """Find everything wrong with the task set ``name`` made with ``options``.

    Every call runs on a thread of its own (as it may in a rollout) for at most ``timeout`` seconds. Raises
    :class:`UsageError` if ``name`` cannot be imported or ``options`` do not fit.
    """
    made = build(name, options)
    checker = _Checker(timeout)
    checker.part(lambda: checker.attributes(made, ("name", "max_turns", "tasks", "make"), "taskset"))
    if checker.found:
        return Examined(checker.found, [])
    splits = {split: checker.tasks(made, split) for split in SPLITS}
    checker.part(lambda: checker.splits(made, splits))
    checker.part(lambda: checker.other_process(name, options, made, splits))
    sample = {task.id: task for tasks in splits.values() for task in (tasks[:1] + tasks[-1:])}
    chosen = list(sample.values())
    checker.part(lambda: checker.unused(made))
    for task in chosen:
        checker.part(lambda task=task: checker.episode(made, task))  # type: ignore[misc]
    if chosen and not any(f.level == "error" for f in checker.found):
        checker.part(lambda: checker.together(made, chosen))
        checker.part(lambda: checker.extras(made, chosen[0]))
    return Examined(checker.found, _notes(made))


def _notes(taskset: TaskSet) -> list[str]:
    if isinstance(taskset, HasRules):
        return []
    return [
        "the default skills.summarizer, rules, needs a task set with rules(): without, methods with skills need "
        "--set skills.summarizer=openai, policy, trajectory, or module:Class of your own (docs/summarisers.md)"
    ]


class _Checker:
    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.found: list[Finding] = []

    def add(self, level: Literal["error", "warning"], where: str, message: str) -> None:
        """Note a finding, the same one once."""
        finding = Finding(level, one_line(where, 80), one_line(message, 230))
        if finding not in self.found:
            self.found.append(finding)

    def fail(self, where: str, message: str) -> _Stop:
        self.add("error", where, message)
        return _Stop()

    def part(self, function: Callable[[], Any]) -> None:
        with contextlib.suppress(_Stop):
            function()

    def call(self, where: str, function: Callable[[], T]) -> T:
        """``function()`` on a new thread; raises :class:`_Stop` where it raises or takes too long."""
        box: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                box.append(function())
            except BaseException as error:  # whatever it is, SystemExit too, a rollout would lose its episode
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(self.timeout)
        if thread.is_alive():
            raise self.fail(where, f"no answer within {self.timeout:g} s: give slow calls a time limit of their own")
        if isinstance(errors[0] if errors else None, UsageError) and where.endswith("(unknown)"):
            raise errors[0]
        if errors:
            told = f"{reason(errors[0], 120)}; answer with an observation, or fix what fails"
            raise self.fail(where, f"raised {told}")
        return box[0]

    def right(self, where: str, function: Callable[[], T]) -> T:
        """``function()``, one of :mod:`skillsd.envs.answers`; raises :class:`_Stop` for what a run would refuse."""
        try:
            return function()
        except SkillSDError as error:
            raise self.fail(where, str(error)) from None

    def attributes(self, thing: Any, names: Sequence[str], where: str) -> None:
        missing = [name for name in names if not hasattr(thing, name)]
        if missing:
            raise self.fail(where, f"{type(thing).__name__} lacks {', '.join(missing)}: add it (skillsd.envs.base)")
        for name in names:
            value = getattr(thing, name)
            if name == "name" and not (isinstance(value, str) and value):
                self.add("error", where, f"name is {shown(value)}: make it a short text")
            elif name == "max_turns" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                self.add("error", where, f"max_turns is {shown(value)}: make it a whole number of at least 1")
            elif name not in ("name", "max_turns") and not callable(value):
                self.add("error", where, f"{name} is no method: make it one")

    def tasks(self, taskset: TaskSet, split: str) -> list[Task]:
        """The usable tasks of ``split``."""
        with contextlib.suppress(_Stop):
            return self._tasks(taskset, split, f"tasks({split})")
        return []

    def _tasks(self, taskset: TaskSet, split: str, where: str) -> list[Task]:
        tasks = self.call(where, lambda: taskset.tasks(split))
        again = self.call(where, lambda: taskset.tasks(split))
        if not hasattr(tasks, "__len__") or not hasattr(tasks, "__getitem__"):
            self.add("error", where, f"returned {type(tasks).__name__}: return a list of Task")
            return []
        if not len(tasks):
            self.add("error", where, "is empty: give every split at least one task")
        items = self.call(where, lambda: list(tasks))
        found = [self.right(where, lambda item=item: task_of(item)) for item in items]  # type: ignore[misc]
        ids = [task.id for task in found]
        if self.call(where, lambda: [getattr(task, "id", None) for task in again]) != ids:
            self.add("error", where, "gave other ids, or another order, when asked again: keep both fixed")
        if double := next((i for i, count in Counter(ids).items() if count > 1), None):
            self.add(
                "error", where, f"the id {shown(double)} stands for several tasks: they would share skills; number them"
            )
        for task in found:
            if json.loads(json.dumps(dict(task.data))) != dict(task.data):
                told = f"data of task {shown(task.id)} changes through JSON: use lists, not tuples"
                self.add("warning", where, told)
                break
        return found

    def splits(self, taskset: TaskSet, splits: dict[str, list[Task]]) -> None:
        train, test = ({task.id for task in splits[split]} for split in SPLITS)
        if both := sorted(train & test):
            self.add("warning", "splits", f"{len(both)} ids are in train and test, {both[0]!r} first: test on others")
        where = "tasks (unknown)"
        try:
            self.call(where, lambda: taskset.tasks("no-such-split"))
        except UsageError:
            return
        self.add("error", where, "an unknown split was not refused: raise skillsd.UsageError that names the known ones")

    def other_process(self, name: str, options: dict[str, Any], taskset: TaskSet, splits: dict[str, Any]) -> None:
        """Task ids are the keys of skills: a resumed run, another process, must find the same ones."""
        if any(f.level == "error" for f in self.found):
            return
        code = (
            "import json, sys; from skillsd.envs.registry import build, fingerprint; "
            "print('\\nfingerprint', fingerprint(build(sys.argv[1], json.loads(sys.argv[2])), json.loads(sys.argv[3])))"
        )
        command = [sys.executable, "-c", code, name, json.dumps(options, default=str), json.dumps(SPLITS)]
        environment = {**os.environ, "PYTHONHASHSEED": "12345"}
        try:
            out = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=60 + self.timeout, errors="replace"
            )
        except subprocess.TimeoutExpired:
            raise self.fail("second process", "did not list its tasks in time: do less at import") from None
        if out.returncode:
            told = (out.stderr.strip().splitlines() or ["no reason given"])[-1][:160]
            raise self.fail("second process", f"cannot list its tasks ({told}): import what it needs by itself")
        if f"\nfingerprint {fingerprint(taskset, SPLITS)}\n" not in out.stdout:
            self.add("error", "second process", "another process has other tasks: seed with numbers, not with hash()")

    def make(self, taskset: TaskSet) -> Environment:
        environment = self.call("make", taskset.make)
        self.attributes(environment, ("reset", "step", "score", "close"), "make")
        return environment

    def unused(self, taskset: TaskSet) -> None:
        """An environment whose reset failed is closed too."""
        one, two = self.make(taskset), self.make(taskset)
        if one is two:
            self.add("error", "make", "returned the same environment twice: make a fresh one at every call")
            return
        for environment in (one, two):
            self.call("close", environment.close)

    def reset(self, environment: Environment, task: Task) -> str:
        answer = self.call("reset", lambda: environment.reset(copy.deepcopy(task)))
        prompt = self.right("reset", lambda: prompt_of(answer))
        if not prompt:
            raise self.fail("reset", "returned '': return the first user message, a text that is not empty")
        return prompt

    def step(self, environment: Environment, action: str) -> Step:
        told = repr(action if len(action) < 30 else action[:10] + "...")
        answer = self.call(f"step({told})", lambda: environment.step(action))
        step = self.right("step", lambda: step_of(answer))
        if type(answer.done) is not bool:
            self.add("warning", "step", f"done is {type(answer.done).__name__}: make it True or False, bool(...)")
        if (valid := answer.info.get("valid", True)) is not step.info.get("valid", True):
            self.add("warning", "step", f"info['valid'] is {shown(valid)}: make it True or False, bool(...)")
        try:
            json.dumps(answer.info, allow_nan=False)
        except Exception as error:
            changed = "it is recorded as numbers, lists and texts"
            self.add("warning", "step", f"info is no JSON ({reason(error, 80)}): {changed}")
        return step

    def score(self, environment: Environment, when: str) -> Score:
        where = f"score {when}"
        answer = self.call(where, environment.score)
        score = self.right(where, lambda: score_of(answer))
        if type(answer.success) is not bool:
            told = f"success is {type(answer.success).__name__}: make it True or False, bool(...)"
            self.add("warning", where, told)
        if score.success and score.completion < 1:
            self.add("warning", where, f"success with completion {score.completion:g}: a solved task is complete, 1.0")
        return score

    def transcript(self, environment: Environment, task: Task, turns: int) -> list[Any]:
        """What the environment answers to ``ACTIONS``: the prompt, then observation, done and score of each turn."""
        seen: list[Any] = [self.reset(environment, task), self.score(environment, "before a step")]
        for turn in range(turns):
            step = self.step(environment, ACTIONS[turn % len(ACTIONS)])
            score = self.score(environment, "when done" if step.done else "after a step")
            seen.append((step.observation, step.done, score))
            if step.done:
                break
        return seen

    def episode(self, taskset: TaskSet, task: Task) -> None:
        turns = max(len(ACTIONS), min(taskset.max_turns, MOST_TURNS))
        environment, other = self.make(taskset), self.make(taskset)
        first = self.transcript(environment, task, turns)
        last = self.score(environment, "when asked again")
        if last != (first[-1][2] if len(first) > 2 else first[1]):
            self.add("error", "score", "two calls in a row differ: score() must change nothing")
        if len(first) > 2 and first[-1][1]:
            self.after_the_end(environment)
        for again, what in ((environment, "after an episode"), (other, "in a fresh environment")):
            if (second := self.transcript(again, task, turns)) != first:
                difference = "prompt" if second[0] != first[0] else "answers"
                self.add("error", "reset", f"the same task has another {difference} {what}: derive all from task.data")
        for each in (environment, other):
            self.call("close", each.close)
        doubtful = _Checker(self.timeout)
        doubtful.part(lambda: doubtful.call("close", environment.close))
        if doubtful.found:
            self.add("warning", "close", "a second call fails: let it do nothing")

    def after_the_end(self, environment: Environment) -> None:
        """Rollouts stop at done; a person who plays may not."""
        before = self.score(environment, "when done")
        quiet = _Checker(self.timeout)
        quiet.part(lambda: quiet.call("step", lambda: environment.step("one more")))
        if any("no answer" in f.message for f in quiet.found):
            raise self.fail("step after done", "hangs: refuse it, or repeat the last answer")
        if self.score(environment, "after a step after done") != before:
            self.add("warning", "step after done", "changed the score: an episode that is over should stay as it is")

    def together(self, taskset: TaskSet, tasks: Sequence[Task]) -> None:
        """Environments in turns, then side by side on threads, against each one alone."""
        turns = min(taskset.max_turns, len(ACTIONS))
        pairs = [tasks[i % len(tasks)] for i in range(4)]
        alone = [self.alone(taskset, task, turns) for task in pairs]
        several = [self.make(taskset) for _ in pairs]
        seen = [[self.reset(e, t), self.score(e, "before a step")] for e, t in zip(several, pairs, strict=True)]
        for turn in range(turns):
            for environment, log in zip(several, seen, strict=True):
                if len(log) == 2 or not log[-1][1]:  # type: ignore[index]
                    step = self.step(environment, ACTIONS[turn])
                    log.append((step.observation, step.done, self.score(environment, "")))  # type: ignore[arg-type]
        advice = "keep state in self, made in __init__ or reset, and no globals (random.seed is one)"
        if seen != alone:
            raise self.fail("make", f"environments disturb one another when played in turns: {advice}")
        threaded: list[Any] = [None] * len(pairs)

        def work(i: int) -> None:
            inner = _Checker(self.timeout)
            inner.part(lambda: threaded.__setitem__(i, inner.transcript(several[i], pairs[i], turns)))

        threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(pairs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.timeout)
        if threaded != alone:
            self.add("error", "make", f"environments disturb one another on threads: lock what they share, or {advice}")
        for environment in several:
            self.call("close", environment.close)

    def alone(self, taskset: TaskSet, task: Task, turns: int) -> list[Any]:
        environment = self.make(taskset)
        seen = self.transcript(environment, task, turns)
        self.call("close", environment.close)
        return seen

    def extras(self, taskset: TaskSet, task: Task) -> None:
        """The optional methods, where there are any."""
        if isinstance(taskset, HasReference):
            skill = self.call("reference", lambda: taskset.reference(task))
            self.part(lambda: self.right("reference", lambda: skill_of(skill)))
        if isinstance(taskset, HasDemonstrations):
            self.part(lambda: self.right("demonstrate", lambda: boundary.demonstration(taskset, task)))
        if isinstance(taskset, HasRender):
            for text in ("", "<b>&", "\u2603"):
                if not isinstance(self.call("render_html", lambda text=text: taskset.render_html(text)), str):  # type: ignore[misc]
                    self.add("error", "render_html", "returned no text: return an HTML fragment")

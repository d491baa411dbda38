"""What crosses from a user's environment into this program: every call of one, with what it answers checked.

A call gives back a finished copy of the answer (:mod:`skillsd.envs.answers`), or raises :class:`SkillSDError` in one
line, whatever the environment did. ``skillsd env check`` asks the same. Needs neither torch nor transformers.
"""

from __future__ import annotations

import copy
import numbers
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from types import FrameType
from typing import Any, TypeVar

from skillsd.envs.answers import kind_of, message, prompt_of, score_of, skill_of, step_of, task_of, truth
from skillsd.envs.base import (
    Environment,
    HasFalseSkills,
    HasGroups,
    HasKeys,
    HasReference,
    HasRender,
    HasVerdicts,
    TaskSet,
)
from skillsd.errors import SkillSDError, UsageError, reason, shown
from skillsd.system.interrupt import STOPPING
from skillsd.types import Score, Skill, Step, Task

T = TypeVar("T")
#: Timers, and the signals that they send.
_TIMERS = {
    signal.ITIMER_REAL: signal.SIGALRM,
    signal.ITIMER_VIRTUAL: signal.SIGVTALRM,
    signal.ITIMER_PROF: signal.SIGPROF,
}
#: What torch keeps for everybody, or for a thread: how it is read, how it is put back, and for which device.
_TORCH = [
    ("is_grad_enabled", "set_grad_enabled"),
    ("get_default_dtype", "set_default_dtype"),
    ("get_default_device", "set_default_device"),
    ("get_float32_matmul_precision", "set_float32_matmul_precision"),
    ("get_deterministic_debug_mode", "set_deterministic_debug_mode"),
    ("get_num_threads", "set_num_threads"),
    *(("is_autocast_enabled", "set_autocast_enabled", device) for device in ("cpu", "cuda")),
    *(("get_autocast_dtype", "set_autocast_dtype", device) for device in ("cpu", "cuda")),
]
#: Torch leaves a mode when this is collected.
_modes: list[Any] = []


def make(taskset: TaskSet) -> Environment:
    """A new environment."""
    environment = taskset.make()
    missing = [name for name in ("reset", "step", "score", "close") if not callable(getattr(environment, name, None))]
    if missing:
        raise SkillSDError(
            f"make returned {kind_of(environment)}, which lacks {', '.join(missing)} (skillsd.envs.base)"
        )
    return environment


def reset(environment: Environment, task: Task) -> str:
    """Begin ``task``, of which the environment gets a copy of its own."""
    return prompt_of(environment.reset(copy.deepcopy(task)))


def step(environment: Environment, action: str) -> Step:
    """One turn."""
    return step_of(environment.step(action))


def score(environment: Environment) -> Score:
    """The outcome so far."""
    return score_of(environment.score())


def attributes(name: str, made: Any) -> TaskSet:
    """``made`` as a task set. Raises :class:`UsageError` where it is none."""
    where = f"env {shown(name)}"
    if not _ask(where, lambda: isinstance(made, TaskSet)):
        raise UsageError(f"{where} made no task set: it needs name, max_turns, tasks and make")
    for what in ("tasks", "make"):
        if not callable(getattr(made, what)):
            raise UsageError(f"{where} made no task set: {what} is no method")
    if not (isinstance(made.name, str) and made.name):
        raise UsageError(f"{where}: name is {shown(made.name)}: make it a short text")
    for what in ("max_turns", "max_episodes"):
        value = getattr(made, what, 1)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:  # type: ignore[operator]
            raise UsageError(f"{where}: {what} is {shown(value)}: make it a whole number of at least 1")
    return made  # type: ignore[no-any-return]


def built(name: str, factory: Callable[[], T]) -> T:
    """What the maker of the task set ``name`` makes."""
    return _ask(f"env {shown(name)}: making the task set", factory)


def tasks_of(taskset: TaskSet, split: str, limit: int | None = None) -> list[Task]:
    """Copies of the first ``limit`` tasks of ``split``, which must be the same when they are asked for again.

    Raises :class:`UsageError` for an unknown or empty split, and for tasks that no run could use: of another type,
    with an id that is no short printable text or stands for several tasks, or with data that are no JSON.
    """
    where = _tasks(taskset, split)
    listed = lazily(taskset, split)
    found = _first(where, listed, limit)
    with _about(where):
        ids = Counter(task.id for task in found)
        if found and ids.most_common(1)[0][1] > 1:
            raise UsageError(f"the id {shown(ids.most_common(1)[0][0])} stands for several tasks: give each its own")
    again = lazily(taskset, split)
    if again is not listed:
        second = _first(where, again, limit)
        if [(t.id, t.data) for t in second] != [(t.id, t.data) for t in found]:
            raise UsageError(f"{where}: gave other tasks, or another order, when asked again: keep both fixed")
    return found


def _first(where: str, listed: Sequence[Any], limit: int | None) -> list[Task]:
    most = None if limit is None else min(limit, sys.maxsize)
    items = _ask(where, lambda: list(islice(listed, most)))
    with _about(where):
        return [_usable(item) for item in items]


def lazily(taskset: TaskSet, split: str) -> Sequence[Any]:
    """What ``tasks(split)`` gives, for splits of which only some tasks are made: give each to :func:`task_of`."""
    where = _tasks(taskset, split)
    listed = _ask(where, lambda: taskset.tasks(split))
    if not hasattr(listed, "__len__") or not hasattr(listed, "__getitem__"):
        raise UsageError(f"{where} returned {kind_of(listed)}: return a list of Task")
    if not len(listed):
        raise UsageError(f"{where} is empty: the split has no tasks")
    return listed


def _tasks(taskset: TaskSet, split: str) -> str:
    return f"env {shown(getattr(taskset, 'name', '?'))}: tasks({shown(split)})"


def _usable(item: Any) -> Task:
    try:
        return task_of(item)
    except SkillSDError as error:
        raise UsageError(str(error)) from None


def reference(taskset: TaskSet, task: Task) -> Skill | None:
    """The task set's own solution of ``task``; None where it has none."""
    if not isinstance(taskset, HasReference):
        return None
    where = f"reference of task {shown(task.id)}"
    told = _ask(where, lambda: taskset.reference(copy.deepcopy(task)))
    with _about(where):
        return skill_of(told)


def groups(taskset: TaskSet, tasks: Sequence[Task]) -> dict[str, str]:
    """By id, what kind each task is of. Raises :class:`UsageError` where the task set does not tell."""
    if not isinstance(taskset, HasGroups):
        name = shown(getattr(taskset, "name", "?"))
        raise UsageError(f"skills.scope = group: env {name} does not tell which tasks are of a kind (HasGroups)")
    found = {}
    for task in tasks:
        where = f"group of task {shown(task.id)}"
        told = _ask(where, lambda task=task: taskset.group(copy.deepcopy(task)))  # type: ignore[misc]
        with _about(where):
            found[task.id] = message(told, "a name")
    return found


def foreign(taskset: HasFalseSkills, task: Task) -> Skill:
    """What ``task`` would teach where none of its facts hold."""
    where = f"foreign skill of task {shown(task.id)}"
    told = _ask(where, lambda: taskset.foreign(copy.deepcopy(task)))
    with _about(where):
        return skill_of(told)


def falsified(taskset: HasFalseSkills, task: Task, skill: Skill) -> Skill:
    """``skill`` with its facts altered."""
    where = f"falsified skill of task {shown(task.id)}"
    told = _ask(where, lambda: taskset.falsified(copy.deepcopy(task), skill))
    with _about(where):
        return skill_of(told)


def demonstration(taskset: Any, task: Task) -> list[str]:
    """The assistant messages of an episode that solves ``task``."""
    where = f"demonstration of task {shown(task.id)}"
    told = _ask(where, lambda: taskset.demonstrate(copy.deepcopy(task)))
    with _about(where):
        if isinstance(told, str) or not isinstance(told, Sequence) or not len(told):
            raise SkillSDError(f"is {kind_of(told)}: return a list of messages that is not empty")
        return [message(each, "a message") for each in told]


def verdicts(taskset: TaskSet, task: Task, actions: Sequence[str]) -> list[bool | None] | None:
    """For each of ``actions`` whether it was good; None for a task set that does not judge."""
    if not isinstance(taskset, HasVerdicts):
        return None
    where = f"verdicts on task {shown(task.id)}"
    told = _ask(where, lambda: list(taskset.verdicts(copy.deepcopy(task), list(actions))))
    with _about(where):
        if len(told) != len(actions):
            raise SkillSDError(f"{len(told)} for {len(actions)} actions: return one for each")
        return [None if each is None else truth(each, "one") for each in told]


def keys(taskset: TaskSet) -> dict[str, str]:
    """What a key of ``skillsd play`` stands for; empty where actions are written."""
    if not isinstance(taskset, HasKeys):
        return {}
    told = _ask("play_keys", lambda: dict(taskset.play_keys))
    return {
        message(key, "a key of play_keys"): message(action, "an action of play_keys") for key, action in told.items()
    }


def drawing(taskset: TaskSet | None, observation: str) -> str | None:
    """The task set's HTML for ``observation``; None where it has none or fails: no report is lost to its pictures."""
    if not isinstance(taskset, HasRender):
        return None
    try:
        return message(_ask("render_html", lambda: taskset.render_html(observation)), "render_html")
    except SkillSDError:
        return None


# -- what may go wrong around a call -------------------------------------------------------------------------


def _ask(where: str, function: Callable[[], T]) -> T:
    """``function()``, which is somebody else's: what it raises becomes a line that begins with ``where``.

    Our own errors pass, as does the user's ctrl-C.
    """
    with undisturbed() as pressed:
        try:
            return function()
        except SkillSDError:
            raise
        except (Exception, SystemExit) as error:
            raise SkillSDError(f"{where} raised {reason(error)}") from None
        except KeyboardInterrupt as error:
            if pressed():
                raise
            raise SkillSDError(f"{where} raised {reason(error)}") from None


@contextmanager
def _about(where: str) -> Iterator[None]:
    """Errors of our own checks begin with ``where``."""
    try:
        yield
    except SkillSDError as error:
        raise type(error)(f"{where}: {error}") from None


@contextmanager
def same_folder() -> Iterator[None]:
    """The working folder is afterwards what it was: paths of settings are relative to it."""
    folder = None
    with suppress(OSError):  # it may have been deleted
        folder = os.getcwd()
    try:
        yield
    finally:
        if folder is not None:
            with suppress(OSError):
                os.chdir(folder)


def _told(torch: Any, get: str, *device: str) -> Any:
    try:
        return getattr(torch, get)(*device)
    except RuntimeError:  # a precision that was set for single backends cannot be told
        return None


def _depth(torch: Any) -> int:
    """How many autocast blocks this thread is in; what they have cast is forgotten at the end of the outermost."""
    torch.autocast_increment_nesting()
    return int(torch.autocast_decrement_nesting())


@contextmanager
def same_torch() -> Iterator[None]:
    """Torch's settings are afterwards what they were, in this thread and in all; torch is not imported for that."""
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "autocast"):  # not, or only partly, imported
        yield
        return
    before = [(setting, _told(torch, setting[0], *setting[2:])) for setting in _TORCH]
    inference, depth = torch.is_inference_mode_enabled(), _depth(torch)
    try:
        yield
    finally:
        if torch.is_inference_mode_enabled() != inference:  # first, as it sets whether there are gradients
            _modes.append(torch.inference_mode(inference))
            _modes[-1].__enter__()
        if _depth(torch) > depth:
            while torch.autocast_decrement_nesting() > depth:
                pass
            torch.clear_autocast_cache()
        for (get, put, *device), value in before:
            if value is not None and _told(torch, get, *device) != value:
                getattr(torch, put)(*device, None if value == torch.device("cpu") else value)


@contextmanager
def untimed() -> Iterator[None]:
    """No timer that is set meanwhile outlives it or, in the main thread, ends the program as it would by default."""
    main = threading.current_thread() is threading.main_thread()  # handlers belong to it
    free = [timer for timer in _TIMERS if not signal.getitimer(timer)[0]]
    handlers = {number: signal.getsignal(number) for number in _TIMERS.values()}
    for number, handler in handlers.items():
        if main and handler is signal.SIG_DFL:
            signal.signal(number, lambda number, frame: None)
    try:
        yield
    finally:
        for timer in free:
            signal.setitimer(timer, 0)
        for number, handler in handlers.items():
            if main and handler is not None:
                signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[Callable[[], bool]]:
    """Folder, signals, timers and torch are afterwards what they were. Gives: whether a signal to stop came."""
    pressed: list[int] = []
    handlers = {number: signal.getsignal(number) for number in STOPPING}

    def press(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        handlers[signal.Signals(number)](number, frame)  # type: ignore[operator, misc]

    main = threading.current_thread() is threading.main_thread()
    with same_folder(), same_torch(), untimed():
        for number, handler in handlers.items():
            if main and callable(handler):
                signal.signal(number, press)
        try:
            yield lambda: bool(pressed)
        finally:
            for number, handler in handlers.items():
                if main and handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)

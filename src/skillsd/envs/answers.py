"""What an environment may answer: each kind checked, and copied so that it shares nothing with the environment.

Every function raises :class:`SkillSDError`, in one line that names the fault and its remedy.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

from skillsd.envs.plain import plain, text
from skillsd.errors import SkillSDError, reason, shown
from skillsd.types import Score, Skill, Step, Task

#: Characters of a task's id, of a message, and of an event's name.
LONGEST_ID, LONGEST_MESSAGE, LONGEST_EVENT = 200, 4_000_000, 60
#: Rewards beyond it, squared, are infinite in fp32.
MOST_REWARD = 1e15


def message(value: Any, what: str) -> str:
    """A text for the policy: exact, encodable as UTF-8."""
    if not isinstance(value, str):
        raise SkillSDError(f"{what} is {kind_of(value)}: make it a text (str)")
    if len(value) > LONGEST_MESSAGE:
        raise SkillSDError(f"{what} has {len(value)} characters: {LONGEST_MESSAGE} are the most")
    return text(value)


def truth(value: Any, what: str) -> bool:
    """A truth value: bool, NumPy's, or the numbers 0 and 1. Texts, None and containers are none."""
    if isinstance(value, bool):
        return value
    number = _scalar(value)
    if isinstance(number, numbers.Integral) and number in (0, 1):
        return bool(number)
    raise SkillSDError(f"{what} is {shown(value)}: make it True or False")


def finite(value: Any, what: str) -> float:
    """A finite number. Numbers of Python, NumPy and torch are; texts and None are none."""
    number = _scalar(value)
    if isinstance(number, numbers.Real):
        try:
            found = float(number)
        except OverflowError:
            raise SkillSDError(f"{what} is {shown(number)}, too large for a float: make it smaller") from None
        if not math.isfinite(found):
            raise SkillSDError(f"{what} is {found}: make it finite")
        return found
    raise SkillSDError(f"{what} is {kind_of(value)}: make it a float")


def _scalar(value: Any) -> Any:
    """The number in what has one value and no dimension, such as ``np.bool_(True)``; anything else as it is."""
    if isinstance(value, numbers.Number | str) or getattr(value, "shape", None) != ():
        return value
    return value.item()


def kind_of(value: Any) -> str:
    """The name of its type, for a message."""
    return "None" if value is None else type(value).__name__


def prompt_of(answer: Any) -> str:
    """What ``reset`` answered."""
    if not isinstance(answer, str):
        raise SkillSDError(f"reset answered with {kind_of(answer)}, not str: return the first user message, a text")
    return message(answer, "the prompt")


def step_of(answer: Any) -> Step:
    """What ``step`` answered; ``info`` is made plain JSON, ``valid`` a bool, ``events`` a list of short names."""
    if not isinstance(answer, Step):
        raise SkillSDError(
            f"malformed answer: step returned {kind_of(answer)}: return skillsd.envs.Step(observation, done, info)"
        )
    observation, done = message(answer.observation, "observation"), truth(answer.done, "done")
    if not isinstance(answer.info, Mapping):
        raise SkillSDError(f"info is {kind_of(answer.info)}: make it a dict")
    info = plain(answer.info)
    if not isinstance(info, dict):
        raise SkillSDError("info cannot be read: make it a dict of texts, numbers and lists")
    if "valid" in info:
        info["valid"] = truth(info["valid"], "info['valid']")
    if not isinstance(info.get("action"), str | None):
        raise SkillSDError(f"info['action'] is {kind_of(info['action'])}: make it a text, or None")
    events = info.get("events", [])
    if not (isinstance(events, list) and all(isinstance(event, str) for event in events)):
        raise SkillSDError(f"info['events'] is {shown(events)}: make it a list of names")
    if "events" in info:
        info["events"] = [event[:LONGEST_EVENT] for event in events]
    return Step(observation, done, info)


def score_of(answer: Any) -> Score:
    """What ``score`` answered."""
    if not isinstance(answer, Score):
        raise SkillSDError(f"score returned {kind_of(answer)}: return skillsd.envs.Score(reward, success, completion)")
    reward, completion = finite(answer.reward, "reward"), finite(answer.completion, "completion")
    if abs(reward) > MOST_REWARD:
        raise SkillSDError(f"reward is {reward:g}: keep it within {MOST_REWARD:g}")
    if not -1e-6 <= completion <= 1 + 1e-6:
        raise SkillSDError(f"completion is {completion:g}: keep it in [0, 1]")
    return Score(reward, truth(answer.success, "success"), min(1.0, max(0.0, completion)))


def task_of(item: Any) -> Task:
    """A copy of one item of ``tasks(split)``, of its own type."""
    if not isinstance(item, Task):
        raise SkillSDError(f"holds a {kind_of(item)}: every item must be a skillsd.envs.Task")
    name, data = item.id, item.data
    if not (isinstance(name, str) and name):
        raise SkillSDError(f"a task's id is {shown(name)}: make it a text (str) that is not empty")
    name = str.__str__(name)
    if len(name) > LONGEST_ID or not name.isprintable():
        raise SkillSDError(
            f"a task's id is {shown(name)} ({len(name)} characters): {LONGEST_ID} are the most, all of them printable"
        )
    if not isinstance(data, Mapping):
        raise SkillSDError(f"data of task {shown(name)} is {kind_of(data)}: make it a dict")
    try:
        json.dumps(dict(data), allow_nan=False)
        other = [key for key in _keys(data) if not isinstance(key, str)]
    except (TypeError, ValueError, RecursionError) as error:
        raise SkillSDError(
            f"data of task {shown(name)} is no JSON ({reason(error, 80)}): use texts, numbers, lists and dicts"
        ) from None
    if other:
        raise SkillSDError(
            f"data of task {shown(name)} have the key {shown(other[0])}: keys of data must be texts (str)"
        )
    try:
        copied = copy.deepcopy(item if type(item.id) is str else dataclasses.replace(item, id=name))
        same = type(copied) is type(item) and (copied.id, dict(copied.data)) == (name, dict(data))
    except Exception as error:
        raise SkillSDError(f"task {shown(name)} cannot be copied ({reason(error, 80)})") from None
    if not same:
        raise SkillSDError(f"task {shown(name)} cannot be copied (the copy is another): leave copying to Python")
    return copied


def _keys(value: Any) -> Iterator[Any]:
    """The keys of all dicts in a value of JSON."""
    if isinstance(value, Mapping):
        yield from value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _keys(item)


def skill_of(answer: Any) -> Skill:
    """What ``reference`` answered."""
    if not isinstance(answer, Skill):
        raise SkillSDError(f"returned {kind_of(answer)}: return skillsd.skills.Skill(...)")
    return Skill.parse({name: getattr(answer, name, None) for name in Skill.model_fields})

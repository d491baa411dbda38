"""What a comparison may show the teacher instead of its task's own skill, to learn what a skill is worth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from skillsd.envs import boundary
from skillsd.envs.base import HasFalseSkills, HasGroups, TaskSet
from skillsd.errors import UsageError
from skillsd.methods import SHOWN as SHOWN  # where version 0.1 had it
from skillsd.methods import Shown
from skillsd.types import Skill, Task

_FIELDS = tuple(Skill.model_fields)
#: Words that say nothing about any task.
_WORDS = (  # noqa: SIM905
    "about after again also before between chair cloud copper during early every garden however into "
    "letter many maybe milk never number often paper quiet river seven silver some stone summer table "
    "their under until which window winter without yellow"
).split()


def show(
    shown: Shown,
    skills: Mapping[str, Skill],
    seed: int,
    taskset: TaskSet | None = None,
    tasks: Mapping[str, Task] | None = None,
) -> dict[str, Skill | None]:
    """``skills`` by task as the teacher is to see them; same tasks, except as said.

    ``shuffled``: every task gets the skill of another task of the batch (none if there is no other); ``foreign``: one
    that shares no fact with its own, and ``falsified``: its own with the facts altered, which the ``taskset`` has to
    know; ``empty``: the labels alone; ``random_text``: each field's words replaced by random ones;
    ``no_FIELD``: that field left empty; ``none``: no skill at all, the teacher reads the plain prompt. That leaves of
    the distillation a reverse KL to the teacher's weights, nothing where they are the student's own.
    """
    rng = np.random.default_rng(seed)
    if shown == "own":
        return dict(skills)
    if shown == "none":
        return dict.fromkeys(skills)
    if shown in ("foreign", "falsified"):
        if not isinstance(taskset, HasFalseSkills) or tasks is None:
            raise UsageError(f"skills.shown = {shown}: this task set cannot tell false skills (HasFalseSkills)")
        if shown == "foreign":
            return {task: boundary.foreign(taskset, tasks[task]) for task in skills}
        return {task: boundary.falsified(taskset, tasks[task], skill) for task, skill in skills.items()}
    if shown == "shuffled":
        if shared(taskset):
            raise UsageError("skills.shown = shuffled: what one task's skill says holds for others here: use foreign")
        order = [list(skills)[i] for i in rng.permutation(len(skills))]
        others = [*order[1:], *order[:1]]
        return {task: skills[other] for task, other in zip(order, others, strict=True) if task != other}
    if shown == "random_text":
        return {task: _rewritten(skill, rng) for task, skill in skills.items()}
    emptied = _FIELDS if shown == "empty" else (shown.removeprefix("no_"),)
    # A Skill of the bank never has empty fields, so these copies skip its checks.
    return {task: skill.model_copy(update=dict.fromkeys(emptied, "")) for task, skill in skills.items()}


def shared(taskset: TaskSet | None) -> bool:
    """Whether other tasks' skills may tell the facts of a task, and the task set knows ones that do not."""
    return isinstance(taskset, HasGroups) and isinstance(taskset, HasFalseSkills)


def _rewritten(skill: Skill, rng: np.random.Generator) -> Skill:
    texts = {}
    for field in _FIELDS:
        count = len(getattr(skill, field).split())
        texts[field] = " ".join(_WORDS[i] for i in rng.integers(0, len(_WORDS), count)).capitalize() + "."
    return Skill(**texts)

"""What the teacher reads in one iteration: from the bank, from the task set's solutions, or in hindsight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from skillsd.envs.base import HasReference, Task, TaskSet
from skillsd.skills.bank import SkillBank
from skillsd.skills.controls import Shown, show
from skillsd.skills.skill import Skill
from skillsd.skills.summarize.base import Summarizer, SummaryRequest
from skillsd.skills.summarize.intake import best_of_each_task
from skillsd.skills.summarize.queue import summarize_now
from skillsd.trajectory import Trajectory


@dataclass(frozen=True)
class Hint:
    """The skill that a task's teacher reads in this iteration (None: the control without one).

    ``id`` is None if it is not the bank's.
    """

    skill: Skill | None
    id: int | None


Hints = dict[str, Hint]


def from_bank(tasks: Sequence[Task], bank: SkillBank) -> Hints:
    """S(x) for every task that the bank knows something about: the UCB choice, once a task and iteration."""
    found = {task.id: bank.retrieve(task.id) for task in tasks}
    return {task_id: Hint(stored.skill, stored.id) for task_id, stored in found.items() if stored is not None}


def from_reference(tasks: Sequence[Task], taskset: TaskSet) -> Hints:
    """The task set's own solutions; none where it has none."""
    return {t.id: Hint(taskset.reference(t), None) for t in tasks} if isinstance(taskset, HasReference) else {}


def in_hindsight(
    trajectories: Sequence[Trajectory],
    tasks: Mapping[str, Task],
    summarizer: Summarizer,
    warn: Callable[[str], None],
    workers: int = 2,
) -> Hints:
    """The skill of each group's own best success (as OPID does, arXiv:2606.26790); none for a group without one."""
    best = best_of_each_task([t for t in trajectories if t.success], 1)
    hints: Hints = {}
    for summary in summarize_now(summarizer, [SummaryRequest(t, tasks[t.task_id]) for t in best], workers):
        if summary.skill is not None:
            hints[summary.trajectory.task_id] = Hint(summary.skill, None)
        else:  # the bank's skill is used instead
            warn(f"no skill from {summary.trajectory.id}: {summary.error}")
    return hints


def as_shown(hints: Hints, shown: Shown, seed: int) -> Hints:
    """``hints`` as the control ``shown`` presents them; credit still goes to the task's own skill."""
    skills = show(shown, {task_id: hint.skill for task_id, hint in hints.items() if hint.skill}, seed)
    return {task_id: Hint(skill, hints[task_id].id) for task_id, skill in skills.items()}

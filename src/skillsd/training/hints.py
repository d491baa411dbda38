"""What the teacher reads in one iteration: from the bank, from the task set's solutions, or in hindsight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from skillsd.envs import boundary
from skillsd.envs.base import TaskSet
from skillsd.methods import Shown
from skillsd.skills.bank import SkillBank
from skillsd.skills.controls import show
from skillsd.skills.summarize.intake import best_of_each_task
from skillsd.skills.summarize.queue import summarize_now
from skillsd.types import Hint, Hints, Summarizer, SummaryRequest, Task, Trajectory


def from_bank(tasks: Sequence[Task], bank: SkillBank, groups: Mapping[str, str] | None = None) -> Hints:
    """S(x) for every task that the bank knows something about: the UCB choice, once a task and iteration.

    With ``groups`` (the kinds of all tasks, by id) a task without a skill reads the best of those of its kind.
    """
    found = {task.id: bank.retrieve(task.id) for task in tasks}
    for task_id in [name for name, stored in found.items() if stored is None and groups]:
        assert groups is not None
        found[task_id] = bank.retrieve_any([other for other, kind in groups.items() if kind == groups[task_id]])
    return {task_id: Hint(stored.skill, stored.id) for task_id, stored in found.items() if stored is not None}


def from_reference(tasks: Sequence[Task], taskset: TaskSet) -> Hints:
    """The task set's own solutions; none where it has none."""
    found = {task.id: boundary.reference(taskset, task) for task in tasks}
    return {task_id: Hint(skill, None) for task_id, skill in found.items() if skill is not None}


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


def as_shown(
    hints: Hints, shown: Shown, seed: int, taskset: TaskSet | None = None, tasks: Mapping[str, Task] | None = None
) -> Hints:
    """``hints`` as the control ``shown`` presents them; credit still goes to the task's own skill."""
    skills = {task_id: hint.skill for task_id, hint in hints.items() if hint.skill}
    return {task: Hint(skill, hints[task].id) for task, skill in show(shown, skills, seed, taskset, tasks).items()}

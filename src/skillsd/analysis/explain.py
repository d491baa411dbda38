"""One episode, action by action: what the student thought of it, what its teacher did, and what training made of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from skillsd.analysis.evaluate import open_policy
from skillsd.analysis.probe import action_spans
from skillsd.config import Config
from skillsd.envs import boundary
from skillsd.envs.base import TaskSet
from skillsd.errors import UsageError
from skillsd.policy.loading import Policy, load_policy
from skillsd.runs.folder import RunDir
from skillsd.skills.bank import SkillBank
from skillsd.skills.summarize import make_summarizer
from skillsd.skills.teacher_view import skill_view
from skillsd.training.hints import in_hindsight
from skillsd.training.scoring import Row, Scorer
from skillsd.types import Skill, Task, Trajectory


@dataclass(frozen=True)
class Action:
    """Log-probabilities (nats) of one assistant message: ``then`` as it was sampled, ``teacher`` with the skill,
    ``now`` under the plain prompt with the newest weights. ``good``: the task set's verdict, None without one."""

    text: str
    observation: str
    then: float
    teacher: float
    now: float
    good: bool | None


@dataclass(frozen=True)
class Explanation:
    """An episode, the skill that its teacher read, and its actions."""

    trajectory: Trajectory
    skill: Skill
    actions: list[Action]


def explain(run: str | Path, episode: str | None = None, teacher: str | None = None) -> Explanation:
    """Explain the episode with the id ``episode`` (ITERATION/TASK/SAMPLE); default: a failure of the last iteration.

    The teacher is the run's first model where its weights were frozen, else the newest checkpoint (older ones are not
    kept), or the model ``teacher``. Raises :class:`UsageError` for an episode that is not there or had no skill.
    """
    folder = RunDir(run)
    student, taskset, config = open_policy(run)
    if config.skills.shown != "own":
        raise UsageError(f"{run}: its teacher was shown {config.skills.shown} skills, which are not kept")
    if config.skills.summarizer == "policy" and config.spec.privileged == "hindsight":
        raise UsageError(f"{run}: its teacher read what older weights summarised, which is not kept")
    batch, wanted = _find(folder, episode)
    tasks = {t.id: t for t in boundary.tasks_of(taskset, config.env.train_split)}
    if strange := next((t.task_id for t in batch if t.task_id not in tasks), None):
        raise UsageError(f"{run}: {config.env.name} has no task {strange!r} any more")
    skills = _skills(folder, config, batch, taskset, tasks)
    trajectory = next((t for t in wanted if t.id in skills), None)
    if trajectory is None:
        raise UsageError(f"{run}: the teacher of {episode or 'the last iteration'} read no skill that is still known")
    reader = student
    if teacher is not None:
        reader = open_policy(teacher)[0]
    elif config.spec.teacher == "frozen":
        reader = load_policy(config.model, day=folder.day())
    skill = skills[trajectory.id]
    task = tasks.get(trajectory.task_id)
    if task is None:
        raise UsageError(f"{run}: {config.env.name} has no task {trajectory.task_id!r} any more")
    return Explanation(trajectory, skill, _actions(student, reader, config, taskset, task, trajectory, skill))


def _find(folder: RunDir, episode: str | None) -> tuple[list[Trajectory], list[Trajectory]]:
    """An iteration's episodes, and those to choose from: the wanted one, or all of the last iteration."""
    if episode is None:
        recorded = folder.recorded()
        if not recorded:
            raise UsageError(f"{folder.path} holds no episodes yet")
        batch = folder.read_trajectories(recorded[-1])
        return batch, sorted(batch, key=lambda t: t.success)
    number = episode.partition("/")[0]
    if not number.isdecimal() or int(number) not in folder.recorded():
        raise UsageError(f"{folder.path} holds no episode {episode!r}: ids are ITERATION/TASK/SAMPLE")
    batch = folder.read_trajectories(int(number))
    found = [t for t in batch if t.id == f"{int(number):06d}{episode[len(number) :]}"]
    if not found:
        raise UsageError(
            f"{folder.path} holds no episode {episode!r}; it has {', '.join(t.id for t in batch[:3])}, ..."
        )
    return batch, found


def _skills(
    folder: RunDir, config: Config, batch: list[Trajectory], taskset: TaskSet, tasks: Mapping[str, Task]
) -> dict[str, Skill]:
    """What the teacher read, by episode: of the group's best success, or from the bank where it is still there."""
    with closing(SkillBank(folder.bank, create=False)) as bank:
        stored = {s.id: s.skill for s in bank.skills(warn=lambda text: None)}  # one that is damaged is not known
    found = {t.id: stored[t.teacher_skill_id] for t in batch if t.teacher_skill_id in stored}
    if config.spec.privileged == "hindsight":
        summarizer = make_summarizer(config.skills.summarizer, config, taskset=taskset, folder=folder.path)
        hints = in_hindsight(batch, tasks, summarizer, lambda text: None, config.skills.workers)
        found |= {t.id: skill for t in batch if t.task_id in hints and (skill := hints[t.task_id].skill)}
    return found


def _actions(
    student: Policy,
    teacher: Policy,
    config: Config,
    taskset: TaskSet,
    task: Task,
    trajectory: Trajectory,
    skill: Skill,
) -> list[Action]:
    row = Row(
        trajectory, student.chat.prompt(trajectory.prompt), teacher.chat.prompt(skill_view(skill, trajectory.prompt))
    )
    scorer, width = Scorer(student.model, config), trajectory.action_tokens
    now = scorer.logps(student.model, [row.student()], width)[0]
    read = scorer.logps(teacher.model, [row.teacher()], width)[0]
    then = [value for value, action in zip(trajectory.logps, trajectory.action_mask, strict=True) if action]
    spans = action_spans(trajectory.action_mask)
    said = [turn.action for turn in trajectory.turns]
    verdicts = boundary.verdicts(taskset, task, said) or [None] * len(spans)
    actions = []
    parts = zip(torch.tensor(then).split(spans), read.split(spans), now.split(spans), strict=True)
    for turn, good, logps in zip(trajectory.turns, verdicts, parts, strict=True):
        then_, read_, now_ = (float(logp.sum()) for logp in logps)
        actions.append(Action(turn.action, turn.observation, then_, read_, now_, good))
    return actions

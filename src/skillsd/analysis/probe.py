"""What does a teacher know? Kinds of skills, judged on what the student really did.

The student plays under the plain prompt; the teacher reads a skill and re-scores the student's actions. It is worth
learning from if it solves more tasks with the skill than without, and if its disagreement ``l = log pi_student -
log pi_teacher`` is low on good actions and high on bad ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from skillsd.config import Config, with_overrides
from skillsd.envs import boundary
from skillsd.envs.base import HasFalseSkills, HasReference, HasRules, HasVerdicts, TaskSet
from skillsd.errors import SkillSDError
from skillsd.methods import Shown
from skillsd.policy.loading import Policy
from skillsd.rollouts.playing import play
from skillsd.rollouts.rollout import Job
from skillsd.seeding import derive_seed
from skillsd.skills.controls import shared, show
from skillsd.skills.summarize import Summarizer
from skillsd.skills.summarize.queue import summarize_now
from skillsd.skills.teacher_view import skill_view
from skillsd.training.hints import in_hindsight
from skillsd.training.scoring import Row, Scorer
from skillsd.types import Skill, SummaryRequest, Task, Trajectory

#: The settings that count here.
USED = (
    "seed", "skills.summarizer", "skills.workers", "summarizer", "env.turn_timeout", "env.episode_timeout",
    "optim.max_tokens_per_device", "rollout.temperature", "rollout.max_new_tokens", "rollout.max_tokens",
    "rollout.max_turns", "rollout.batch_size",
)  # fmt: skip
#: Tells (what is being done).
Listener = Callable[[str], None]


@dataclass(frozen=True)
class Reading:
    """One kind of skill. None stands for what cannot be measured: no such skills, or nothing to tell apart.

    ``tasks`` had such a skill; the rest is about them alone. ``accuracy``: the teacher's own, greedy, with the skill in
    its prompt. ``l_rms``: root mean square of l over action tokens, nats. ``action_auc``: the chance that a good
    action has a lower l than a bad one (0.5: the teacher cannot tell them apart), ``action_correlation`` that of -l
    with the verdict; both need a task set with verdicts. ``episode_auc``: the chance that within a group a success
    has a lower mean l than a failure.
    """

    kind: str
    tasks: int
    accuracy: float | None
    l_rms: float | None
    action_auc: float | None
    action_correlation: float | None
    episode_auc: float | None


def auc(low: Sequence[float], high: Sequence[float]) -> float | None:
    """The chance that a value of ``low`` lies below one of ``high``; ties count half. None if either is empty."""
    if not len(low) or not len(high):
        return None
    ordered = np.sort(np.asarray(high, dtype=np.float64))
    below, equal_or_below = (np.searchsorted(ordered, low, side=side) for side in ("left", "right"))
    return float(1.0 - (below + equal_or_below).mean() / (2 * len(ordered)))


def _auc(values: Sequence[float], good: Sequence[bool]) -> float | None:
    pairs = list(zip(values, good, strict=True))
    return auc([value for value, is_good in pairs if is_good], [value for value, is_good in pairs if not is_good])


def _correlation(values: Sequence[float], good: Sequence[bool]) -> float | None:
    if len(set(good)) < 2 or np.ptp(values) == 0:
        return None
    return float(np.corrcoef(-np.asarray(values), np.asarray(good, dtype=np.float64))[0, 1])


def action_spans(mask: Sequence[int]) -> list[int]:
    """How many action tokens each turn has: the lengths of the runs of ones in ``mask``."""
    text = "".join("1" if action else " " for action in mask)
    return [len(run) for run in text.split()]


def kinds_of_skills(
    groups: Mapping[str, Sequence[Trajectory]],
    tasks: Mapping[str, Task],
    taskset: TaskSet,
    summarizer: Summarizer,
    seed: int,
    warn: Listener,
    workers: int = 2,
) -> Iterator[tuple[str, dict[str, Skill | None]]]:
    """(name, skill by task): no skill, own success and failure, the reference, and the controls of the own success."""
    yield "no skill", dict.fromkeys(groups)
    everything = [t for group in groups.values() for t in group]
    own = {
        task: hint.skill
        for task, hint in in_hindsight(everything, tasks, summarizer, warn, workers).items()
        if hint.skill
    }
    yield "own success", {**own}
    failures = {t.task_id: t for t in everything if not t.success}
    told = summarize_now(summarizer, [SummaryRequest(t, tasks[k]) for k, t in failures.items()], workers)
    for summary in told:
        if summary.skill is None:
            warn(f"no skill from {summary.trajectory.id}: {summary.error}")
    yield "own failure", {s.trajectory.task_id: s.skill for s in told if s.skill}
    bases = {"own success": own}
    if isinstance(taskset, HasReference):
        bases["reference"] = {task: skill for task in groups if (skill := boundary.reference(taskset, tasks[task]))}
        yield "reference", {**bases["reference"]}
    for base, skills in bases.items():
        cannot = () if isinstance(taskset, HasFalseSkills) else ("foreign", "falsified")
        for control in get_args(Shown):
            if control in ("own", "none", *cannot) or (control == "shuffled" and shared(taskset)):
                continue  # both are there already; those are refused
            yield f"{base}, {control}", {**show(control, skills, seed, taskset, tasks)}


def suitable(config: Config, taskset: TaskSet, warn: Listener) -> Config:
    """``config`` with a summariser that can read the tasks, where nobody chose one: raw trajectories as skills."""
    if config.skills.summarizer != "rules" or isinstance(taskset, HasRules):
        return config
    warn("skills.summarizer = rules: this task set has none: trajectory is used; --set skills.summarizer=... instead")
    return with_overrides(config, ["skills.summarizer=trajectory"])


def probe(
    student: Policy,
    teacher: Policy,
    taskset: TaskSet,
    config: Config,
    summarizer: Summarizer,
    *,
    split: str,
    limit: int | None = None,
    samples: int = 8,
    on_part: Listener = lambda name: None,
    warn: Listener = lambda text: None,
) -> list[Reading]:
    """Let the student play ``samples`` episodes a task and judge every kind of skill on them."""
    tasks = {task.id: task for task in boundary.tasks_of(taskset, split, limit)}
    on_part("the student plays")
    jobs = [
        Job(task, sample, derive_seed(config.seed, "probe", split, task.id, sample))
        for task in tasks.values()
        for sample in range(samples)
    ]
    batch = play(student.model, student.chat, taskset, config, jobs, config.rollout.temperature)
    for reason, count in Counter(d.reason for d in batch.dropped).items():
        warn(f"{count} of {len(jobs)} episodes dropped: {reason}")
    if not batch.trajectories:
        raise SkillSDError(f"every episode was dropped ({batch.dropped[0].reason})")
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in batch.trajectories:
        if trajectory.action_tokens:
            groups.setdefault(trajectory.task_id, []).append(trajectory)
    scorer = Scorer(student.model, config)
    readings = []
    seed = derive_seed(config.seed, "probe")
    for kind, skills in kinds_of_skills(groups, tasks, taskset, summarizer, seed, warn, config.skills.workers):
        on_part(kind)
        rows = [t for task in skills for t in groups[task]]
        guided = [Job(tasks[task], 0, seed, skill) for task, skill in skills.items()]
        solved = play(teacher.model, teacher.chat, taskset, config, guided, 0.0).trajectories
        readings.append(
            _reading(
                kind,
                len(skills),
                sum(t.success for t in solved) / len(skills) if skills else None,
                rows,
                _disagreement(scorer, teacher, rows, skills),
                _verdicts(taskset, tasks, rows),
            )
        )
    return readings


def _disagreement(
    scorer: Scorer, teacher: Policy, rows: Sequence[Trajectory], skills: Mapping[str, Skill | None]
) -> list[Tensor]:
    """l of every action token, trajectory by trajectory."""
    views = []
    for t in rows:
        skill = skills[t.task_id]
        shown = t.prompt if skill is None else skill_view(skill, t.prompt)
        views.append(Row(t, t.prompt_ids, teacher.chat.prompt(shown)))
    width = max((t.action_tokens for t in rows), default=0)
    student = scorer.logps(scorer.model, [v.student() for v in views], width)
    scores = scorer.logps(teacher.model, [v.teacher() for v in views], width)
    return [(s - q)[: t.action_tokens] for s, q, t in zip(student, scores, rows, strict=True)]


def _verdicts(
    taskset: TaskSet, tasks: Mapping[str, Task], rows: Sequence[Trajectory]
) -> list[list[bool | None]] | None:
    if not isinstance(taskset, HasVerdicts):
        return None
    return [boundary.verdicts(taskset, tasks[t.task_id], [turn.action for turn in t.turns]) or [] for t in rows]


def _reading(
    kind: str,
    tasks: int,
    accuracy: float | None,
    rows: Sequence[Trajectory],
    disagreement: Sequence[Tensor],
    verdicts: Sequence[Sequence[bool | None]] | None,
) -> Reading:
    tokens = torch.cat(list(disagreement)) if rows else torch.zeros(0)
    values: list[float] = []  # l of each judged action, and whether it was good
    good: list[bool] = []
    for t, row, judged in zip(rows, disagreement, verdicts or [[]] * len(rows), strict=True):
        for turn, verdict in zip(row.split(action_spans(t.action_mask)), judged, strict=False):
            if verdict is not None:
                values.append(float(turn.sum()))
                good.append(verdict)
    within = []
    for task in {t.task_id for t in rows}:
        means = [(t.success, float(row.mean())) for t, row in zip(rows, disagreement, strict=True) if t.task_id == task]
        within.append(_auc([mean for _, mean in means], [won for won, _ in means]))
    told = [value for value in within if value is not None]
    return Reading(
        kind=kind,
        tasks=tasks,
        accuracy=accuracy,
        l_rms=math.sqrt(float((tokens**2).mean())) if len(tokens) else None,
        action_auc=_auc(values, good),
        action_correlation=_correlation(values, good),
        episode_auc=sum(told) / len(told) if told else None,
    )

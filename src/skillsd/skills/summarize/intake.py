"""Which trajectories go to the summariser, and how its skills get into the bank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from skillsd.skills.bank import SkillBank, Source
from skillsd.skills.summarize.queue import Summary
from skillsd.trajectory import Trajectory

#: Reasons that are told of in one go.
_LINES = 3


def best_of_each_task(trajectories: Sequence[Trajectory], limit: int) -> list[Trajectory]:
    """At most ``limit`` a task (0: all): the best reward first, then the shortest (PAPER, gap "backlog")."""
    if limit == 0:
        return list(trajectories)
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.task_id, []).append(trajectory)
    return [
        t for group in groups.values() for t in sorted(group, key=lambda t: (-t.reward, len(t.turns), t.sample))[:limit]
    ]


def put_away(summaries: Sequence[Summary], bank: SkillBank, warn: Callable[[str], None]) -> dict[str, int]:
    """Add the skills to ``bank`` in their order; counts of what became of them. Failures go to ``warn``."""
    added = duplicates = 0
    failed: dict[str, list[str]] = {}
    for summary in summaries:
        origin = summary.trajectory
        if summary.skill is None:
            failed.setdefault(str(summary.error), []).append(origin.id)
            continue
        source = Source(trajectory_id=origin.id, iteration=origin.iteration)
        stored = bank.add(origin.task_id, summary.skill, origin.reward, source=source)
        added += stored is not None
        duplicates += stored is None
    for line in _told(failed):
        warn(line)
    return {"skills_added": added, "skills_duplicate": duplicates, "skills_failed": sum(map(len, failed.values()))}


def _told(failed: dict[str, list[str]]) -> list[str]:
    """Trajectories by the reason why they gave no skill, in a few lines: a dead server fails them all."""
    lines = []
    for reason, ids in list(failed.items())[:_LINES]:
        lines.append(f"no skill from {ids[0]}{f' and {len(ids) - 1} more' if ids[1:] else ''}: {reason}")
    if rest := sum(len(ids) for ids in list(failed.values())[_LINES:]):
        lines.append(f"no skill from {rest} more, for other reasons")
    return lines


@dataclass
class Retries:
    """Trajectories whose summary failed, and which a later iteration tries again, ``limit`` times each."""

    limit: int
    #: Failures so far of what is waiting or being tried again, by trajectory id.
    failures: dict[str, int] = field(default_factory=dict)
    waiting: list[Trajectory] = field(default_factory=list)

    def note(self, summaries: Sequence[Summary]) -> int:
        """Keep the failed ones that may be tried again; how many that are. The others are dropped."""
        before = len(self.waiting)
        for summary in summaries:
            name = summary.trajectory.id
            count = self.failures.pop(name, 0) + 1
            if summary.skill is None and count <= self.limit:
                self.failures[name] = count
                self.waiting.append(summary.trajectory)
        return len(self.waiting) - before

    def take(self) -> list[Trajectory]:
        """What to try again now."""
        taken, self.waiting = self.waiting, []
        return taken

    def state(self) -> dict[str, Any]:
        """JSON-able; the trajectories themselves are on disk."""
        return {"failures": self.failures, "waiting": [t.id for t in self.waiting]}

"""Which trajectories go to the summariser, and how its skills get into the bank."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from skillsd.skills.bank import SkillBank, Source
from skillsd.skills.summarize.queue import Summary
from skillsd.trajectory import Trajectory


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
    added = duplicates = failed = 0
    for summary in summaries:
        origin = summary.trajectory
        if summary.skill is None:
            failed += 1
            warn(f"no skill from {origin.id}: {summary.error}")
            continue
        source = Source(trajectory_id=origin.id, iteration=origin.iteration)
        stored = bank.add(origin.task_id, summary.skill, origin.reward, source=source)
        added += stored is not None
        duplicates += stored is None
    return {"skills_added": added, "skills_duplicate": duplicates, "skills_failed": failed}

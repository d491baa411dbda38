"""Which trajectories go to the summariser, and how its skills get into the bank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skillsd.config import SkillsConfig
from skillsd.errors import SkillSDError
from skillsd.skills.bank import SkillBank, Source
from skillsd.skills.summarize.base import Metered
from skillsd.skills.summarize.queue import Summary, make_queue
from skillsd.types import Summarizer, SummaryRequest, Task, Trajectory

#: Seconds that a run which never waits for its summariser (``skills.wait=false``) gives it at the very end.
LAST_SUMMARIES = 60.0
#: Iterations in which every summary may fail before anything was learnt: then the run is another method's.
PATIENCE = 3
#: Reasons that are told of in one go.
_LINES = 3


def best_of_each_task(trajectories: Sequence[Trajectory], limit: int) -> list[Trajectory]:
    """At most ``limit`` a task (0: all): the best reward first, then the shortest (the paper does not say)."""
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


class Intake:
    """The way from finished trajectories to skills in the bank, with what is still on it."""

    def __init__(
        self,
        summarizer: Summarizer,
        bank: SkillBank,
        tasks: Mapping[str, Task],
        settings: SkillsConfig,
        warn: Callable[[str], None],
    ) -> None:
        self.summarizer, self.bank, self.tasks, self.settings, self.warn = summarizer, bank, tasks, settings, warn
        self.queue = make_queue(summarizer, settings.workers)
        self.retries = Retries(settings.retries)
        #: Iterations in a row that gave no skill, while the bank is empty.
        self.barren = 0
        #: Why the run should not go on: there are no skills, and there will be none.
        self.hopeless: str | None = None

    @property
    def pending(self) -> list[Trajectory]:
        """Submitted, and neither in the bank nor given up."""
        return self.queue.pending

    def take(self, trajectories: Sequence[Trajectory], last: bool) -> dict[str, int]:
        """Hand over an iteration's trajectories, and what failed before; put what is ready into the bank."""
        self._submit([*self.retries.take(), *best_of_each_task(trajectories, self.settings.per_visit)])
        return self.absorb(last)

    def absorb(self, last: bool) -> dict[str, int]:
        """Put summaries into the bank, in the order of submission; the rest stays pending. Returns metrics.

        That is all of them with ``skills.wait``; else what is ready, or, in the ``last`` iteration, as no other will
        find them, what is ready within ``LAST_SUMMARIES`` seconds.
        """
        wait = self.settings.wait
        ready = self.queue.collect(wait=wait or last, timeout=None if wait else LAST_SUMMARIES)
        counts = {**put_away(ready, self.bank, self.warn), "skills_retried": self.retries.note(ready)}
        self._judge(ready)
        if isinstance(self.summarizer, Metered):
            metrics, notes = self.summarizer.drain()
            for note in notes:
                self.warn(note)
            counts |= metrics
        return counts

    def _judge(self, ready: Sequence[Summary]) -> None:
        """A summariser that fails always leaves a run without skills, and nobody may notice."""
        if not ready:
            return
        if any(summary.skill for summary in ready) or self.bank.stats().skills:
            self.barren = 0
            return
        self.barren += 1
        if self.barren >= PATIENCE or all(summary.lasting for summary in ready):
            self.hopeless = (
                f"skills.summarizer = {self.settings.summarizer} has given no skill, and every summary of this "
                f"iteration failed ({ready[-1].error}); mend summarizer.* and go on with --resume"
            )

    def state(self) -> dict[str, Any]:
        """JSON-able; the trajectories themselves are on disk."""
        return {"pending": [trajectory.id for trajectory in self.pending], "failed": self.retries.state()}

    def resume(self, state: Mapping[str, Any], find: Callable[[Sequence[str]], list[Trajectory]]) -> None:
        """Go on from :meth:`state`, if it is there; ``find`` reads trajectories by their ids."""
        failed = state.get("failed", {})
        self.retries.failures, self.retries.waiting = failed.get("failures", {}), find(failed.get("waiting", []))
        pending = find(state.get("pending", []))
        for trajectory in (*self.retries.waiting, *pending):
            if trajectory.task_id not in self.tasks:
                raise SkillSDError(f"trajectory {trajectory.id}: its task is gone; put the task set back as it was")
        self._submit(pending)

    def _submit(self, trajectories: Sequence[Trajectory]) -> None:
        self.queue.submit([SummaryRequest(t, self.tasks[t.task_id]) for t in trajectories])

    def close(self) -> None:
        """Stop summarising; what is pending is lost, but for a checkpoint's :meth:`state`."""
        self.queue.close(drain=False)

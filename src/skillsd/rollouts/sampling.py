"""G trajectories a task: this iteration's, and, if asked for, the next one's while this one's update runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from skillsd.config import Config
from skillsd.distributed.processes import Processes
from skillsd.envs.base import TaskSet
from skillsd.errors import SkillSDError
from skillsd.policy.engines.base import Engine
from skillsd.rollouts.actors import Actors
from skillsd.rollouts.rollout import Dropped, Job, RolloutBatch, rollout
from skillsd.seeding import derive_seed
from skillsd.types import Hints, Task


@dataclass
class Ahead:
    """A batch in the making on a thread (or made, when it comes from a checkpoint), by weights ``version``."""

    iteration: int
    version: int
    batch: RolloutBatch | None = None
    error: BaseException | None = None
    thread: threading.Thread | None = field(default=None, repr=False)

    def start(self, play: Callable[[], RolloutBatch]) -> None:
        """Begin; returns at once."""

        def work() -> None:
            try:
                self.batch = play()
            except BaseException as error:  # told to whoever waits for the batch
                self.error = error

        self.thread = threading.Thread(target=work, daemon=True, name="skillsd-ahead")
        self.thread.start()

    def result(self) -> RolloutBatch:
        """Wait for the batch. Raises what playing it raised."""
        if self.thread is not None:
            self.thread.join()
        if self.error is not None:
            raise self.error
        assert self.batch is not None
        return self.batch


class Sampler:
    """Plays the iterations' tasks; these are split over the processes, groups never are."""

    def __init__(
        self, config: Config, taskset: TaskSet, actors: Actors, processes: Processes, tell: Callable[[int, int], None]
    ) -> None:
        self.config, self.taskset, self.actors, self.processes, self.tell = config, taskset, actors, processes, tell
        self.ahead: Ahead | None = None

    def batch(self, iteration: int, version: int, tasks: Sequence[Task], hints: Hints) -> tuple[RolloutBatch, int]:
        """The trajectories of ``iteration``, the same on every process, and how many updates their sampler lags.

        ``version`` counts the updates behind the present weights, which sample unless the batch was begun before.
        """
        if self.ahead is not None and self.ahead.iteration == iteration:
            own, played_by, self.ahead = self.ahead.result(), self.ahead.version, None
        else:
            teacher = self.config.spec.rollouts == "teacher"
            with self.actors.engine(version, self.config.rollout.temperature, teacher=teacher) as engine:
                own, played_by = self._play(engine, iteration, self._jobs(iteration, tasks, hints), self.tell), version
        place = {task.id: i for i, task in enumerate(tasks)}
        played = sorted(self.processes.gather(own.trajectories), key=lambda t: (place[t.task_id], t.sample))
        return RolloutBatch(played, self.processes.gather(own.dropped)), version - played_by

    def begin(self, iteration: int, version: int, tasks: Sequence[Task]) -> None:
        """Start playing ``iteration`` with the weights as they are now; they may be updated at once."""
        jobs = self._jobs(iteration, tasks, {})
        engine = self.actors.engine_apart(version, self.config.rollout.temperature)

        def play() -> RolloutBatch:
            with engine as player:
                return self._play(player, iteration, jobs, lambda done, total: None)

        self.ahead = Ahead(iteration, version)
        self.ahead.start(play)

    def wait(self) -> None:
        """Until nothing is being played; what went wrong is told by :meth:`batch`."""
        if self.ahead is not None and self.ahead.thread is not None:
            self.ahead.thread.join()

    def resume(self, iteration: int, version: int, batch: RolloutBatch, tasks: Sequence[Task]) -> None:
        """Take a batch of all processes from a checkpoint. Raises :class:`SkillSDError` if it is of other tasks."""
        known = {task.id for task in tasks}
        for name in (*(t.task_id for t in batch.trajectories), *(d.job.task.id for d in batch.dropped)):
            if name not in known:
                raise SkillSDError(f"the checkpoint has an episode of {name!r}, no task of iteration {iteration}")
        mine = {task.id for task in self.processes.share(tasks)}
        kept = [t for t in batch.trajectories if t.task_id in mine]
        lost = [d for d in batch.dropped if d.job.task.id in mine]
        self.ahead = Ahead(iteration, version, RolloutBatch(kept, lost))

    def unfinished(self) -> tuple[Ahead, RolloutBatch] | None:
        """What a checkpoint has to keep: the batch that was begun, of all processes (each has to ask)."""
        if self.ahead is None:
            return None
        own = self.ahead.result()
        gather = self.processes.gather
        return self.ahead, RolloutBatch(gather(own.trajectories), gather(own.dropped))

    def _jobs(self, iteration: int, tasks: Sequence[Task], hints: Hints) -> list[Job]:
        """Only methods that say so put a skill into the rollout prompt."""
        spec = self.config.spec
        guided = spec.rollouts == "teacher" or spec.skill_in_student_prompt
        jobs = []
        for task in self.processes.share(tasks):
            hint = hints.get(task.id) if guided else None
            for sample in range(self.config.rollout.group_size):
                seed = derive_seed(self.config.seed, "rollout", iteration, task.id, sample)
                jobs.append(Job(task, sample, seed, hint.skill if hint else None, hint.id if hint else None))
        return jobs

    def _play(
        self, engine: Engine, iteration: int, jobs: Sequence[Job], tell: Callable[[int, int], None]
    ) -> RolloutBatch:
        config = self.config.rollout
        return rollout(
            engine,
            self.actors.policy.chat,
            self.taskset,
            jobs,
            iteration=iteration,
            max_turns=config.max_turns or self.taskset.max_turns,
            max_tokens=config.max_tokens,
            turn_timeout=self.config.env.turn_timeout,
            episode_timeout=self.config.env.episode_timeout,
            batch_size=config.batch_size,
            on_turn=tell,
        )


def pack(dropped: Sequence[Dropped]) -> list[list[str | int]]:
    """Dropped episodes as JSON."""
    return [[d.job.task.id, d.job.sample, d.reason] for d in dropped]


def unpack(packed: Sequence[Sequence[str | int]], tasks: Sequence[Task]) -> list[Dropped]:
    """What :func:`pack` packed."""
    by_id = {task.id: task for task in tasks}
    return [
        Dropped(Job(by_id.get(str(task)) or Task(str(task)), int(sample), 0), str(reason))
        for task, sample, reason in packed
    ]

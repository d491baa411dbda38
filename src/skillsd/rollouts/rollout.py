"""Engine x environments -> trajectories. Turns are batched over episodes; finished episodes leave the batch.

Nothing here knows the skill bank: a skill reaches a rollout prompt only if the caller's job holds one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np

from skillsd.envs import boundary
from skillsd.envs.base import Environment, TaskSet
from skillsd.policy.chat import ChatFormat
from skillsd.policy.engines.base import Engine, Generation, Request
from skillsd.rollouts.calls import Episode, call
from skillsd.skills.teacher_view import skill_view
from skillsd.types import Score, Skill, Step, Task, Trajectory, Turn


@dataclass(frozen=True)
class Job:
    """One episode to play; ``skill`` is in its rollout prompt (None: the plain prompt)."""

    task: Task
    sample: int
    seed: int
    skill: Skill | None = None
    rollout_skill_id: int | None = None


@dataclass(frozen=True)
class Dropped:
    """An episode whose environment failed, and how."""

    job: Job
    reason: str


@dataclass
class RolloutBatch:
    """Trajectories in the order of their jobs."""

    trajectories: list[Trajectory]
    dropped: list[Dropped]


@dataclass(kw_only=True)
class _Episode(Episode):
    job: Job
    rng: np.random.Generator
    trajectory: Trajectory | None = None
    entropy: float = 0.0


def rollout(
    engine: Engine,
    chat: ChatFormat,
    taskset: TaskSet,
    jobs: Sequence[Job],
    *,
    iteration: int,
    max_turns: int,
    max_tokens: int,
    turn_timeout: float,
    episode_timeout: float,
    batch_size: int,
    on_turn: Callable[[int, int], None] | None = None,
) -> RolloutBatch:
    """Play all ``jobs``, at most ``batch_size`` at a time, or fewer where the task set has ``max_episodes``.

    An environment that raises, answers with what :mod:`skillsd.envs.boundary` refuses, or takes longer than
    ``turn_timeout`` seconds a call, or an episode that takes longer than ``episode_timeout`` from its environment's
    making to its score, is reported in ``dropped``; the others go on. No episode has more than ``max_tokens`` tokens.
    ``on_turn`` is told (episodes over, episodes in all). With an engine that needs no lockstep every episode goes on at
    its own pace, so that a slow environment holds up nobody else.
    """
    stop = threading.Event()
    max_tokens = min(max_tokens, getattr(engine, "max_length", None) or max_tokens)
    batch_size = min(batch_size, getattr(taskset, "max_episodes", batch_size))

    def play(start: int, part: Sequence[Job], tell: Callable[[int], None]) -> list[_Episode]:
        everyone = live = _open(taskset, part, start, episode_timeout)
        _begin(live, chat, iteration, max_tokens, turn_timeout)
        while (live := [e for e in live if not e.over]) and not stop.is_set():
            known = [(e, e.trajectory.ids) for e in live if e.trajectory is not None]
            requests = [Request(e.number, ids, e.rng, max_tokens) for e, ids in known]
            generations = engine.generate(requests)
            _advance(live, generations, chat, turn_timeout)
            for episode in live:
                _limits(episode, max_turns, max_tokens)
            _score([e for e in live if e.over and e.failure is None], turn_timeout)
            engine.release([e.number for e in live if e.over])
            tell(sum(e.over for e in everyone))
        _close(everyone, turn_timeout)
        return everyone

    def tell(over: int) -> None:
        if on_turn:
            on_turn(over, len(jobs))

    finished: list[_Episode] = []
    with boundary.same_folder(), boundary.untimed():
        if engine.lockstep:
            for start in range(0, len(jobs), batch_size):
                part = jobs[start : start + batch_size]
                finished += play(start, part, lambda over, start=start: tell(start + over))  # type: ignore[misc]
        else:
            pool = ThreadPoolExecutor(batch_size, thread_name_prefix="skillsd-episode")
            try:
                futures = [pool.submit(play, i, [job], lambda over: None) for i, job in enumerate(jobs)]
                for done, future in enumerate(as_completed(futures), 1):
                    future.result()
                    tell(done)
                finished = [future.result()[0] for future in futures]
            finally:  # also when one of them failed, or ctrl-C: the others stop at their next turn
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
    good = [e.trajectory for e in finished if e.failure is None and e.trajectory is not None]
    return RolloutBatch(good, [Dropped(e.job, e.failure) for e in finished if e.failure is not None])


def _open(taskset: TaskSet, jobs: Sequence[Job], first: int, timeout: float) -> list[_Episode]:
    """An environment for each job."""
    episodes = [
        _Episode(
            number=first + i,
            seconds=timeout,
            deadline=time.monotonic() + timeout,
            job=job,
            rng=np.random.default_rng(job.seed),
        )
        for i, job in enumerate(jobs)
    ]

    used: set[int] = set()

    def take(episode: _Episode, environment: Environment) -> None:
        if id(environment) in used:  # its episodes would be mixed
            episode.fail("make() gave an environment that is in use: let it make a new one each time")
            return
        used.add(id(environment))
        episode.environment = environment

    call(episodes, lambda e: boundary.make(taskset), timeout, take, in_time=False)
    return episodes


def _begin(episodes: Sequence[_Episode], chat: ChatFormat, iteration: int, max_tokens: int, timeout: float) -> None:
    """Reset the environments; what they answer is the prompt."""

    def take(episode: _Episode, prompt: str) -> None:
        job = episode.job
        shown = prompt if job.skill is None else skill_view(job.skill, prompt)
        ids = chat.prompt(shown)
        if len(ids) >= max_tokens:
            episode.fail(f"the prompt has {len(ids)} tokens, there is room for {max_tokens} (rollout.max_tokens)")
            return
        episode.trajectory = Trajectory(
            job.task.id, iteration, job.sample, prompt, ids, rollout_skill_id=job.rollout_skill_id
        )

    call([e for e in episodes if not e.over], lambda e: boundary.reset(e.world, e.job.task), timeout, take)


def _advance(live: list[_Episode], generations: list[Generation], chat: ChatFormat, timeout: float) -> None:
    """Append what was generated, step the environments, append what they answered."""
    texts = {}
    for episode, generation in zip(live, generations, strict=True):
        trajectory = episode.trajectory
        assert trajectory is not None
        trajectory.completion_ids += generation.ids
        trajectory.action_mask += [1] * len(generation.ids)
        trajectory.logps += generation.logps
        episode.entropy += generation.entropy
        texts[episode.number] = chat.decode(generation.ids)
    ended = {e.number: g.ended for e, g in zip(live, generations, strict=True)}

    def take(episode: _Episode, result: Step) -> None:
        trajectory = episode.trajectory
        assert trajectory is not None
        valid = result.info.get("valid", True)
        trajectory.turns.append(Turn(texts[episode.number], result.observation, valid, result.info))
        trajectory.entropy = episode.entropy / max(1, trajectory.action_tokens)
        if result.done:
            trajectory.status, episode.over = "done", True
            return
        ids = chat.followup(result.observation, ended[episode.number])
        trajectory.completion_ids += ids
        trajectory.action_mask += [0] * len(ids)
        trajectory.logps += [0.0] * len(ids)

    call(live, lambda e: boundary.step(e.world, texts[e.number]), timeout, take)


def _score(over: list[_Episode], timeout: float) -> None:
    """Ask for the outcome of episodes that are over."""

    def take(episode: _Episode, score: Score) -> None:
        trajectory = episode.trajectory
        assert trajectory is not None
        trajectory.reward, trajectory.success = score.reward, score.success
        trajectory.completion = score.completion

    call(over, lambda e: boundary.score(e.world), timeout, take)


def _limits(episode: _Episode, max_turns: int, max_tokens: int) -> None:
    trajectory = episode.trajectory
    if episode.over or trajectory is None:
        return
    if time.monotonic() > episode.deadline:
        episode.fail(episode.late)
    elif len(trajectory.turns) >= max_turns:
        trajectory.status, episode.over = "turn_limit", True
    elif len(trajectory.ids) >= max_tokens:
        trajectory.status, episode.over = "token_limit", True
    if episode.over and episode.failure is None:
        _cut_tail(trajectory)


def _cut_tail(trajectory: Trajectory) -> None:
    """Drop the last observation: nothing was answered to it."""
    while trajectory.action_mask and not trajectory.action_mask[-1]:
        trajectory.action_mask.pop()
        trajectory.completion_ids.pop()
        trajectory.logps.pop()


def _close(episodes: Sequence[_Episode], timeout: float) -> None:
    """Close every environment that is not stuck; what goes wrong now can no longer harm its episode."""
    usable = [e for e in episodes if e.environment is not None and not e.hung]
    outcomes = {e.number: (e.over, e.failure) for e in usable}

    def close(episode: _Episode) -> None:
        world, episode.environment = episode.world, None  # it is closed once, however long that takes
        world.close()

    call(usable, close, timeout, lambda e, a: None, in_time=False)
    for episode in usable:
        episode.over, episode.failure = outcomes[episode.number]

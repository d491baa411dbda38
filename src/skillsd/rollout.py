"""Engine x environments -> trajectories. Turns are batched over episodes; finished episodes leave the batch.

Nothing here knows the skill bank: a skill reaches a rollout prompt only if the caller's job holds one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np

from skillsd.envs.base import Environment, Score, Step, Task, TaskSet
from skillsd.policy.chat import ChatFormat
from skillsd.policy.engines.base import Engine, Generation, Request
from skillsd.skills.skill import Skill
from skillsd.skills.teacher_view import skill_view
from skillsd.trajectory import Trajectory, Turn

#: Environment calls that may run at once. They wait for servers, as a rule, so it may be more than there are cores.
MAX_THREADS = 32
#: Seconds that a turn's calls may take on the threads they have before those become twice as many.
_PATIENCE = 0.02


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


@dataclass
class _Episode:
    number: int
    job: Job
    environment: Environment
    started: float
    rng: np.random.Generator
    trajectory: Trajectory | None = None
    entropy: float = 0.0
    over: bool = False
    failure: str | None = None
    #: A call that never came back still holds the environment: it must not be touched again.
    hung: bool = False


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

    An environment that raises, answers with the wrong type, or takes longer than ``turn_timeout`` seconds a call
    or ``episode_timeout`` in all loses its episode, which is reported in ``dropped``; the others go on.
    ``on_turn`` is told (episodes over, episodes in all). With an engine that needs no lockstep every episode goes on at
    its own pace, so that a slow environment holds up nobody else.
    """
    stop = threading.Event()
    batch_size = min(batch_size, getattr(taskset, "max_episodes", batch_size))

    def play(start: int, part: Sequence[Job], tell: Callable[[int], None]) -> list[_Episode]:
        live = _open(taskset, chat, part, start, iteration, turn_timeout, max_tokens)
        everyone = list(live)
        while (live := [e for e in live if not e.over]) and not stop.is_set():
            requests = [Request(e.number, e.trajectory.ids, e.rng) for e in live if e.trajectory is not None]
            generations = engine.generate(requests)
            _advance(live, generations, chat, turn_timeout)
            for episode in live:
                _limits(episode, max_turns, max_tokens, episode_timeout)
            _score([e for e in live if e.over and e.failure is None], turn_timeout)
            engine.release([e.number for e in live if e.over])
            tell(sum(e.over for e in everyone))
        _close(everyone, turn_timeout)
        return everyone

    def tell(over: int) -> None:
        if on_turn:
            on_turn(over, len(jobs))

    finished: list[_Episode] = []
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


def _open(
    taskset: TaskSet,
    chat: ChatFormat,
    jobs: Sequence[Job],
    first: int,
    iteration: int,
    timeout: float,
    max_tokens: int,
) -> list[_Episode]:
    episodes = [
        _Episode(first + i, job, taskset.make(), time.monotonic(), np.random.default_rng(job.seed))
        for i, job in enumerate(jobs)
    ]
    _call(episodes, lambda e: e.environment.reset(e.job.task), str, timeout, _begin(chat, iteration, max_tokens))
    return episodes


def _begin(chat: ChatFormat, iteration: int, max_tokens: int) -> Callable[[_Episode, Any], None]:
    def begin(episode: _Episode, prompt: str) -> None:
        job = episode.job
        shown = prompt if job.skill is None else skill_view(job.skill, prompt)
        ids = chat.prompt(shown)
        if len(ids) >= max_tokens:
            _fail(episode, f"the prompt has {len(ids)} tokens, rollout.max_tokens is {max_tokens}")
            return
        episode.trajectory = Trajectory(
            job.task.id, iteration, job.sample, prompt, ids, rollout_skill_id=job.rollout_skill_id
        )

    return begin


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
        valid = bool(result.info.get("valid", True))
        trajectory.turns.append(Turn(texts[episode.number], result.observation, valid, dict(result.info)))
        trajectory.entropy = episode.entropy / max(1, trajectory.action_tokens)
        if result.done:
            trajectory.status, episode.over = "done", True
            return
        ids = chat.followup(result.observation, ended[episode.number])
        trajectory.completion_ids += ids
        trajectory.action_mask += [0] * len(ids)
        trajectory.logps += [0.0] * len(ids)

    _call(live, lambda e: e.environment.step(texts[e.number]), object, timeout, take)


def _score(over: list[_Episode], timeout: float) -> None:
    """Ask for the outcome of episodes that are over."""

    def take(episode: _Episode, score: Score) -> None:
        trajectory = episode.trajectory
        assert trajectory is not None
        trajectory.reward, trajectory.success = float(score.reward), bool(score.success)
        trajectory.completion = float(score.completion)

    _call(over, lambda e: e.environment.score(), object, timeout, take)


def _limits(episode: _Episode, max_turns: int, max_tokens: int, episode_timeout: float) -> None:
    trajectory = episode.trajectory
    if episode.over or trajectory is None:
        return
    if time.monotonic() - episode.started > episode_timeout:
        _fail(episode, f"the episode took longer than {episode_timeout:g} s")
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


def _fail(episode: _Episode, reason: str) -> None:
    episode.over, episode.failure = True, reason


class _Calls:
    """One environment call for every episode, on daemon threads (one that hangs blocks neither us nor our exit).

    Quick environments are done before a second thread starts; slow ones (servers) soon run side by side.
    """

    def __init__(self, episodes: Sequence[_Episode], function: Callable[[_Episode], Any]) -> None:
        self.function = function
        self.todo = deque(episodes)
        self.running: dict[int, tuple[_Episode, float]] = {}  # with the start of the call
        self.answers: dict[int, tuple[Any, str | None]] = {}  # what came back, or what went wrong
        self.change = threading.Condition()
        self.threads = 0

    def run(self, timeout: float) -> dict[int, tuple[Any, str | None]]:
        """All answers by episode number. A call that takes longer than ``timeout`` seconds is given up."""
        with self.change:
            limit = 1
            try:
                while self.todo or self.running:
                    self._give_up(timeout)
                    while self.threads < min(limit, len(self.todo) + len(self.running)):
                        threading.Thread(target=self._work, daemon=True, name="skillsd-env").start()
                        self.threads += 1
                    left = [since + timeout - time.monotonic() for _, since in self.running.values()]
                    self.change.wait(max(0.0, min([*left, *([_PATIENCE] if self.todo else [])], default=0.0)))
                    limit = min(2 * limit, MAX_THREADS)
            finally:  # ctrl-C: start nothing more
                self.todo.clear()
        return self.answers

    def _give_up(self, timeout: float) -> None:
        now = time.monotonic()
        for number, (episode, since) in list(self.running.items()):
            if now - since >= timeout:
                del self.running[number]
                episode.hung = True
                self.answers[number] = (None, f"no answer from the environment within {timeout:g} s")
                self.threads -= 1  # it may never come back; if it does, it ends

    def _work(self) -> None:
        while True:
            with self.change:
                if not self.todo:
                    return
                episode = self.todo.popleft()
                self.running[episode.number] = (episode, time.monotonic())
            answer, failure = None, None
            try:
                answer = self.function(episode)
            except BaseException as error:  # an environment may raise anything, even SystemExit
                failure = f"{type(error).__name__}: {str(error)[:200]}"
            with self.change:
                if self.running.pop(episode.number, None) is None:
                    return  # given up meanwhile; another thread has taken this one's place
                self.answers[episode.number] = (answer, failure)
                if not (self.todo or self.running):
                    self.change.notify()


def _call(
    episodes: Sequence[_Episode],
    function: Callable[[_Episode], Any],
    expected: type,
    timeout: float,
    take: Callable[[_Episode, Any], None],
) -> None:
    """Call ``function`` for every episode; give the answers to ``take``, in the order of the episodes."""
    answers = _Calls(episodes, function).run(timeout)
    for episode in episodes:
        answer, failure = answers[episode.number]
        if failure is None and not isinstance(answer, expected):
            failure = f"the environment answered with {type(answer).__name__}, not {expected.__name__}"
        if failure is not None:
            _fail(episode, failure)
            continue
        try:
            take(episode, answer)
        except (AttributeError, TypeError, ValueError) as error:
            _fail(episode, f"the environment's answer is malformed: {str(error)[:200]}")


def _close(episodes: Sequence[_Episode], timeout: float) -> None:
    """Close every environment that is not stuck; what goes wrong now can no longer harm its episode."""
    usable = [e for e in episodes if not e.hung]
    outcomes = {e.number: (e.over, e.failure) for e in usable}
    _call(usable, lambda e: e.environment.close(), type(None), timeout, lambda e, a: None)
    for episode in usable:
        episode.over, episode.failure = outcomes[episode.number]

"""Calls of many episodes' environments, side by side where they are slow, and given up where they hang."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from skillsd.envs import boundary
from skillsd.envs.base import Environment
from skillsd.errors import reason

#: Environment calls that may run at once. They wait for servers, as a rule, so it may be more than there are cores.
MAX_THREADS = 32
#: Seconds that a turn's calls may take on the threads they have before those become twice as many.
_PATIENCE = 0.02


@dataclass(kw_only=True)
class Episode:
    """What calls need to know of an episode."""

    number: int
    #: Seconds that it may take in all, and the moment (monotonic) at which these are over.
    seconds: float
    deadline: float
    environment: Environment | None = None
    over: bool = False
    failure: str | None = None
    #: A call that never came back still holds the environment: it must not be touched again.
    hung: bool = False

    @property
    def world(self) -> Environment:
        """Its environment, which was made."""
        assert self.environment is not None
        return self.environment

    @property
    def late(self) -> str:
        """Why it is given up."""
        return f"the episode took longer than {self.seconds:g} s"

    def fail(self, failure: str) -> None:
        """It is over, and lost."""
        self.over, self.failure = True, failure


E = TypeVar("E", bound=Episode)


class _Calls(Generic[E]):
    """One environment call for every episode, on daemon threads (one that hangs blocks neither us nor our exit).

    Quick environments are done before a second thread starts; slow ones (servers) soon run side by side.
    """

    def __init__(self, episodes: Sequence[E], function: Callable[[E], Any], timeout: float, in_time: bool) -> None:
        self.function, self.timeout, self.in_time = function, timeout, in_time
        self.todo = deque(episodes)
        self.running: dict[int, tuple[E, float]] = {}  # with the moment at which the call is given up
        self.answers: dict[int, tuple[Any, str | None]] = {}  # what came back, or what went wrong
        self.change = threading.Condition()
        self.threads = 0

    def run(self) -> dict[int, tuple[Any, str | None]]:
        """All answers by episode number. A call that takes longer than it may is given up."""
        with self.change:
            limit = 1
            try:
                while self.todo or self.running:
                    self._give_up()
                    while self.threads < min(limit, len(self.todo) + len(self.running)):
                        threading.Thread(target=self._work, daemon=True, name="skillsd-env").start()
                        self.threads += 1
                    left = [end - time.monotonic() for _, end in self.running.values()]
                    self.change.wait(max(0.0, min([*left, *([_PATIENCE] if self.todo else [])], default=0.0)))
                    limit = min(2 * limit, MAX_THREADS)
            finally:  # ctrl-C: start nothing more
                self.todo.clear()
        return self.answers

    def _give_up(self) -> None:
        now = time.monotonic()
        for number, (episode, end) in list(self.running.items()):
            if now >= end:
                del self.running[number]
                episode.hung = True
                slow = f"no answer from the environment within {self.timeout:g} s"
                self.answers[number] = (None, episode.late if self._is_late(episode, now) else slow)
                self.threads -= 1  # it may never come back; if it does, it ends

    def _is_late(self, episode: E, now: float) -> bool:
        return self.in_time and now >= episode.deadline

    def _answer(self, episode: E, answer: Any, failure: str | None) -> None:
        self.answers[episode.number] = (answer, failure)
        if not (self.todo or self.running):
            self.change.notify()

    def _work(self) -> None:
        while True:
            with self.change:
                if not self.todo:
                    return
                episode, now = self.todo.popleft(), time.monotonic()
                if self._is_late(episode, now):
                    self._answer(episode, None, episode.late)
                    continue
                end = min(now + self.timeout, episode.deadline) if self.in_time else now + self.timeout
                self.running[episode.number] = (episode, end)
            answer, failure = None, None
            try:
                answer = self.function(episode)
            except BaseException as error:  # an environment may raise anything, even SystemExit
                failure = reason(error)
            with self.change:
                wanted = self.running.pop(episode.number, None) is not None
                if wanted:
                    self._answer(episode, answer, failure)
            if not wanted:  # given up meanwhile; another thread has taken this one's place
                abandoned: Any = answer if episode.environment is None else episode.environment
                with suppress(BaseException):
                    abandoned.close()  # nobody else will
                return


def call(
    episodes: Sequence[E],
    function: Callable[[E], Any],
    timeout: float,
    take: Callable[[E, Any], None],
    in_time: bool = True,
) -> None:
    """Call ``function`` for every episode; give the answers to ``take``, in the order of the episodes.

    A call may take ``timeout`` seconds, and no longer than the episode may (unless ``in_time`` is off).
    """
    with boundary.same_torch():
        answers = _Calls(episodes, function, timeout, in_time).run()
    for episode in episodes:
        answer, failure = answers[episode.number]
        if failure is not None:
            episode.fail(failure)
        else:
            take(episode, answer)

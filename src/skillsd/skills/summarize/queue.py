"""Summarising in the background: it never kills training, and results come in a fixed order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from skillsd.errors import reason
from skillsd.skills.summarize.base import BatchSummarizer
from skillsd.types import Skill, Summarizer, SummaryRequest, Trajectory

#: Seconds that a summary may take; a summariser that needs longer says so (``seconds_each``), and gets some more.
_LIMIT, _MORE = 600.0, 30.0
#: Seconds between two looks at the clock while waiting.
_POLL = 0.2


@dataclass
class Summary:
    """The outcome for one trajectory: a skill, or the reason why there is none, and whether it will be there again."""

    trajectory: Trajectory
    skill: Skill | None = None
    error: str | None = None
    lasting: bool = False
    ready: bool = False


class SummaryQueue:
    """Daemon threads work through the requests; :meth:`collect` hands results out in order of submission.

    A later result waits for the earlier ones, so that what enters the bank, and in which order, depends on the
    trajectories alone. A summary that takes more than ``limit`` seconds is given up as an error and its thread
    replaced: a summariser that hangs holds up neither training for good nor exit. While ``max_pending``
    trajectories wait to be handed out, more are refused, also as errors.
    """

    def __init__(
        self, summarizer: Summarizer, workers: int = 2, max_pending: int = 4096, limit: float = _LIMIT
    ) -> None:
        self._summarizer = summarizer
        self._workers = workers
        self._max_pending = max_pending
        self._limit = limit
        self._change = threading.Condition()
        self._todo: deque[tuple[SummaryRequest, Summary]] = deque()
        self._results: deque[Summary] = deque()
        #: What is being worked on, by the summary's identity, with its deadline (monotonic seconds).
        self._running: dict[int, tuple[float, Summary]] = {}
        self._threads = 0
        self._closed = False

    def submit(self, requests: Sequence[SummaryRequest]) -> None:
        """Queue ``requests``; returns at once. Raises ``RuntimeError`` after :meth:`close`."""
        with self._change:
            if self._closed:
                raise RuntimeError("the summary queue is closed")
            self._give_up_overdue()
            for request in requests:
                summary = Summary(request.trajectory)
                if len(self._results) < self._max_pending:
                    self._todo.append((request, summary))
                else:
                    summary.error, summary.ready = f"refused: {self._max_pending} summaries are pending", True
                self._results.append(summary)
            self._staff()

    def collect(self, wait: bool = False, timeout: float | None = None) -> list[Summary]:
        """All results up to the first that is not ready; with ``wait``, all (or what ``timeout`` seconds allow)."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._change:
            self._give_up_overdue()
            while wait and not self._closed and not all(summary.ready for summary in self._results):
                left = _POLL if end is None else min(_POLL, end - time.monotonic())
                if left <= 0:
                    break
                self._change.wait(left)
                self._give_up_overdue()
            ready = []
            while self._results and self._results[0].ready:
                ready.append(self._results.popleft())
            return ready

    @property
    def pending(self) -> list[Trajectory]:
        """Trajectories submitted and not yet handed out."""
        with self._change:
            return [summary.trajectory for summary in self._results]

    def close(self, drain: bool = True, timeout: float = 60.0) -> list[Summary]:
        """Stop; with ``drain`` first wait up to ``timeout`` seconds.

        Returns what became ready, for the bank; what :attr:`pending` still names afterwards is lost.
        """
        ready = self.collect(wait=drain, timeout=timeout)
        with self._change:
            self._closed = True
            self._todo.clear()
            self._change.notify_all()
        return ready

    def _staff(self) -> None:
        """Start threads while there is work for them."""
        while self._threads < min(self._workers, len(self._running) + len(self._todo)):
            threading.Thread(target=self._work, daemon=True, name="skillsd-summarizer").start()
            self._threads += 1
        self._change.notify_all()

    def _give_up_overdue(self) -> None:
        now = time.monotonic()
        for key, (deadline, summary) in list(self._running.items()):
            if now >= deadline:
                del self._running[key]
                summary.error, summary.ready = f"no answer within {self._limit:g} seconds", True
                self._threads -= 1  # it may never come back; if it does, it ends
                self._staff()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._todo or self._closed)
                if self._closed:
                    return
                request, summary = self._todo.popleft()
                self._running[id(summary)] = (time.monotonic() + self._limit, summary)
            skill, error, lasting = self._attempt(request)
            with self._change:
                if self._running.pop(id(summary), None) is None:
                    return  # given up on meanwhile; another thread has taken this one's place
                summary.skill, summary.error, summary.lasting, summary.ready = skill, error, lasting, True
                self._change.notify_all()

    def _attempt(self, request: SummaryRequest) -> tuple[Skill | None, str | None, bool]:
        try:
            skill = self._summarizer.summarize(request)
        except BaseException as failure:  # even SystemExit: nobody else would hear of it in this thread
            return None, reason(failure, 300), getattr(failure, "lasting", False)
        if not isinstance(skill, Skill):
            return None, f"the summariser returned {type(skill).__name__}, not a Skill", False
        return skill, None, False


class BoundaryQueue:
    """A :class:`SummaryQueue` that waits for nothing: :meth:`submit` summarises, in the caller's thread."""

    def __init__(self, summarizer: BatchSummarizer) -> None:
        self._summarizer = summarizer
        self._results: list[Summary] = []

    def submit(self, requests: Sequence[SummaryRequest]) -> None:
        """Summarise ``requests`` now."""
        if not requests:
            return
        try:
            found: Sequence[Skill | Exception] = self._summarizer.summarize_all(requests)
        except Exception as failure:  # memory, for one
            found = [failure] * len(requests)
        for request, result in zip(requests, found, strict=True):
            skill, error = (result, None) if isinstance(result, Skill) else (None, reason(result, 300))
            self._results.append(Summary(request.trajectory, skill, error, ready=True))

    def collect(self, wait: bool = False, timeout: float | None = None) -> list[Summary]:
        """All results."""
        ready, self._results = self._results, []
        return ready

    @property
    def pending(self) -> list[Trajectory]:
        """Trajectories submitted and not yet handed out."""
        return [summary.trajectory for summary in self._results]

    def close(self, drain: bool = True, timeout: float = 60.0) -> list[Summary]:
        """All results."""
        return self.collect()


def make_queue(summarizer: Summarizer, workers: int) -> SummaryQueue | BoundaryQueue:
    """The queue that suits ``summarizer``: in the background, at most ``workers`` at once, or at the boundary."""
    if isinstance(summarizer, BatchSummarizer):
        return BoundaryQueue(summarizer)
    limit = max(_LIMIT, getattr(summarizer, "seconds_each", 0.0) + _MORE)
    return SummaryQueue(summarizer, workers=workers, limit=limit)


def summarize_now(summarizer: Summarizer, requests: Sequence[SummaryRequest], workers: int) -> list[Summary]:
    """Summarise ``requests`` and wait; results in their order."""
    queue = make_queue(summarizer, workers)
    try:
        queue.submit(requests)
        return queue.collect(wait=True)
    finally:
        queue.close(drain=False)

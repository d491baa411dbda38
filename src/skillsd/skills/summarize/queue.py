"""Summarising in the background: it never kills training, and results come in a fixed order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from skillsd.skills.skill import Skill
from skillsd.skills.summarize.base import Summarizer, SummaryRequest
from skillsd.trajectory import Trajectory


@dataclass
class Summary:
    """The outcome for one trajectory: a skill, or the reason why there is none."""

    trajectory: Trajectory
    skill: Skill | None = None
    error: str | None = None
    ready: bool = False


class SummaryQueue:
    """Daemon threads work through the requests; :meth:`collect` hands results out in order of submission.

    A later result waits for the earlier ones, so that what enters the bank, and in which order, depends on the
    trajectories alone. A summariser that hangs holds back later results but neither training nor exit.
    """

    def __init__(self, summarizer: Summarizer, workers: int = 2) -> None:
        self._summarizer = summarizer
        self._workers = workers
        self._change = threading.Condition()
        self._todo: deque[tuple[SummaryRequest, Summary]] = deque()
        self._results: deque[Summary] = deque()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, requests: Sequence[SummaryRequest]) -> None:
        """Queue ``requests``; returns at once. Raises ``RuntimeError`` after :meth:`close`."""
        with self._change:
            if self._closed:
                raise RuntimeError("the summary queue is closed")
            for request in requests:
                summary = Summary(request.trajectory)
                self._todo.append((request, summary))
                self._results.append(summary)
            while len(self._threads) < min(self._workers, len(self._todo)):
                thread = threading.Thread(target=self._work, daemon=True, name="skillsd-summarizer")
                self._threads.append(thread)
                thread.start()
            self._change.notify_all()

    def collect(self, wait: bool = False, timeout: float | None = None) -> list[Summary]:
        """All results up to the first that is not ready; with ``wait``, all (or what ``timeout`` seconds allow)."""
        with self._change:
            if wait:
                self._change.wait_for(lambda: all(summary.ready for summary in self._results), timeout)
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
        """Stop; with ``drain`` first wait up to ``timeout`` seconds. Returns what became ready."""
        deadline = time.monotonic() + timeout
        ready = self.collect(wait=drain, timeout=max(0.0, deadline - time.monotonic()))
        with self._change:
            self._closed = True
            self._todo.clear()
            self._change.notify_all()
        return ready

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._todo or self._closed)
                if self._closed:
                    return
                request, summary = self._todo.popleft()
            try:
                skill, error = self._summarizer.summarize(request), None
            except Exception as failure:  # a summariser may raise anything
                skill, error = None, f"{type(failure).__name__}: {str(failure)[:200]}"
            with self._change:
                summary.skill, summary.error, summary.ready = skill, error, True
                self._change.notify_all()

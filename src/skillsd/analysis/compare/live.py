"""The live table of a comparison: what is done, what runs, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from skillsd.analysis.compare.runner import Comparison, Progress


class Watcher:
    """Shows a :class:`Comparison`. Without a terminal it prints one line for each cell that ends."""

    def __init__(self, console: Console, comparison: Comparison) -> None:
        self.console, self.comparison, self.started = console, comparison, time.monotonic()
        self.live = Live(console=console, refresh_per_second=2, transient=True)
        self.before = {id(p): p.state for p in comparison.progress}
        done = sum(p.state == "done" for p in comparison.progress)
        total = len(comparison.progress)
        console.print(
            f"{total} cells, {done} done before; {comparison.jobs} at a time, {comparison.threads} threads each"
        )

    def __enter__(self) -> Watcher:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def __call__(self, cells: Sequence[Progress]) -> None:
        """Show how things stand."""
        for p in cells:
            if p.state != self.before[id(p)] and p.state in ("done", "failed"):
                accuracy = "" if p.accuracy is None else f", last training accuracy {p.accuracy:.2f}"
                why = f": {p.reason}" if p.reason else ""
                self.console.print(
                    f"{p.state:6s} {p.spec.row}, seed {p.spec.seed} in {clock(p.seconds)}{accuracy}{why}", markup=False
                )
            self.before[id(p)] = p.state
        if self.console.is_terminal:
            self.live.update(self.table(cells))

    def table(self, cells: Sequence[Progress]) -> Table:
        """A line a row: cells done, what the running ones do, seconds a cell took."""
        left = self.left(cells)
        title = f"{clock(time.monotonic() - self.started)} so far" + ("" if left is None else f", {clock(left)} left")
        table = Table("row", "done", "running (iteration)", "failed", "a cell takes", title=title, box=None)
        rows: dict[str, list[Progress]] = {}
        for p in cells:
            rows.setdefault(p.spec.row, []).append(p)
        for name, group in rows.items():
            running = ", ".join(
                f"seed {p.spec.seed} ({p.iteration}/{p.iterations})" for p in group if p.state == "running"
            )
            took = [p.seconds for p in group if p.state == "done" and p.seconds]
            table.add_row(
                name,
                f"{sum(p.state == 'done' for p in group)}/{len(group)}",
                running,
                str(sum(p.state == "failed" for p in group) or ""),
                clock(sum(took) / len(took)) if took else "",
            )
        return table

    def left(self, cells: Sequence[Progress]) -> float | None:
        """Seconds left, from the pace of iterations so far; None before there is one."""
        worked = [p for p in cells if p.seconds and p.iterations]
        iterations = sum(p.iteration for p in worked)
        if not iterations:
            return None
        pace = sum(p.seconds for p in worked) / iterations
        remaining = sum(p.iterations - p.iteration for p in cells if p.state in ("waiting", "running"))
        return pace * remaining / self.comparison.jobs


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"

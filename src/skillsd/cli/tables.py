"""Results as tables and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table


def results_table(results: dict[str, Any]) -> Table:
    """Accuracy and completion with 95 % intervals, a row for each result."""
    table = Table("", "tasks", "accuracy", "95 %", "completion", "95 %", "turns", box=None)
    for name, r in results.items():
        table.add_row(name, str(r.tasks), f"{r.accuracy:.1%}", _interval(r.accuracy_interval), f"{r.completion:.1%}",
                      _interval(r.completion_interval), f"{r.mean_turns:.1f}")  # fmt: skip
        if r.scenario_accuracy is not None:
            table.add_row("  every task of a scenario", "", f"{r.scenario_accuracy:.1%}", "", "", "", "")
        for k, value in r.pass_at_k.items():
            if k > 1:
                table.add_row(f"  pass@{k}", "", f"{value:.1%}", "", "", "", "")
    return table


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"


def numbers(result: Any) -> dict[str, Any] | None:
    """The result without its rows of single tasks."""
    return None if result is None else {k: v for k, v in asdict(result).items() if k != "per_task"}

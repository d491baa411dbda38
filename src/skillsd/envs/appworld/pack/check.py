"""Run every solution of the pack on the engine: ``python check.py ROOT [TASK...]``, a JSON line for each.

Run by the engine's Python. The reference must pass every test; doing nothing and every wrong solution must not.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main() -> None:
    """Check the tasks named, or all."""
    root = Path(sys.argv[1]).absolute()
    solutions = json.loads((root / "solutions.json").read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").symlink_to(root / "data")
        os.environ["APPWORLD_ROOT"] = folder
        for name in sys.argv[2:] or sorted(solutions):
            print(json.dumps(check(name, solutions[name])), flush=True)
    os._exit(0)  # the hundreds of shells that the engine left open would take an hour to close


def check(name: str, solution: dict[str, Any]) -> dict[str, Any]:
    """Share of tests passed by the reference, by giving up at once, and by each wrong solution; and what failed."""
    reference, failures = attempt(name, solution["reference"])
    return {
        "task": name, "reference": reference, "failures": failures,
        "nothing": attempt(name, ["apis.supervisor.complete_task()"])[0],
        "wrong": [attempt(name, blocks)[0] for blocks in solution["wrong"]],
    }  # fmt: skip


def attempt(name: str, blocks: Sequence[str]) -> tuple[float, list[str]]:
    """(share of tests passed, what failed) after running ``blocks``."""
    from appworld.environment import AppWorld

    world = AppWorld(task_id=name, experiment_name="check")
    failures = [text for block in blocks if (text := world.execute(block)).startswith("Execution failed")]
    found = world.evaluate(suppress_errors=True)
    failures += [str(failure) for failure in found.failures]
    share = len(found.passes) / found.num_tests
    world.close()
    return share, failures


if __name__ == "__main__":
    main()

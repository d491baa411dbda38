"""kill -9 before every operation on a file, and with files half-written: a resumed run is the one that went through."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Of the operations, every so many: all of them take minutes (make fuzz).
EVERY = 1 if os.environ.get("SKILLSD_FUZZ") == "long" else 6


@pytest.mark.parametrize(("scenario", "first"), [("start", 2), ("iteration", 4)])
def test_killed_before_any_file_operation_a_run_goes_on_as_if_nothing_had_happened(tmp_path, scenario, first):
    """Weights, optimiser, teacher, bank, metrics, episodes, TensorBoard, the best checkpoint, and no file left over."""
    first = 1 if EVERY == 1 else first
    command = [sys.executable, "killing.py", str(tmp_path), scenario, str(EVERY), str(first)]
    found = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=3000)
    assert found.returncode == 0, "\n".join(line for line in found.stdout.splitlines() if not line.endswith("same"))
    tried = [line for line in found.stdout.splitlines() if line.endswith(": same")]
    assert len(tried) >= 150 / EVERY
    assert any("half-written" in line for line in tried)

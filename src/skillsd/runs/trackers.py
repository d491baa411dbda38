"""Metrics for TensorBoard, for those who watch their runs there. The record is metrics.jsonl."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skillsd.errors import UsageError


def require_tensorboard() -> Any:
    """torch's ``SummaryWriter``. Raises :class:`UsageError` where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("trainer.tensorboard=true needs a package: pip install 'skillsd[tensorboard]'") from None
    return SummaryWriter


class TensorBoard:
    """Event files in ``folder`` that hold exactly ``rows``, and what is written from now on.

    What an earlier process left there is written anew, as it may have more (of iterations that will be done again) or,
    where it was killed, less. TensorBoard, if it is looking, forgets what it read.
    """

    def __init__(self, folder: Path, rows: Sequence[dict[str, Any]]) -> None:
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = require_tensorboard()(str(folder), purge_step=0)
        times = [float(row.get("seconds") or 0.0) for row in rows]
        ended = time.time() - sum(times)
        for row, seconds in zip(rows, times, strict=True):
            ended += seconds  # at the latest: pauses are not recorded
            self._add(row, ended)
        self._writer.flush()

    def write(self, row: dict[str, Any]) -> None:
        """The numbers of one line of metrics, on disk when this returns."""
        self._add(row, time.time())
        self._writer.flush()

    def _add(self, row: dict[str, Any], when: float) -> None:
        for name, value in row.items():
            if isinstance(value, int | float) and name != "iteration":
                self._writer.add_scalar(name, value, row["iteration"], walltime=when)

    def close(self) -> None:
        """Write what is pending and close the file."""
        self._writer.close()

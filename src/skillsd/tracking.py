"""Metrics for TensorBoard, for those who watch their runs there. The record is metrics.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skillsd.errors import UsageError


def require_tensorboard() -> Any:
    """torch's ``SummaryWriter``. Raises :class:`UsageError` where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("trainer.tensorboard=true needs a package: pip install tensorboard") from None
    return SummaryWriter


class TensorBoard:
    """Writes event files into ``folder``, from behind ``iteration`` on: what an earlier process, killed since, wrote
    about later iterations is marked as void, and TensorBoard does not show it."""

    def __init__(self, folder: Path, iteration: int) -> None:
        self._writer = require_tensorboard()(str(folder), purge_step=iteration + 1)

    def write(self, row: dict[str, Any]) -> None:
        """The numbers of one line of metrics, on disk when this returns."""
        for name, value in row.items():
            if isinstance(value, int | float) and name != "iteration":
                self._writer.add_scalar(name, value, row["iteration"])
        self._writer.flush()

    def close(self) -> None:
        """Write what is pending and close the file."""
        self._writer.close()

"""What a resumed run makes up for: all that the process before it did after its last checkpoint, or did not get to."""

from __future__ import annotations

from pathlib import Path

from skillsd.runs import checkpoint
from skillsd.runs.folder import RunDir, Tell
from skillsd.runs.health import CollapseAlarm


def go_back(run: RunDir, path: Path | None, alarm: CollapseAlarm, iteration: int, keep: int, warn: Tell) -> None:
    """Put the run's folder into the state that the checkpoint ``path`` of ``iteration`` knows (None: the very start).

    The bank, the metrics and the trajectories are taken back to it; what follows a checkpoint (its copy as the best
    one, the end of older ones) is done now if it was not done then; half-written files go. Nothing here depends on how
    far an earlier call came, so this may be killed at any point too.
    """
    for name in checkpoint.passed_over(run):
        warn(f"{run.checkpoints / name}: no checkpoint, as it has no state.json; passed over")
    if path is None:
        run.clear(warn)
    else:
        checkpoint.restore_bank(path, run.bank)
        run.rewind(iteration, warn)
        if alarm.at_best:
            checkpoint.keep_best(run, path)
        checkpoint.prune(run, keep)
    run.tidy()

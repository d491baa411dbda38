"""The example of docs/method.md: one more iteration of a finished run, looked at from the inside.

python docs/method_example.py runs/demo
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from skillsd.config import with_overrides
from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir
from skillsd.training.loop import Loop
from skillsd.training.trainer import Trainer


class Watched(Trainer):
    """Keeps what an iteration works with."""

    def score(self, rows: Any, hints: Any) -> Any:
        """As the trainer's, and remembered."""
        scores, shown = super().score(rows, hints)
        self.seen = rows, hints, scores
        return scores, shown


def one_more(folder: Path) -> tuple[Watched, dict[str, Any]]:
    """An iteration after the newest checkpoint, in a copy of the run."""
    copy = RunDir(shutil.copytree(folder, Path(tempfile.mkdtemp()) / "run"))
    newest = latest(copy)
    assert newest is not None
    number = int(newest.name[5:])
    config = with_overrides(copy.load_config(), [f"trainer.iterations={number + 1}", "eval.every=0"])
    trainer = Watched(config, copy, lambda kind, data: None)
    loop = Loop(trainer)
    loop.open(newest)
    metrics = trainer.step()
    loop.close()
    return trainer, metrics


def main() -> None:
    """Print what the page shows."""
    trainer, metrics = one_more(Path(sys.argv[1]))
    rows, hints, scores = trainer.seen
    gaps = scores.old - scores.teacher
    # Of the short failures in a group that also has successes, the one on which the teacher has most to say.
    short = [i for i, row in enumerate(rows) if row.advantage < 0 and row.teacher_prompt_ids]
    place = max(short, key=lambda i: float(gaps[i].abs().max()))
    row, tokenizer = rows[place], trainer.policy.tokenizer
    played = row.trajectory
    print(f"iteration {trainer.iteration}, {played.id}\n\n{played.prompt}\n\n{hints[played.task_id].skill.text()}\n")
    group = [other for other in rows if other.trajectory.task_id == played.task_id]
    print("rewards   ", [other.trajectory.reward for other in group])
    print("advantages", [round(other.advantage, 2) for other in group], f"this one: {row.advantage:.2f}\n")
    ids = [token for token, action in zip(played.completion_ids, played.action_mask, strict=True) if action]
    for token, old, teacher, gap in zip(ids, scores.old[place], scores.teacher[place], gaps[place], strict=False):
        said = tokenizer.convert_ids_to_tokens(token)
        k3 = float((-gap).exp() - 1 + gap)
        print(f"{said:8} student {float(old.exp()):.3f}  teacher {float(teacher.exp()):.3f}  l {gap:+.2f}  k3 {k3:.3f}")
    for turn in played.turns:
        print(f"\n{turn.action}\n{turn.observation}")
    print({name: metrics[name] for name in ("loss_policy", "loss_distill", "distill_weight", "loss", "l_rms")})


if __name__ == "__main__":
    main()

"""How a run is doing: an iteration's rollouts as named numbers, and an alarm for a collapse."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, FiniteFloat

from skillsd.rollouts.rollout import RolloutBatch

#: Iterations over which both are averaged; single iterations are too noisy to judge.
WINDOW = 5


class CollapseAlarm:
    """Notices early that accuracy or valid actions are at half of their best: follows moving means of both."""

    def __init__(
        self, recent: Sequence[Sequence[float]] = (), best: Sequence[float] = (0.0, 0.0), at_best: bool = False
    ) -> None:
        self.recent = [tuple(pair) for pair in recent]
        self.best = list(best)
        self.at_best = at_best

    def update(self, accuracy: float, valid_actions: float) -> str | None:
        """Take one iteration's rates; returns a warning, or None. Silent until the window is full."""
        self.recent = [*self.recent, (accuracy, valid_actions)][-WINDOW:]
        if len(self.recent) < WINDOW:
            self.at_best = False
            return None
        means = [sum(values) / WINDOW for values in zip(*self.recent, strict=True)]
        self.at_best = means[0] > self.best[0]
        warning = None
        for name, mean, best in zip(("accuracy", "valid-action rate"), means, self.best, strict=True):
            if best >= 0.05 and mean <= best / 2:
                warning = f"collapse: {name} fell to {mean:.2f} from its best {best:.2f}; see checkpoints/best"
        self.best = [max(old, new) for old, new in zip(self.best, means, strict=True)]
        return warning

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the constructor takes it back."""
        return {"recent": self.recent, "best": self.best, "at_best": self.at_best}


class AlarmState(BaseModel):
    """:meth:`CollapseAlarm.state`, read back."""

    recent: list[tuple[FiniteFloat, FiniteFloat]]
    best: tuple[FiniteFloat, FiniteFloat]
    at_best: bool = False


def rollout_metrics(batch: RolloutBatch) -> dict[str, float]:
    """Means over episodes, except: ``tokens`` and ``dropped`` are sums, ``valid_actions`` is over turns,
    ``entropy`` (nats) over episodes' action-token means, ``repeated_actions`` the share of turns that repeat the
    most common message of their episode, and ``env_NAME`` counts what the environment noted as an event."""
    trajectories = batch.trajectories
    count = len(trajectories)
    turns = [turn for t in trajectories for turn in t.turns]
    repeats = sum(max(Counter(turn.action for turn in t.turns).values(), default=0) for t in trajectories)
    events = Counter(name for turn in turns for name in turn.info.get("events", ()))
    rewards = [t.reward for t in trajectories]
    return {
        "reward": sum(rewards) / count,
        "reward_max": max(rewards),
        "accuracy": sum(t.success for t in trajectories) / count,
        "completion": sum(t.completion for t in trajectories) / count,
        "episodes": count,
        "dropped": len(batch.dropped),
        "turns": len(turns) / count,
        "valid_actions": sum(turn.valid for turn in turns) / max(1, len(turns)),
        "repeated_actions": repeats / max(1, len(turns)),
        "entropy": sum(t.entropy for t in trajectories) / count,
        "tokens": sum(len(t.ids) for t in trajectories),
        "action_tokens": sum(t.action_tokens for t in trajectories) / count,
        **{f"env_{name}": n for name, n in sorted(events.items())},
        "token_limit": sum(t.status == "token_limit" for t in trajectories) / count,
    }


def peak_memory(device: torch.device) -> dict[str, float]:
    """Peaks so far, in MiB: resident memory of this process, and what torch held on ``device`` if that is a GPU."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    metrics = {"peak_memory_mib": peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)}
    if device.type == "cuda":
        metrics["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated(device) / (1 << 20)
    return metrics

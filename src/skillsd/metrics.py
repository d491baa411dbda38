"""What an iteration's rollouts looked like, as named numbers."""

from __future__ import annotations

import resource
import sys
from collections import Counter

import torch

from skillsd.rollout import RolloutBatch


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

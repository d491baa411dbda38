"""What an iteration's rollouts looked like, as named numbers."""

from __future__ import annotations

from collections import Counter

from skillsd.rollout import RolloutBatch


def rollout_metrics(batch: RolloutBatch) -> dict[str, float]:
    """Means over episodes, except: ``tokens`` and ``dropped`` are sums, ``valid_actions`` is over turns,
    ``entropy`` (nats) over episodes' action-token means, ``repeated_actions`` the share of turns that repeat the
    most common message of their episode."""
    trajectories = batch.trajectories
    count = len(trajectories)
    turns = [turn for t in trajectories for turn in t.turns]
    repeats = sum(max(Counter(turn.action for turn in t.turns).values(), default=0) for t in trajectories)
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
        "token_limit": sum(t.status == "token_limit" for t in trajectories) / count,
    }

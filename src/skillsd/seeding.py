"""Seeds that are the same in every process: derived by hashing, never by Python's ``hash``."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any mix of numbers and names, e.g. ``derive_seed(run_seed, "rollout", iteration)``."""
    digest = hashlib.sha256("\x1f".join(f"{type(p).__name__}:{p}" for p in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def permutation(count: int, *parts: int | str) -> list[int]:
    """The numbers from 0 to ``count - 1`` in an order that depends on ``parts`` alone."""
    order: list[int] = np.random.default_rng(derive_seed(*parts)).permutation(count).tolist()
    return order

"""What a run sets for the whole process, and puts back: it may be a part of somebody's program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from skillsd.envs.boundary import same_torch


@contextmanager
def left_alone() -> Iterator[None]:
    """Torch's settings and its random numbers are afterwards what they were."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices), same_torch():
        yield

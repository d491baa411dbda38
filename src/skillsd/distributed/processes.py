"""Data-parallel training over processes and machines, on accelerate's process group.

Control is replicated and work is shared: every process knows all trajectories, skills and advantages of an iteration,
but plays, scores and differentiates only its own part. Gradients are summed, not averaged, because the losses already
divide by the tokens of the whole batch; so the number of processes changes nothing but rounding.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

T = TypeVar("T")
#: Elements of gradients that travel together.
_BUCKET = 2**24


class Processes:
    """The processes of one run: a single one, unless ``accelerate launch`` or ``torchrun`` started more."""

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            state = PartialState(cpu=not torch.cuda.is_available())
            self.rank, self.size = state.process_index, state.num_processes
            atexit.register(_end, state)

    @property
    def main(self) -> bool:
        """Whether this one writes and reports."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part: every ``size``-th item."""
        return list(items[self.rank :: self.size])

    def gather(self, items: Sequence[T]) -> list[T]:
        """The items of all processes, in the order of their ranks, on every one of them."""
        return list(gather_object(list(items))) if self.size > 1 else list(items)

    def from_main(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on the main process, on every one of them."""
        if self.size == 1:
            return make()
        box: list[T | None] = [make() if self.main else None]
        broadcast_object_list(box)
        return box[0]  # type: ignore[return-value]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        return any(self.gather([flag]))

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes."""
        tensor = torch.tensor(values, dtype=torch.float64)
        self.sum([tensor])
        return tensor.tolist()  # type: ignore[no-any-return]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add up each tensor over all processes, in place."""
        if self.size == 1:
            return
        bucket: list[Tensor] = []
        for i, tensor in enumerate(tensors):
            bucket.append(tensor)
            last = i + 1 == len(tensors)
            if last or tensors[i + 1].dtype != tensor.dtype or sum(t.numel() for t in bucket) >= _BUCKET:
                flat = torch.cat([t.reshape(-1) for t in bucket]).to(_device())
                torch.distributed.all_reduce(flat)
                parts = flat.split([t.numel() for t in bucket])
                for target, part in zip(bucket, parts, strict=True):
                    target.copy_(part.view_as(target))
                bucket = []


def _end(state: PartialState) -> None:
    """Left to the end of Python, the group's threads can abort a process that had finished its work."""
    state.destroy_process_group()
    # DeepSpeed holds on to its groups, and so their threads live on. One that is just giving back a tensor needs the
    # interpreter's lock, and dies with the process where the interpreter is gone before it gets it.
    time.sleep(0.1)


def _device() -> str:
    """Where the process group's tensors live."""
    return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"

"""FSDP2: weights, gradients and optimiser state are spread over the processes (torch's ``fully_shard``).

Updates gather one decoder layer at a time. Generating and scoring need no gradients, so for these the plain weights are
gathered whole, and processes need not keep in step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from skillsd.errors import UsageError


def shard(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Spread ``model`` over all processes, in place; products are computed in ``dtype``, gradients summed in fp32.

    Raises :class:`UsageError` for a model that does not tell its layers apart or mixes precisions.
    """
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in kinds]
    if not layers:
        raise UsageError(f"trainer.fsdp: {type(model).__name__} does not say which modules are its layers")
    if len({parameter.dtype for parameter in model.parameters()}) > 1:
        raise UsageError("trainer.fsdp: LoRA on a bfloat16 base cannot be sharded; use model.dtype=float32")
    mesh = init_device_mesh(model.device.type, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for module in [*layers, model]:
        sharded = fully_shard(module, mesh=mesh, mp_policy=policy)
        # The losses divide by the tokens of the whole batch: a sum is wanted, not a mean (and gloo knows no other).
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)


def is_sharded(model: PreTrainedModel) -> bool:
    """Whether :func:`shard` was called on ``model``."""
    return isinstance(model, FSDPModule)


@contextmanager
def whole(model: PreTrainedModel) -> Iterator[None]:
    """Inside, every process holds all of ``model``'s weights (none of its optimiser state); without gradients."""
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def full(tensor: Tensor) -> Tensor:
    """The whole tensor on the CPU if it is sharded (all processes must ask), else itself."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def finite(tensors: Sequence[Tensor]) -> bool:
    """Whether this process's parts of ``tensors`` hold finite numbers alone."""
    parts = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return bool(torch.stack([part.sum(dtype=torch.float32) for part in parts]).isfinite().all())


def like(tensor: Tensor, target: Tensor) -> Tensor:
    """``tensor``, sharded as ``target`` is."""
    if isinstance(target, DTensor) and tensor.shape == target.shape:
        return distribute_tensor(tensor.to(target.device), target.device_mesh, target.placements)
    return tensor

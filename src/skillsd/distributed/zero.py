"""DeepSpeed's ZeRO, stages 1 and 2: every process holds the weights, and its part of the optimiser state (1) and of the
gradients (2). Stage 3, which spreads the weights too, is FSDP2 here (``sharding.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skillsd.errors import UsageError

#: AdamW's moments, as its state calls them.
_MOMENTS = ("exp_avg", "exp_avg_sq")


class ZeroOptimizer:
    """AdamW, divided over the processes. Gradients are summed over them, and clipped to the norm ``max_norm``.

    Raises :class:`UsageError` where DeepSpeed is not installed.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        parameters: Sequence[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        stage: int,
        max_norm: float,
    ) -> None:
        try:
            import deepspeed
            from deepspeed.ops import __compatible_ops__
            from deepspeed.utils import logger
        except ImportError:
            raise UsageError("trainer.zero_stage needs DeepSpeed: pip install 'skillsd[deepspeed]'") from None
        logger.setLevel(logging.WARNING)
        # On CPUs each process would first compile a kernel that it then does not use: that takes a compiler, and waits
        # for ever at the lock of a run that was killed meanwhile.
        __compatible_ops__["deepspeed_shm_comm"] = False
        self.parameters, self.base = list(parameters), optimizer
        self.size = torch.distributed.get_world_size()
        deepspeed.init_distributed(torch.distributed.get_backend())
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_clipping": max_norm,
                "zero_optimization": {"stage": stage},
                "zero_allow_untested_optimizer": True,
            },
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """As an optimiser of torch has them."""
        return self.optimizer.param_groups  # type: ignore[no-any-return]

    def backward(self, loss: Tensor, last: bool = False) -> None:
        """Add the gradient of ``loss``. All processes must call it equally often, the ``last`` time together."""
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * self.size)  # the engine averages over the processes

    def step(self) -> float:
        """Update the weights; the norm of the whole gradient before it was clipped."""
        # The end of the batch, said with a gradient of nothing: nobody knows beforehand which part is the last.
        self.backward(torch.stack([(parameter * 0.0).sum() for parameter in self.parameters]).sum(), last=True)
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The optimiser's state, whole, named as in torch's own state; all processes must ask."""
        from deepspeed.utils import safe_get_full_optimizer_state

        steps = next((state["step"] for state in self.base.state.values() if "step" in state), torch.zeros(()))
        for index, parameter in enumerate(self.parameters):
            yield f"{index}.step", steps.detach().cpu().clone()
            for name in _MOMENTS:
                yield f"{index}.{name}", safe_get_full_optimizer_state(parameter, name).cpu().clone()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what :meth:`tensors` gave, or an optimiser of torch's had; takes over the weights too."""
        from deepspeed.utils import safe_set_full_optimizer_state

        self.optimizer.refresh_fp32_params()
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] = 0.0
        self.step()  # changes nothing, but only now is there a state
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate
        for state in self.base.state.values():
            state["step"] = tensors.get("0.step", torch.zeros(())).clone()
        for index, parameter in enumerate(self.parameters):
            for name in _MOMENTS:
                if (value := tensors.get(f"{index}.{name}")) is not None:
                    safe_set_full_optimizer_state(parameter, value.to(parameter.device), name)

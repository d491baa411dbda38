"""The forward pass of dense decoders of Llama's kind (Llama, Mistral, Qwen2, Qwen3, SmolLM2), written out.

The library's forward pass takes padded batches alone. Here tokens are a flat list, each with its position, and whoever
calls decides what they attend to: so a prompt that several episodes share is computed once, and padding costs nothing.
Weights and modules (adapters too) are the model's own. :mod:`skillsd.policy.selfcheck` compares with the library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

#: What :class:`Dense` knows, as configs call it.
KINDS = ("llama", "mistral", "qwen2", "qwen3")

#: From the number of a layer and its queries [N, heads, D], keys and values [N, key/value heads, D] to what the queries
#: found, [N, heads * D].
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def knows(model: PreTrainedModel) -> bool:
    """Whether :class:`Dense` is made for ``model`` as it is now (not yet whether its numbers agree)."""
    config = model.config
    return (
        getattr(config, "model_type", None) in KINDS
        and type(model).__module__.startswith("transformers.models.")
        and type(model).__name__.endswith("ForCausalLM")
        and {*(getattr(config, "layer_types", None) or ["full_attention"])} == {"full_attention"}
        and not (config.model_type == "mistral" and config.sliding_window)
        and config.hidden_act == "silu"
        and not (model.training and config.attention_dropout)
        # What a hook does (gathering sharded weights, say) it does in the library's forward pass.
        and not any(module._forward_hooks or module._forward_pre_hooks for module in _passed_by(model))
    )


def _passed_by(model: Any) -> Iterator[torch.nn.Module]:
    """The modules that :class:`Dense` reads and does not call."""
    yield from (model, model.model, model.model.norm)
    for layer in model.model.layers:
        yield from (layer, layer.self_attn, layer.mlp, layer.input_layernorm, layer.post_attention_layernorm)


class Dense:
    """``model`` as a function of flat tokens; it holds nothing of its own."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.base = model, model.model

    def states(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """The final hidden states [N, hidden] of tokens ``ids`` [N] at ``positions`` [N] of their episodes."""
        states: Tensor = self.base.embed_tokens(ids)
        cos, sin = self.base.rotary_emb(states, positions.unsqueeze(0))  # [1, N, D], both halves the same
        half = cos.shape[-1] // 2
        turn = (cos[0, :, None, :half], sin[0, :, None, :half])
        for number, layer in enumerate(self.base.layers):
            if layer.gradient_checkpointing and torch.is_grad_enabled():
                states = checkpoint(_layer, layer, number, states, turn, attend, use_reentrant=False)
            else:
                states = _layer(layer, number, states, turn, attend)
        return _normed(self.base.norm, states)


def _layer(layer: Any, number: int, states: Tensor, turn: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
    attention, mlp = layer.self_attn, layer.mlp
    given = _normed(layer.input_layernorm, states)
    heads = (len(given), -1, attention.head_dim)
    queries, keys = attention.q_proj(given).view(heads), attention.k_proj(given).view(heads)
    if hasattr(attention, "q_norm"):
        queries, keys = _normed(attention.q_norm, queries), _normed(attention.k_norm, keys)
    values = attention.v_proj(given).view(heads)
    found = attend(number, rotate(queries, *turn), rotate(keys, *turn), values)
    states = states + attention.o_proj(found)
    given = _normed(layer.post_attention_layernorm, states)
    return states + mlp.down_proj(gated(mlp.gate_proj(given), mlp.up_proj(given)))  # type: ignore[no-any-return]


def _normed(module: Any, states: Tensor) -> Tensor:
    return rms_norm(states, module.weight, module.variance_epsilon)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension; in fp32, as the library does it."""
    if x.is_cuda:
        return F.rms_norm(x.float(), weight.shape, None, eps).to(x.dtype) * weight
    if torch.is_grad_enabled():
        return _Norm.apply(x, weight, eps)  # type: ignore[no-any-return]
    return _norm(x, weight, eps)[0]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: the halves of ``x`` [N, heads, D] turned by angles whose ``cos``, ``sin`` are [N, 1, D / 2]."""
    return _Rotate.apply(x, cos, sin) if torch.is_grad_enabled() else _rotate(x, cos, sin)  # type: ignore[no-any-return]


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    return _Gated.apply(gate, up) if torch.is_grad_enabled() else F.silu(gate).mul_(up)  # type: ignore[no-any-return]


# With their backward passes written out these three read and write memory half as often as what autograd makes of them,
# which is most of what a small model's update costs beside its matrix products.


def _norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    exact = torch.promote_types(x.dtype, torch.float32)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
    scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return (x * scale).to(x.dtype).mul_(weight.to(x.dtype)), scale


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        result, scale = _norm(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return result

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[override]
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        product = given * normed
        of_weight = product.reshape(-1, len(weight)).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        mean = (product @ weight.to(product.dtype)).div_(-len(weight)).unsqueeze(-1)
        of_x = torch.addcmul((given * weight).to(normed.dtype), normed, mean).mul_(scale)
        return of_x.to(x.dtype), of_weight, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, sign: float = 1.0) -> Tensor:
    first, second = x.chunk(2, -1)
    result = torch.empty_like(x)
    one, other = result.chunk(2, -1)
    torch.mul(first, cos, out=one).addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=other).addcmul_(first, sin, value=sign)
    return result


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        cos, sin = ctx.saved_tensors
        return _rotate(given, cos, sin, -1.0), None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        gate, up = ctx.saved_tensors
        of_gate = torch.ops.aten.silu_backward(given * up, gate)
        return of_gate, F.silu(gate).mul_(given)

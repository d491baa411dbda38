"""Log-probs of action tokens, without ever holding [tokens x vocabulary] logits of whole sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from skillsd.policy.dense import Dense
from skillsd.policy.packing import TokenRow, pack
from skillsd.policy.packing import micro_batches as micro_batches  # where version 0.1 had it
from skillsd.policy.positions import same_rotary
from skillsd.policy.selfcheck import is_dense

#: Logits (positions x vocabulary) that exist at one time; in fp32 256 MiB, and as much again for their gradient.
MAX_LOGITS = 2**26


class Scored(NamedTuple):
    """Action tokens stand at the left, in order, 0 behind them; all in fp32.

    ``logps`` and ``mask`` [B, T], T = most action tokens of a row; ``top`` [B, T, k] where candidates were asked for.
    """

    logps: Tensor
    mask: Tensor
    top: Tensor | None = None


def score_tokens(
    model: PreTrainedModel,
    rows: Sequence[TokenRow],
    temperature: float = 1.0,
    *,
    candidates: Tensor | None = None,
    chunk: int | None = None,
) -> Scored:
    """Log-probs of the action tokens under softmax(logits / temperature).

    ``candidates`` [B, >= T, k] are further token ids to score at the same places. Carries a gradient wherever gradients
    are enabled; logits are made ``chunk`` positions at a time, and again in the backward pass. The model must be in
    eval mode, or its dropout becomes part of the policy.
    """
    parts = []
    for index in same_rotary(model, [row.length for row in rows]):
        chosen = None if candidates is None else candidates[index]
        parts.append((index, _score(model, [rows[i] for i in index], temperature, chosen, chunk or _chunk(model))))
    return Scored(*_together(parts))


def _score(
    model: PreTrainedModel, rows: Sequence[TokenRow], temperature: float, candidates: Tensor | None, chunk: int
) -> Scored:
    places = _places(model, rows)
    wanted = places.targets.unsqueeze(1)
    if candidates is not None:
        flat = [row[:count] for row, count in zip(candidates, places.counts, strict=True)]
        wanted = torch.cat([wanted, torch.cat(flat).to(wanted.device)], 1)

    def select(head: Head, states: Tensor) -> Tensor:
        pieces = [
            checkpoint(_select, head, states[i : i + chunk], wanted[i : i + chunk], temperature, use_reentrant=False)
            for i in range(0, len(wanted), chunk)
        ]
        return torch.cat(pieces) if pieces else states.new_zeros(0, wanted.shape[1], dtype=torch.float32)

    found = _run(model, rows, places, select)
    logps = pad_sequence(list(found[:, 0].split(places.counts)), batch_first=True)
    top = None if candidates is None else pad_sequence(list(found[:, 1:].split(places.counts)), batch_first=True)
    return Scored(logps, _mask(places), top)


@torch.no_grad()
def top_candidates(
    model: PreTrainedModel, rows: Sequence[TokenRow], k: int, temperature: float = 1.0, *, chunk: int | None = None
) -> tuple[Scored, Tensor]:
    """The ``k`` likeliest ids at every action token, [B, T, k] as int64, likeliest first; their log-probs are ``top``.

    ``k`` is cut to the vocabulary. No gradient.
    """
    parts = []
    for index in same_rotary(model, [row.length for row in rows]):
        parts.append((index, _top(model, [rows[i] for i in index], k, temperature, chunk or _chunk(model))))
    *scored, ids = _together(parts)
    assert ids is not None
    return Scored(*scored), ids


def _top(model: PreTrainedModel, rows: Sequence[TokenRow], k: int, temperature: float, chunk: int) -> list[Tensor]:
    places = _places(model, rows)
    logps, tops, ids = [], [], []

    def select(head: Head, states: Tensor) -> Tensor:
        for i in range(0, len(places.targets), chunk):
            everything = torch.log_softmax(head(states[i : i + chunk]).float() / temperature, -1)
            top = everything.topk(min(k, everything.shape[-1]))
            tops.append(top.values)
            ids.append(top.indices)
            logps.append(everything.gather(1, places.targets[i : i + chunk].unsqueeze(1)).squeeze(1))
        return states

    _run(model, rows, places, select)

    def unflatten(pieces: list[Tensor]) -> Tensor:
        return pad_sequence(list(torch.cat(pieces).split(places.counts)), batch_first=True)

    return [unflatten(logps), _mask(places), unflatten(tops), unflatten(ids)]


def _together(parts: Sequence[tuple[list[int], Sequence[Tensor | None]]]) -> list[Any]:
    """The rows of several batches, each with the numbers of its rows, in one: tensors [B, T, ...], padded with 0."""
    if len(parts) == 1:
        return list(parts[0][1])
    order = torch.tensor([i for index, _ in parts for i in index]).argsort()
    joined: list[Tensor | None] = []
    for tensors in zip(*(tensors for _, tensors in parts), strict=True):
        rows = [row for tensor in tensors if tensor is not None for row in tensor]
        joined.append(pad_sequence(rows, batch_first=True)[order.to(rows[0].device)] if rows else None)
    return joined


#: From hidden states [n, hidden] to logits [n, vocabulary].
Head = Callable[[Tensor], Tensor]


class _Places(NamedTuple):
    """Where a batch's action tokens are: row of each, and place in its completion; the tokens themselves; how many each
    row has."""

    rows: Tensor
    steps: Tensor
    targets: Tensor
    counts: list[int]


def _places(model: PreTrainedModel, rows: Sequence[TokenRow]) -> _Places:
    batch_index: list[int] = []
    steps: list[int] = []
    targets: list[int] = []
    counts = []
    for i, row in enumerate(rows):
        actions = [j for j, action in enumerate(row.action_mask) if action]
        counts.append(len(actions))
        batch_index += [i] * len(actions)
        steps += actions
        targets += [row.completion_ids[j] for j in actions]
    found = torch.tensor([batch_index, steps, targets], dtype=torch.long).to(model.device)
    return _Places(found[0], found[1], found[2], counts)


def _run(
    model: PreTrainedModel, rows: Sequence[TokenRow], places: _Places, select: Callable[[Head, Tensor], Tensor]
) -> Tensor:
    """What ``select`` makes of the model's head and the states [n, hidden] that predict the action tokens."""
    if is_dense(model):
        packed = pack(rows, model.device)
        states = Dense(model).states(packed.ids, packed.positions, packed.attend())
        return select(model.get_output_embeddings(), states[packed.before(places.rows, places.steps)])
    with _recomputing(model):
        return _forward(model, rows, places, select)


def _forward(
    model: PreTrainedModel, rows: Sequence[TokenRow], places: _Places, select: Callable[[Head, Tensor], Tensor]
) -> Tensor:
    """``select`` is called in the head's place, inside the model's own forward pass, so that whatever wraps that
    (sharding, hooks) is respected. A model that does more to its logits than its head does hands over finished logits.
    """
    # No attention mask: the padding stands at the right, where a causal model's tokens do not look, and without one
    # attention takes the kernel that leaves out what lies ahead.
    whole = [torch.tensor(row.prompt_ids + row.completion_ids) for row in rows]
    ids = pad_sequence(whole, batch_first=True).to(model.device)
    prompts = torch.tensor([len(row.prompt_ids) for row in rows], device=model.device)
    before = prompts[places.rows] + places.steps - 1
    head = model.get_output_embeddings()
    if head is None or not ends_with_its_head(model):
        logits = model(input_ids=ids, use_cache=False).logits
        return select(lambda states: states, logits[places.rows, before])
    plain, patched = head.forward, vars(head).get("forward")

    def instead(states: Tensor) -> Tensor:
        return select(plain, states[places.rows, before])

    head.forward = instead
    try:
        found: Tensor = model(input_ids=ids, use_cache=False).logits
    finally:
        del head.forward
        if patched is not None:
            head.forward = patched
    return found


@contextmanager
def _recomputing(model: PreTrainedModel) -> Iterator[None]:
    """Inside, layers do what ``gradient_checkpointing_enable`` asks for: transformers checkpoints in training mode
    alone. What else that mode means, dropout, stays off.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]
    if not torch.is_grad_enabled():
        layers = []
    before = []
    for layer in layers:
        mode: dict[str, Any] = {n: 0.0 for n, p in vars(layer).items() if "drop" in n and isinstance(p, float)}
        mode["training"] = True
        before.append({name: getattr(layer, name) for name in mode})
        vars(layer).update(mode)
    try:
        yield
    finally:
        for layer, mode in zip(layers, before, strict=True):
            vars(layer).update(mode)


def _mask(places: _Places) -> Tensor:
    device = places.targets.device
    return pad_sequence([torch.ones(n, device=device) for n in places.counts], batch_first=True)


def _chunk(model: PreTrainedModel) -> int:
    return max(1, MAX_LOGITS // int(model.config.get_text_config().vocab_size))


def _select(head: Head, states: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Log-probs of ``wanted`` [n, m] at each place."""
    logits = head(states).float()
    if temperature != 1.0:  # a copy saved
        logits = logits / temperature
    return logits.gather(1, wanted) - logits.logsumexp(-1, keepdim=True)


_ENDS: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def ends_with_its_head(model: PreTrainedModel) -> bool:
    """Whether logits are just what the head gives: true for most models, not where they are scaled or capped.

    Found out by a forward pass, once for each model.
    """
    if model not in _ENDS:
        made: list[Tensor] = []
        hook = model.get_output_embeddings().register_forward_hook(lambda module, given, output: made.append(output))
        try:
            with torch.no_grad():
                ids = torch.arange(8, device=model.device).unsqueeze(0) % model.config.get_text_config().vocab_size
                logits = model(input_ids=ids, use_cache=False).logits
        finally:
            hook.remove()
        _ENDS[model] = len(made) == 1 and made[0].shape == logits.shape and bool(torch.equal(made[0], logits))
    return _ENDS[model]

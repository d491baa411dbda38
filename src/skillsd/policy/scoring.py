"""Log-probs of action tokens, without ever holding [tokens x vocabulary] logits of whole sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

#: Positions whose logits exist at one time.
CHUNK = 4096


class TokenRow(NamedTuple):
    """One sequence: scored are the completion's tokens where ``action_mask`` is 1."""

    prompt_ids: list[int]
    completion_ids: list[int]
    action_mask: list[int]


def score_tokens(
    model: PreTrainedModel, rows: Sequence[TokenRow], temperature: float = 1.0, *, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Log-probs of the action tokens under softmax(logits / temperature).

    Returns ``(logps, mask)``, both [B, T] in fp32, T = most action tokens of a row; action tokens stand at the
    left, in order, 0 behind them. Carries a gradient wherever gradients are enabled. The model must be in eval
    mode, or its dropout becomes part of the policy.
    """
    device = model.device
    lengths = [len(row.prompt_ids) + len(row.completion_ids) for row in rows]
    ids = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    attention = torch.zeros_like(ids)
    batch_index: list[int] = []
    places: list[int] = []
    counts = []
    for i, row in enumerate(rows):
        ids[i, : lengths[i]] = torch.tensor(row.prompt_ids + row.completion_ids)
        attention[i, : lengths[i]] = 1
        start = len(row.prompt_ids)
        actions = [start + j for j, action in enumerate(row.action_mask) if action]
        counts.append(len(actions))
        batch_index += [i] * len(actions)
        places += actions
    rows_at, at = torch.tensor(batch_index, dtype=torch.long), torch.tensor(places, dtype=torch.long)
    targets = ids[rows_at, at].to(device)
    ids, attention = ids.to(device), attention.to(device)
    if _headless(model):
        hidden = model.base_model(input_ids=ids, attention_mask=attention, use_cache=False).last_hidden_state
        states = hidden[rows_at.to(device), at.to(device) - 1]
        head: nn.Module = model.get_output_embeddings()
        pieces = [
            checkpoint(_gather, head, states[i : i + chunk], targets[i : i + chunk], temperature, use_reentrant=False)
            for i in range(0, len(states), chunk)
        ]
        flat = torch.cat(pieces) if pieces else hidden.new_zeros(0, dtype=torch.float32)
    else:
        logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
        flat = _select(logits[rows_at.to(device), at.to(device) - 1], targets, temperature)
    logps = pad_sequence(list(flat.split(counts)), batch_first=True)
    mask = pad_sequence([torch.ones(n, device=device) for n in counts], batch_first=True)
    return logps, mask


def _gather(head: nn.Module, states: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return _select(head(states), targets, temperature)


def _select(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    logits = logits.float() / temperature
    return logits.gather(1, targets.unsqueeze(1)).squeeze(1) - logits.logsumexp(-1)


_HEADLESS: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def _headless(model: PreTrainedModel) -> bool:
    """Whether logits are just head(backbone(x)): true for most models, not where logits are scaled or capped."""
    if model not in _HEADLESS:
        with torch.no_grad():
            ids = torch.arange(8, device=model.device).unsqueeze(0) % model.config.get_text_config().vocab_size
            head = model.get_output_embeddings()
            base = model.base_model
            same = False
            if head is not None and base is not model:
                hidden = getattr(base(input_ids=ids, use_cache=False), "last_hidden_state", None)
                same = hidden is not None and torch.allclose(
                    head(hidden).float(), model(input_ids=ids, use_cache=False).logits.float(), atol=1e-4, rtol=1e-3
                )
        _HEADLESS[model] = same
    return _HEADLESS[model]


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices grouped by similar length, each group at most ``max_tokens`` padded tokens (one row always fits)."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches

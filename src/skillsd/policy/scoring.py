"""Log-probs of action tokens, without ever holding [tokens x vocabulary] logits of whole sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

#: Logits (positions x vocabulary) that exist at one time; in fp32 256 MiB, and as much again for their gradient.
MAX_LOGITS = 2**26


class TokenRow(NamedTuple):
    """One sequence: scored are the completion's tokens where ``action_mask`` is 1."""

    prompt_ids: list[int]
    completion_ids: list[int]
    action_mask: list[int]

    @property
    def length(self) -> int:
        """Tokens of the whole sequence."""
        return len(self.prompt_ids) + len(self.completion_ids)


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
    places, chunk = _places(model, rows), chunk or _chunk(model)
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

    found = _run(model, places, select)
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
    places, chunk = _places(model, rows), chunk or _chunk(model)
    logps, tops, ids = [], [], []

    def select(head: Head, states: Tensor) -> Tensor:
        for i in range(0, len(places.targets), chunk):
            everything = torch.log_softmax(head(states[i : i + chunk]).float() / temperature, -1)
            top = everything.topk(min(k, everything.shape[-1]))
            tops.append(top.values)
            ids.append(top.indices)
            logps.append(everything.gather(1, places.targets[i : i + chunk].unsqueeze(1)).squeeze(1))
        return states

    _run(model, places, select)

    def unflatten(pieces: list[Tensor]) -> Tensor:
        return pad_sequence(list(torch.cat(pieces).split(places.counts)), batch_first=True)

    return Scored(unflatten(logps), _mask(places), unflatten(tops)), unflatten(ids)


#: From hidden states [n, hidden] to logits [n, vocabulary].
Head = Callable[[Tensor], Tensor]


class _Places(NamedTuple):
    """A batch padded at the right, and where its action tokens are: row and column of each; the tokens themselves."""

    ids: Tensor
    rows: Tensor
    columns: Tensor
    targets: Tensor
    counts: list[int]


def _places(model: PreTrainedModel, rows: Sequence[TokenRow]) -> _Places:
    device = model.device
    lengths = [row.length for row in rows]
    ids = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    batch_index: list[int] = []
    places: list[int] = []
    counts = []
    for i, row in enumerate(rows):
        ids[i, : lengths[i]] = torch.tensor(row.prompt_ids + row.completion_ids)
        start = len(row.prompt_ids)
        actions = [start + j for j, action in enumerate(row.action_mask) if action]
        counts.append(len(actions))
        batch_index += [i] * len(actions)
        places += actions
    rows_at, at = torch.tensor(batch_index, dtype=torch.long), torch.tensor(places, dtype=torch.long)
    # No attention mask: the padding stands at the right, where a causal model's tokens do not look, and without one
    # attention takes the kernel that leaves out what lies ahead.
    return _Places(ids.to(device), rows_at.to(device), at.to(device), ids[rows_at, at].to(device), counts)


def _run(model: PreTrainedModel, places: _Places, select: Callable[[Head, Tensor], Tensor]) -> Tensor:
    """What ``select`` makes of the model's head and the states [n, hidden] that predict the action tokens.

    It is called in the head's place, inside the model's own forward pass, so that whatever wraps that (sharding,
    hooks) is respected. A model that does more to its logits than its head does hands over finished logits.
    """
    before = places.columns - 1
    head = model.get_output_embeddings()
    if head is None or not ends_with_its_head(model):
        logits = model(input_ids=places.ids, use_cache=False).logits
        return select(lambda states: states, logits[places.rows, before])
    plain, patched = head.forward, vars(head).get("forward")

    def instead(states: Tensor) -> Tensor:
        return select(plain, states[places.rows, before])

    head.forward = instead
    try:
        found: Tensor = model(input_ids=places.ids, use_cache=False).logits
    finally:
        del head.forward
        if patched is not None:
            head.forward = patched
    return found


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


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices grouped by similar length, each group at most ``max_tokens`` padded tokens (one row always fits)."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches

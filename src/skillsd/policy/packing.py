"""Rows of tokens as one flat list in which a prompt that several rows begin with stands once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right

from skillsd.policy.dense import Attend


class TokenRow(NamedTuple):
    """One sequence: scored are the completion's tokens where ``action_mask`` is 1."""

    prompt_ids: list[int]
    completion_ids: list[int]
    action_mask: list[int]

    @property
    def length(self) -> int:
        """Tokens of the whole sequence."""
        return len(self.prompt_ids) + len(self.completion_ids)


#: Queries at a time: what lies ahead of the last of them is left out.
_CHUNK = 256


class Group(NamedTuple):
    """b rows behind one prompt; in the flat list the prompt comes first, then one completion after the other."""

    tokens: slice  # of the flat list
    prompt: int  # tokens of the prompt
    shape: tuple[int, int]  # b, and tokens of the longest completion
    spread: Tensor  # [b * longest], the completions' token at each place, 0 in the padding at the right
    inside: Tensor  # the places that are no padding


class Packed(NamedTuple):
    """N different tokens of B rows."""

    ids: Tensor  # [N]
    positions: Tensor  # [N]
    starts: Tensor  # [B], where each row's completion begins in the flat list
    last: Tensor  # [B], the last token of the prompt of each row
    groups: list[Group]

    def before(self, rows: Tensor, steps: Tensor) -> Tensor:
        """The tokens behind which stand those at ``steps`` of the completions of ``rows`` (both [n])."""
        return torch.where(steps == 0, self.last[rows], self.starts[rows] + steps - 1)

    def attend(self) -> Attend:
        """Every token sees what stands before it in its row."""
        sizes = [size for g in self.groups for size in (g.prompt, g.tokens.stop - g.tokens.start - g.prompt)]

        def look(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            parts = [states.split(sizes) for states in (queries, keys, values)]
            found = []
            for number, group in enumerate(self.groups):
                prompts = tuple(part[2 * number].transpose(0, 1).unsqueeze(0) for part in parts)  # [1, heads, P, D]
                found.append(_attention(*prompts).squeeze(0).transpose(0, 1).flatten(1))
                if len(group.inside):
                    found.append(_behind(group, prompts, [part[2 * number + 1] for part in parts]))
            return torch.cat(found)

        return look


def _behind(group: Group, prompts: Sequence[Tensor], completions: Sequence[Tensor]) -> Tensor:
    """What the tokens of completions [n, heads, D] find in themselves and the prompt, [n, heads * D]."""
    b, longest = group.shape
    queries, *own = (t[group.spread].view(b, longest, *t.shape[1:]).transpose(1, 2) for t in completions)
    keys, values = (torch.cat([p.expand(b, -1, -1, -1), o], 2) for p, o in zip(prompts[1:], own, strict=True))
    answers = []
    for start in range(0, longest, _CHUNK):
        end = min(start + _CHUNK, longest)
        seen = group.prompt + end
        answers.append(_attention(queries[:, :, start:end], keys[:, :, :seen], values[:, :, :seen]))
    return torch.cat(answers, 2).transpose(1, 2).reshape(b * longest, -1).index_select(0, group.inside)


def _attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Of the last tokens of those that have keys, to themselves and all before them: [b, heads, queries, D]."""
    count = queries.shape[2]
    mask: Tensor | None = None
    if (before := keys.shape[2] - count) > 0:
        mask = causal_lower_right(count, keys.shape[2])
        if not queries.is_cuda:  # there the kernel knows what this means, here it has to be written out
            ahead = torch.full((count, count), float("-inf"), dtype=queries.dtype).triu_(1)
            mask = torch.cat([ahead.new_zeros(count, before), ahead], 1)
    grouped = queries.shape[1] != keys.shape[1]
    return F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
    )


def pack(rows: Sequence[TokenRow], device: torch.device) -> Packed:
    """``rows`` in one list, their prompts once where they are the same."""
    prompts: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        prompts.setdefault(tuple(row.prompt_ids), []).append(number)
    ids: list[int] = []
    positions: list[int] = []
    starts, last = [0] * len(rows), [0] * len(rows)
    groups = []
    for prompt, members in prompts.items():
        begin, common = len(ids), len(prompt)
        ids += prompt
        positions += range(common)
        shape = len(members), max(len(rows[number].completion_ids) for number in members)
        spread = torch.full(shape, -1)
        for place, number in zip(spread, members, strict=True):
            completion = rows[number].completion_ids
            starts[number], last[number] = len(ids), begin + common - 1
            place[: len(completion)] = torch.arange(len(completion)) + len(ids) - begin - common
            ids += completion
            positions += range(common, common + len(completion))
        inside = (spread.flatten() >= 0).nonzero().squeeze(1)
        whole = spread.flatten().clamp(min=0)
        groups.append(Group(slice(begin, len(ids)), common, shape, whole.to(device), inside.to(device)))
    flat = torch.tensor([ids, positions]).to(device)
    begins = torch.tensor([starts, last]).to(device)
    return Packed(flat[0], flat[1], begins[0], begins[1], groups)


def micro_batches(rows: Sequence[TokenRow], max_tokens: int, *, shared: bool = True) -> list[list[int]]:
    """Indices of rows of similar length, at most ``max_tokens`` tokens a batch (one row always fits).

    With ``shared``, rows of one prompt stay together, and that prompt counts once; at most twice ``max_tokens`` are
    padded. Else tokens are counted with their padding.
    """
    prompts: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(rows):
        prompts.setdefault(tuple(row.prompt_ids) if shared else (), []).append(index)
    longest = {key: max(rows[i].length for i in group) for key, group in prompts.items()}
    batches: list[list[int]] = []
    tokens = width = 0
    for key in sorted(prompts, key=lambda key: -longest[key]):
        held = False  # whether the batch has this prompt
        for index in sorted(prompts[key], key=lambda i: (-rows[i].length, i)):
            length = rows[index].length
            wide = max(width, length) * (len(batches[-1]) + 1) if batches else 0
            more = len(rows[index].completion_ids) if held else length
            room = tokens + more <= max_tokens and wide <= 2 * max_tokens if shared else wide <= max_tokens
            if batches and room:
                batches[-1].append(index)
                tokens, width = tokens + more, max(width, length)
            else:
                batches.append([index])
                tokens = width = length
            held = True
    return batches

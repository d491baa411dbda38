"""The past of dense decoders (:mod:`skillsd.policy.dense`): tokens are written where their episode has got to.

Rows have no holes, a prompt that several rows begin with is kept and read once, and tokens can be fed on trial and
taken back: a guess of what will be sampled next is checked in the pass that would have been needed anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from skillsd.policy.dense import Attend, Dense
from skillsd.policy.packing import TokenRow, pack

#: Columns that the cache grows by, at least.
ROOM = 128
#: Attention scores (numbers) of one pass and layer that may be held at once; a pass with more takes the fused kernel.
_SCORES = 2**20

_T = TypeVar("_T")


class Static:
    """Keys and values of every layer, [heads, columns, D] for each prompt and for each row."""

    def __init__(self, model: PreTrainedModel, rows: int) -> None:
        self.model, self.dense = model, Dense(model)
        self.layers = int(model.config.num_hidden_layers)
        #: Where each row, as the caller counts, is kept: rows that go leave no gap, and few have to move for it.
        self.kept_at = list(range(rows))
        #: Tokens of each kept row behind its prompt.
        self.lengths = torch.zeros(rows, dtype=torch.long)
        #: (keys, values) of each layer: rows' own, and those of the prompts.
        self.own: list[tuple[Tensor, Tensor]] = []
        self.prompts: list[tuple[Tensor, Tensor]] = []
        #: Tokens of each prompt, and which one each kept row begins with.
        self.prompt_lengths = self.prompt_of = self.lengths

    def append(self, new: Sequence[Sequence[int]]) -> Tensor:
        """See :class:`~skillsd.policy.engines.caches.Past`."""
        return self.trial(new, [()] * len(new))[:, 0] if self.prompts else self._begin(new)

    def trial(self, new: Sequence[Sequence[int]], guesses: Sequence[Sequence[int]]) -> Tensor:
        """Feed each row its ``new`` ids and its ``guesses`` behind them (not in the first pass).

        The logits [rows, 1 + most guesses, vocabulary] behind each row's last new id and each of its guesses; beyond
        these, and for a row without new ids, they mean nothing. Wrong guesses have to be taken back.
        """
        new, guesses = self._as_kept(new), self._as_kept(guesses)
        counts = [len(a) + len(b) for a, b in zip(new, guesses, strict=True)]
        wide = max(counts)
        flat = [token for a, b in zip(new, guesses, strict=True) for token in (*a, *b)]
        rows = torch.repeat_interleave(torch.tensor(counts))
        starts = torch.tensor(counts).cumsum(0) - torch.tensor(counts)
        step = torch.arange(len(flat)) - starts[rows]
        columns = self.lengths[rows] + step
        positions = self.prompt_lengths[self.prompt_of[rows]] + columns
        self._make_room(int(self.lengths.max()) + wide)
        device = self.model.device
        places = None if len(flat) == len(new) * wide else rows * wide + step
        attend = self._attend(wide, rows, columns, places)
        states = self.dense.states(torch.tensor(flat, device=device), positions.to(device), attend)
        self.lengths = self.lengths + torch.tensor(counts)
        # Behind the last new id and the guesses.
        last = starts + torch.tensor([max(len(a) - 1, 0) for a in new])
        wanted = last.unsqueeze(1) + torch.arange(1 + max(map(len, guesses)))
        needed, where = wanted.clamp(max=len(flat) - 1).unique(return_inverse=True)
        logits: Tensor = self.model.get_output_embeddings()(states[needed.to(device)])
        return logits[where[self.kept_at].to(device)]

    def take_back(self, counts: Sequence[int]) -> None:
        """Forget the last tokens of each row, as many as ``counts`` says."""
        self.lengths = self.lengths - torch.tensor(self._as_kept(counts))

    def select(self, rows: Sequence[int]) -> None:
        """See :class:`~skillsd.policy.engines.caches.Past`."""
        kept = [self.kept_at[row] for row in rows]
        gaps = sorted({*range(len(kept))} - {*kept})
        moves = dict(zip((place for place in kept if place >= len(kept)), gaps, strict=True))
        self.kept_at = [moves.get(place, place) for place in kept]
        source = [0] * len(kept)
        for before, after in zip(kept, self.kept_at, strict=True):
            source[after] = before
        self.lengths = self.lengths[source]
        for pair in self.own:
            for room in pair:
                for before, after in moves.items():
                    room[after] = room[before]
        self.own = [_pair(room[: len(kept)] for room in pair) for pair in self.own]
        used, self.prompt_of = self.prompt_of[source].unique(return_inverse=True)
        if len(used) < len(self.prompt_lengths):
            self.prompt_lengths, there = self.prompt_lengths[used], used.to(self.model.device)
            self.prompts = [_pair(states[there] for states in pair) for pair in self.prompts]

    def _as_kept(self, values: Sequence[_T]) -> list[_T]:
        """``values`` of the caller's rows in the order in which these are kept."""
        result = list(values)
        for value, place in zip(values, self.kept_at, strict=True):
            result[place] = value
        return result

    def _begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Feed the prompts, each different one once."""
        different = list(dict.fromkeys(map(tuple, prompts)))
        number = {prompt: i for i, prompt in enumerate(different)}
        self.prompt_of = torch.tensor([number[tuple(prompt)] for prompt in prompts])
        self.prompt_lengths = torch.tensor([len(prompt) for prompt in different])
        packed = pack([TokenRow(list(prompt), [], []) for prompt in different], self.model.device)
        look = packed.attend()

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            apart = ([states[group.tokens] for group in packed.groups] for states in (keys, values))
            self.prompts.append(_pair(pad_sequence(each, batch_first=True).transpose(1, 2) for each in apart))
            return look(layer, queries, keys, values)

        states = self.dense.states(packed.ids, packed.positions, attend)
        last = (self.prompt_lengths.cumsum(0) - 1).to(self.model.device)
        logits: Tensor = self.model.get_output_embeddings()(states[last])
        logits = logits[self.prompt_of.to(self.model.device)]
        if self.prompts[0][0].dtype != torch.float32:
            self._copy_prompts()
        return logits

    def _copy_prompts(self) -> None:
        """Into the rows that begin with them. In low precision scores must stay inside the fused kernel, which knows no
        keys but a row's own.
        """
        where = self.prompt_of.to(self.model.device)
        self.own = [_pair(F.pad(states[where], (0, 0, 0, ROOM)) for states in pair) for pair in self.prompts]
        self.prompts = [_pair(states[:1, :, :0] for states in pair) for pair in self.prompts]
        self.lengths = self.prompt_lengths[self.prompt_of]
        self.prompt_lengths, self.prompt_of = torch.zeros(1, dtype=torch.long), torch.zeros_like(self.prompt_of)

    def _make_room(self, columns: int) -> None:
        if self.own and self.own[0][0].shape[2] >= columns:
            return
        columns += max(ROOM, columns // 4)
        made = []
        for layer, pair in enumerate(self.prompts):
            roomy = []
            for kind, like in enumerate(pair):  # zeros, as what is hidden is multiplied by 0 and must be finite
                room = like.new_zeros(len(self.lengths), like.shape[1], columns, like.shape[3])
                if self.own:
                    old = self.own[layer][kind]
                    room[:, :, : old.shape[2]] = old
                roomy.append(room)
            made.append(_pair(roomy))
        self.own = made

    def _attend(self, wide: int, rows: Tensor, columns: Tensor, places: Tensor | None) -> Attend:
        """Of a pass of at most ``wide`` tokens a row, where each token's row and column are given."""
        device, count = self.model.device, len(self.lengths)
        used = int(self.lengths.max()) + wide
        seen = torch.arange(used) <= (self.lengths.unsqueeze(1) + torch.arange(wide)).unsqueeze(2)  # [rows, wide, used]
        told = torch.arange(self.prompts[0][0].shape[2]) < self.prompt_lengths.unsqueeze(1)  # [prompts, columns]
        hidden = _pair(torch.zeros(m.shape).masked_fill_(~m, float("-inf")).to(device) for m in (seen, told))
        groups = _Groups.of(self.prompt_of, device)
        at = (rows.to(device), columns.to(device))
        grid = None if places is None else places.to(device)

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            own_keys, own_values = (t[:, :, :used] for t in self.own[layer])
            for room, fresh in ((own_keys, keys), (own_values, values)):
                room[at[0], :, at[1]] = fresh
            if grid is None:
                spread = queries.view(count, wide, *queries.shape[1:])
            else:
                spread = queries.new_zeros(count * wide, *queries.shape[1:])
                spread[grid] = queries
                spread = spread.view(count, wide, *queries.shape[1:])
            heads = keys.shape[1]  # several query heads may share one
            asked = spread.transpose(1, 2).reshape(count, heads, -1, wide, queries.shape[2])
            before = self.prompts[layer]
            size = asked.numel() // asked.shape[-1] * (used + before[0].shape[2])
            look = _in_parts if size <= _SCORES and queries.dtype == torch.float32 else _in_one
            found = look(asked, (own_keys, own_values), before, hidden, groups)
            found = found.flatten(1, 2).transpose(1, 2).reshape(count * wide, -1)
            return found if grid is None else found[grid]

        return attend


class _Groups(NamedTuple):
    """Rows by their prompts."""

    prompt_of: Tensor  # [rows]
    members: Tensor  # [prompts, most rows of one], filled up with any row
    place: Tensor | None  # [rows], in the flattened members; None where these are the rows in their order

    @classmethod
    def of(cls, prompt_of: Tensor, device: torch.device) -> _Groups:
        groups = [(prompt_of == number).nonzero().squeeze(1) for number in range(int(prompt_of.max()) + 1)]
        members = pad_sequence(groups, batch_first=True)
        if torch.equal(members.flatten(), torch.arange(len(prompt_of))):
            return cls(prompt_of.to(device), members.to(device), None)
        place = torch.zeros_like(prompt_of)
        for number, group in enumerate(groups):
            place[group] = number * members.shape[1] + torch.arange(len(group))
        return cls(prompt_of.to(device), members.to(device), place.to(device))

    def gather(self, states: Tensor) -> Tensor:
        """[rows, heads, n, D] to [prompts, heads, most rows * n, D]."""
        apart: Tensor = states.unflatten(0, self.members.shape) if self.place is None else states[self.members]
        return apart.transpose(1, 2).flatten(2, 3)

    def scatter(self, states: Tensor) -> Tensor:
        """The way back."""
        apart: Tensor = states.unflatten(2, (self.members.shape[1], -1)).transpose(1, 2).flatten(0, 1)
        return apart if self.place is None else apart[self.place]


def _in_parts(
    asked: Tensor,
    own: tuple[Tensor, Tensor],
    prompts: tuple[Tensor, Tensor],
    hidden: tuple[Tensor, Tensor],
    groups: _Groups,
) -> Tensor:
    """Prompts are read once for all the rows that begin with them; one softmax over both parts."""
    shape = asked.shape  # [rows, key/value heads, query heads of each, wide, D]
    flat = asked.flatten(2, 3) * shape[-1] ** -0.5
    of_own = (flat @ own[0].transpose(-1, -2)).view(*shape[:-1], -1).add_(hidden[0][:, None, None])
    of_prompt = (groups.gather(flat) @ prompts[0].transpose(-1, -2)).add_(hidden[1][:, None, None])
    scores = torch.cat([groups.scatter(of_prompt), of_own.flatten(2, 3)], -1).softmax(-1)
    to_prompt, to_own = scores.split([prompts[0].shape[2], own[0].shape[2]], -1)
    found: Tensor = to_own @ own[1] + groups.scatter(groups.gather(to_prompt) @ prompts[1])
    return found.view(shape)


def _in_one(
    asked: Tensor,
    own: tuple[Tensor, Tensor],
    prompts: tuple[Tensor, Tensor],
    hidden: tuple[Tensor, Tensor],
    groups: _Groups,
) -> Tensor:
    """Every row gets a copy of its prompt for as long as the pass takes: less than many tokens' arithmetic costs."""
    keys, values = own
    if prompts[0].shape[2]:
        keys, values = (torch.cat([p[groups.prompt_of], o], 2) for p, o in zip(prompts, own, strict=True))
    told = hidden[1][groups.prompt_of].unsqueeze(1).expand(-1, asked.shape[3], -1)
    mask = torch.cat([told, hidden[0]], -1).to(asked.dtype).unsqueeze(1)
    mask = mask.repeat(1, 1, asked.shape[2], 1)  # query heads of one key stand side by side
    return F.scaled_dot_product_attention(asked.flatten(2, 3), keys, values, attn_mask=mask).view(asked.shape)


def _pair(tensors: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    keys, values = tensors
    return keys, values

"""Batched generation with any Hugging Face causal LM; the key/value cache lives as long as the episode.

All live episodes share one cache of B rows and W columns. A turn appends columns for all rows; a row that needs
fewer than the longest has holes there, which the attention mask hides (positions are counted per row, so a hole
changes nothing). When holes waste too much, the cache is packed to the right.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from skillsd.policy.chat import ChatFormat
from skillsd.policy.engines.base import Generation, Request

#: Share of hidden columns at which the cache is packed.
MAX_WASTE = 0.25
#: Columns that the cache grows by, at least.
ROOM = 32


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A :class:`DynamicLayer` with room to grow: a token is written behind the others, which are not copied for it."""

    room: Tensor | None = None  # [2, B, H, columns, D], the first of them in use

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [B, H, columns, D]; all keys and values so far, as views of the room."""
        new = torch.stack((key_states, value_states))
        old = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        end, room = old + new.shape[-2], self.room
        # Rows that were selected or packed are no longer views of the room.
        if room is None or room.shape[-2] < end or self.keys.data_ptr() != room.data_ptr():
            room = self.room = new.new_empty(*new.shape[:-2], end + max(ROOM, end // 4), new.shape[-1])
            if old:
                room[0, ..., :old, :], room[1, ..., :old, :] = self.keys, self.values
        room[..., old:end, :] = new
        self.keys, self.values = room[0, ..., :end, :], room[1, ..., :end, :]
        return self.keys, self.values


def _cache() -> Cache:
    return Cache(layer_class_to_replicate=_RoomyLayer)


@dataclass
class _Slot:
    """A row of the cache: how many of its episode's tokens are in it."""

    episode: Hashable
    length: int = 0


class TransformersEngine:
    """``temperature`` 0 is greedy (log-probs are then those at temperature 1). One engine serves one rollout:
    it must not outlive a change of the weights."""

    lockstep = True

    def __init__(
        self, model: PreTrainedModel, chat: ChatFormat, *, temperature: float = 1.0, max_new_tokens: int = 512
    ) -> None:
        self.model, self.temperature, self.max_new_tokens = model, temperature, max_new_tokens
        self.stop_ids = np.array(sorted(chat.stop_ids))
        self.slots: list[_Slot] = []
        self.cache = _cache()
        self.mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)

    @torch.no_grad()
    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One turn for each request. An episode not seen before gets a row; the others go on from the cache.

        Every live episode must be among the requests (drop the finished ones with :meth:`release`).
        """
        wanted = [request.episode for request in requests]
        if self.slots and {slot.episode for slot in self.slots} != set(wanted):
            raise ValueError("all live episodes are generated for at once: release the finished ones first")
        if not self.slots:
            self.slots = [_Slot(episode) for episode in wanted]
            self.mask = torch.zeros(len(wanted), 0, dtype=torch.long, device=self.model.device)
            self.cache = _cache()
        place = {slot.episode: row for row, slot in enumerate(self.slots)}
        order = sorted(requests, key=lambda request: place[request.episode])
        self._pack()
        new = [request.ids[slot.length :] for request, slot in zip(order, self.slots, strict=True)]
        generations = self._decode(self._append(new), [request.rng for request in order])
        by_episode = dict(zip((slot.episode for slot in self.slots), generations, strict=True))
        return [by_episode[episode] for episode in wanted]

    def release(self, episodes: Sequence[Hashable]) -> None:
        """Take finished episodes out of the batch."""
        gone = set(episodes)
        keep = [row for row, slot in enumerate(self.slots) if slot.episode not in gone]
        if len(keep) == len(self.slots):
            return
        index = torch.tensor(keep, dtype=torch.long, device=self.mask.device)
        self.slots = [self.slots[row] for row in keep]
        self.mask = self.mask[index]
        if keep:
            self.cache.batch_select_indices(index)
        else:
            self.cache = _cache()

    def _decode(self, logits: Tensor, rngs: Sequence[np.random.Generator]) -> list[Generation]:
        """Sample until every row has ended its turn or used up its tokens."""
        results = [Generation([], [], 0.0, False) for _ in rngs]
        live = list(range(len(rngs)))
        for step in range(self.max_new_tokens):
            tokens, logps, entropies = self._sample(logits, live, rngs)
            ended = np.isin(tokens, self.stop_ids)
            for row, token, logp, entropy, end in zip(live, tokens, logps, entropies, ended, strict=True):
                result = results[row]
                result.ids.append(int(token))
                result.logps.append(float(logp))
                result.entropy += float(entropy)
                result.ended = bool(end)
            live = [row for row, end in zip(live, ended, strict=True) if not end]
            if not live or step + 1 == self.max_new_tokens:
                break
            # The last token of a finished turn is fed with the next turn's observation.
            alive = set(live)
            logits = self._append([[results[row].ids[-1]] if row in alive else [] for row in range(len(rngs))])
        return results

    def _sample(
        self, logits: Tensor, rows: list[int], rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(token, its log-prob, entropy) for each of ``rows``, by inverse CDF with one uniform number a token."""
        chosen = logits if len(rows) == len(logits) else logits[torch.tensor(rows, device=logits.device)]
        logps = torch.log_softmax(chosen.float() / (self.temperature or 1.0), -1)
        probabilities = logps.exp()
        entropies = -(probabilities * logps.clamp(min=-1e4)).sum(-1)
        if self.temperature == 0:
            tokens = chosen.argmax(-1)
        else:
            uniforms = torch.tensor([rngs[row].random() for row in rows], dtype=torch.float64, device=logits.device)
            cumulative = probabilities.double().cumsum(-1)
            tokens = torch.searchsorted(cumulative, (uniforms * cumulative[:, -1]).unsqueeze(1), right=True)
            tokens = tokens.squeeze(1).clamp(max=logits.shape[-1] - 1)
        picked = logps.gather(1, tokens.unsqueeze(1)).squeeze(1)
        return tokens.cpu().numpy(), picked.cpu().numpy(), entropies.cpu().numpy()

    def _append(self, new: Sequence[Sequence[int]]) -> Tensor:
        """Feed each row its new ids (right-padded into fresh columns); the logits behind each row's last id."""
        device = self.model.device
        width = max(map(len, new))
        ids = torch.zeros(len(new), width, dtype=torch.long)
        fresh = torch.zeros_like(ids)
        for row, tokens in enumerate(new):
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
            fresh[row, : len(tokens)] = 1
        lengths = torch.tensor([slot.length for slot in self.slots])
        positions = (lengths.unsqueeze(1) + fresh.cumsum(1) - 1).clamp(min=0)
        self.mask = torch.cat([self.mask, fresh.to(device)], 1)
        # A row that waits sees nothing new; it must see something, or its softmax is NaN: the mask's past is there.
        last = (fresh.sum(1) - 1).clamp(min=0)
        output = self.model(
            input_ids=ids.to(device),
            attention_mask=self.mask,
            position_ids=positions.to(device),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=torch.unique(last).to(device),
        )
        self.cache = output.past_key_values
        for slot, tokens in zip(self.slots, new, strict=True):
            slot.length += len(tokens)
        kept = torch.unique(last, return_inverse=True)[1].to(device)
        result: Tensor = output.logits[torch.arange(len(new), device=device), kept]
        return result

    def _pack(self) -> None:
        """Move every row's visible columns to the right, once holes waste more than ``MAX_WASTE`` of them."""
        columns = self.mask.shape[1]
        longest = int(self.mask.sum(1).max()) if columns else 0
        if columns == 0 or columns - longest <= MAX_WASTE * columns:
            return
        # A stable sort by visibility puts holes first and keeps the order of the rest.
        index = torch.argsort(self.mask, dim=1, stable=True)[:, columns - longest :]
        self.mask = self.mask.gather(1, index)
        for layer in self.cache.layers:
            for name in ("keys", "values"):
                values = getattr(layer, name)
                where = index[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3])
                setattr(layer, name, values.gather(2, where))

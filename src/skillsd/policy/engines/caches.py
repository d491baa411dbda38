"""How the episodes' past is kept between two forward passes. Every way gives the logits of a plain forward pass.

``shared`` is the fast one: all episodes in one key/value cache, with holes. A model that cannot do that (state-space
layers, positions counted by columns, no cache at all) takes a slower way; :mod:`skillsd.policy.selfcheck` says which.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from skillsd.policy.positions import same_rotary

#: Share of hidden columns at which a shared cache is packed.
MAX_WASTE = 0.25
#: Columns that a shared cache grows by, at least.
ROOM = 32
#: Layers whose masks :class:`Shared` knows how to make.
_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
#: What models call the past that they take and return; newer releases of transformers have one name for all.
_PASTS = ("cache", "past_key_values", "cache_params", "state")


class Past(Protocol):
    """Some rows' tokens so far."""

    def append(self, new: Sequence[Sequence[int]]) -> Tensor:
        """Feed each row its new ids; the logits [rows, vocabulary] behind each row's last id.

        A row without new ids waits: what stands at its place means nothing.
        """
        ...

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows alone."""
        ...


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A :class:`DynamicLayer` with room to grow: a token is written behind the others, which are not copied for it."""

    rooms: tuple[Tensor, Tensor] | None = None  # keys and values [B, H, columns, D], the first columns in use

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [B, H, columns, D] (keys and values may differ in D); all so far, as views of the rooms."""
        old = self.get_seq_length()
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        end = old + key_states.shape[-2]
        rooms = self.rooms
        # Rows that were selected or packed are no longer views of the rooms.
        if rooms is None or rooms[0].shape[-2] < end or self.keys.data_ptr() != rooms[0].data_ptr():
            columns = end + max(ROOM, end // 4)
            rooms = self.rooms = (_room(key_states, columns), _room(value_states, columns))
            if old:
                rooms[0][..., :old, :], rooms[1][..., :old, :] = self.keys, self.values
        rooms[0][..., old:end, :], rooms[1][..., old:end, :] = key_states, value_states
        self.keys, self.values = rooms[0][..., :end, :], rooms[1][..., :end, :]
        return self.keys, self.values


def _room(states: Tensor, columns: int) -> Tensor:
    return states.new_empty(*states.shape[:-2], columns, states.shape[-1])


#: Parts of names of settings with which models cut windows, or scale by position, without a mask of transformers'
#: making: these count columns.
_STRANGE = ("window", "chunk", "local_att", "floor_scale", "block_size", "attention_types")
_KNOWN = (
    "sliding_window",
    "attention_chunk_size",
    "use_sliding_window",
    "max_window_layers",
    "chunk_size_feed_forward",
)


def can_share(model: PreTrainedModel) -> bool:
    """Whether :class:`Shared` knows the masks that ``model`` needs (not yet whether the model bears holes)."""
    config = model.config.get_text_config()
    strange = any(
        value not in (None, 0, False) and any(part in name for part in _STRANGE)
        for name, value in vars(config).items()
        if name not in _KNOWN and not name.endswith("_pattern")
    )
    plain = model.config._attn_implementation in ("eager", "sdpa")
    return _kinds(config) <= _KINDS and not strange and (plain or not _narrow(config))


def _kinds(config: Any) -> set[str]:
    return set(getattr(config, "layer_types", None) or ())


def _narrow(config: Any) -> dict[str, int]:
    """The kinds of layers that see less than everything before them, with the length that they see."""
    kinds, found = _kinds(config), {}
    for kind, name in (("sliding_attention", "sliding_window"), ("chunked_attention", "attention_chunk_size")):
        length = getattr(config, name, None)
        if length and (not kinds or kind in kinds):
            found[kind] = int(length)
    return found


class Shared:
    """One key/value cache of B rows and W columns for all episodes.

    A turn appends columns for all rows; a row that needs fewer than the longest has holes there, which the attention
    mask hides. Positions, windows and chunks are counted per row, so a hole changes nothing. When holes waste too much,
    the cache is packed to the right.
    """

    def __init__(self, model: PreTrainedModel, rows: int) -> None:
        self.model, self.cache = model, Cache(layer_class_to_replicate=_RoomyLayer)
        self.config = model.config.get_text_config()
        self.narrow = _narrow(self.config)
        self.name = _PASTS[0] if _PASTS[0] in inspect.signature(model.forward).parameters else _PASTS[1]
        self.lengths = torch.zeros(rows, dtype=torch.long)
        self.mask = torch.zeros(rows, 0, dtype=torch.long, device=model.device)
        #: The position of the token in each column [B, W]; anything in a hole.
        self.places = self.mask.clone()
        self.packing = True

    def append(self, new: Sequence[Sequence[int]]) -> Tensor:
        """See :class:`Past`; new ids are right-padded into fresh columns."""
        if max(map(len, new)) > 1:  # a turn begins
            self._pack()
        device = self.model.device
        ids, fresh = _padded(new)
        positions = (self.lengths.unsqueeze(1) + fresh.cumsum(1) - 1).clamp(min=0).to(device)
        self.mask = torch.cat([self.mask, fresh.to(device)], 1)
        self.places = torch.cat([self.places, positions], 1)
        # A row that waits sees nothing new; it must see something, or its softmax is NaN: the mask's past is there.
        last = (fresh.sum(1) - 1).clamp(min=0)
        output = self.model(
            input_ids=ids.to(device),
            attention_mask=self._attention(positions),
            position_ids=positions,
            use_cache=True,
            logits_to_keep=torch.unique(last).to(device),
            **{self.name: self.cache},
        )
        self.cache = getattr(output, self.name)
        self.lengths = self.lengths + fresh.sum(1)
        kept = torch.unique(last, return_inverse=True)[1]
        if output.logits.shape[1] == ids.shape[1]:  # a model that keeps them all, whatever it is asked for
            kept = last
        result: Tensor = output.logits[torch.arange(len(new), device=device), kept.to(device)]
        return result

    def select(self, rows: Sequence[int]) -> None:
        """See :class:`Past`."""
        index = torch.tensor(rows, dtype=torch.long, device=self.mask.device)
        self.lengths, self.mask, self.places = self.lengths[index.cpu()], self.mask[index], self.places[index]
        self.cache.batch_select_indices(index)

    def _attention(self, positions: Tensor) -> Any:
        """What the model's layers may see: the plain mask [B, W], or one for each kind of layer, [B, 1, new, W]."""
        if not self.narrow:
            return self.mask
        query, key = positions.unsqueeze(2), self.places.unsqueeze(1)  # [B, new, 1], [B, 1, W]
        seen = self.mask.bool().unsqueeze(1) & (key <= query)
        masks = {"full_attention": seen}
        if window := self.narrow.get("sliding_attention"):
            masks["sliding_attention"] = seen & (query - key < window)
        if chunk := self.narrow.get("chunked_attention"):
            masks["chunked_attention"] = seen & (query // chunk == key // chunk)
        made = {kind: self._as_wanted(mask.unsqueeze(1)) for kind, mask in masks.items()}
        kinds = _kinds(self.config) or set(self.narrow)
        return made if len(kinds) > 1 else made[kinds.pop()]

    def _as_wanted(self, mask: Tensor) -> Tensor:
        if self.model.config._attn_implementation != "eager":
            return mask
        dtype = self.model.dtype
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)

    def _pack(self) -> None:
        """Move every row's visible columns to the right, once holes waste more than ``MAX_WASTE`` of them."""
        columns = self.mask.shape[1]
        longest = int(self.mask.sum(1).max()) if columns else 0
        if not self.packing or columns - longest <= MAX_WASTE * columns:
            return
        # A stable sort by visibility puts holes first and keeps the order of the rest.
        index = torch.argsort(self.mask, dim=1, stable=True)[:, columns - longest :]
        self.mask, self.places = self.mask.gather(1, index), self.places.gather(1, index)
        for layer in self.cache.layers:
            for name in ("keys", "values"):
                values = getattr(layer, name)
                where = index[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3])
                setattr(layer, name, values.gather(2, where))


class Own:
    """A cache of the model's own kind for every row, fed in one forward pass a row, or, with ``single``, a token at a
    time (once begun, some state-space layers take no more at once). Slow where there are many rows.
    """

    def __init__(self, model: PreTrainedModel, rows: int, *, single: bool = False) -> None:
        self.model, self.single = model, single
        self.pasts: list[dict[str, Any]] = [{} for _ in range(rows)]

    def append(self, new: Sequence[Sequence[int]]) -> Tensor:
        """See :class:`Past`."""
        found = [self._feed(row, list(tokens)) if tokens else None for row, tokens in enumerate(new)]
        like = next(logits for logits in found if logits is not None)
        return torch.stack([torch.zeros_like(like) if logits is None else logits for logits in found])

    def select(self, rows: Sequence[int]) -> None:
        """See :class:`Past`."""
        self.pasts = [self.pasts[row] for row in rows]

    def _feed(self, row: int, tokens: list[int]) -> Tensor:
        one_by_one = self.single and self.pasts[row]
        logits = torch.empty(0)
        for part in [[token] for token in tokens] if one_by_one else [tokens]:
            ids = torch.tensor([part], device=self.model.device)
            output = self.model(input_ids=ids, use_cache=True, **self.pasts[row])
            name = next((n for n in _PASTS if getattr(output, n, None) is not None), None)
            if name is None:
                raise ValueError("the model returns no cache")
            self.pasts[row] = {name: getattr(output, name)}
            logits = output.logits[0, -1]
        return logits


class Recomputed:
    """No cache: whole rows again for every token, as when they are scored. Slowest, and right for any causal model."""

    def __init__(self, model: PreTrainedModel, rows: int) -> None:
        self.model = model
        self.ids: list[list[int]] = [[] for _ in range(rows)]

    def append(self, new: Sequence[Sequence[int]]) -> Tensor:
        """See :class:`Past`."""
        for row, tokens in zip(self.ids, new, strict=True):
            row += tokens
        live = [row for row, tokens in enumerate(new) if tokens]
        found: dict[int, Tensor] = {}
        for part in same_rotary(self.model, [len(self.ids[row]) for row in live]):
            rows = [live[i] for i in part]
            ids, fresh = _padded([self.ids[row] for row in rows])
            logits = self.model(input_ids=ids.to(self.model.device), use_cache=False).logits
            found |= {row: logits[i, int(fresh[i].sum()) - 1] for i, row in enumerate(rows)}
        nothing = torch.zeros_like(next(iter(found.values())))
        return torch.stack([found.get(row, nothing) for row in range(len(new))])

    def select(self, rows: Sequence[int]) -> None:
        """See :class:`Past`."""
        self.ids = [self.ids[row] for row in rows]


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids padded at the right with 0, and where they are: two int64 tensors [rows, longest]."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    there = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        there[row, : len(tokens)] = 1
    return ids, there

"""How many positions a model has, and rotary factors that change with a sequence's length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

#: What configs call the number of positions that the model was made for.
_NAMES = (
    "max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "max_seq_length", "n_ctx",
    "max_target_positions",
)  # fmt: skip
#: Rotary embeddings whose factors depend on the length of the whole sequence.
_CHANGING = ("dynamic", "longrope")


def position_limit(model: PreTrainedModel) -> int | None:
    """The longest sequence (in tokens) that the model can take; None where nothing limits it.

    It ends where the model's positions do, or where its rotary factors would change: beyond that length tokens that
    were sampled under one set of factors would be scored under another.
    """
    config = model.config.get_text_config()
    limits = [value for name in _NAMES if isinstance(value := getattr(config, name, None), int) and value > 0]
    limits += [length for _, length in _changes(config)]
    for name, module in (model.get_decoder() or model).named_modules():  # a picture's positions are no text's
        last = name.rpartition(".")[2]
        if isinstance(module, torch.nn.Embedding) and ("position" in last or last == "wpe"):
            # OPT's and BART's kind skip some rows, RoBERTa's begin behind the padding's.
            skipped = int(getattr(module, "offset", 0) or 0)
            if module.padding_idx is not None and not skipped:
                skipped = module.padding_idx + 1
            limits.append(module.num_embeddings - skipped)
    return min(limits, default=None)


def same_rotary(model: PreTrainedModel, lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of rows that may share a padded batch: their length gives them the same rotary factors.

    Each batch must be fed before the next one is asked for.
    """
    changes = _changes(model.config.get_text_config())
    if not changes:
        yield list(range(len(lengths)))
        return
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, length in enumerate(lengths):
        # longrope knows two sets of factors; dynamic scaling has another set for every length beyond the first.
        key = tuple(0 if length <= first else 1 if kind == "longrope" else length for kind, first in changes)
        groups.setdefault(key, []).append(index)
    for group in groups.values():
        _forget_lengths(model)
        yield group


def _forget_lengths(model: PreTrainedModel) -> None:
    """Dynamic scaling keeps the factors of the longest sequence that it has seen; a new model has seen none."""
    for module in model.modules():
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            prefix = name.removesuffix("max_seq_len_cached")
            original = getattr(module, f"{prefix}original_inv_freq", None)
            if isinstance(original, torch.Tensor):  # a copy: some models overwrite their factors in place
                device = getattr(module, f"{prefix}inv_freq").device
                setattr(module, f"{prefix}inv_freq", original.to(device, copy=True))
                setattr(module, name, module.original_max_seq_len)


def _changes(config: Any) -> list[tuple[str, int]]:
    """(kind, length from which on the factors change) of each rotary embedding that does so."""
    settings = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    nested = [value for value in settings.values() if isinstance(value, dict)]
    found = set()
    for one in nested or [settings]:
        kind = one.get("rope_type", one.get("type"))
        if kind in _CHANGING:
            first = one.get("original_max_position_embeddings") if kind == "longrope" else None
            found.add((kind, int(first or config.max_position_embeddings)))
    return sorted(found)

"""Before any work: does what we do with a model's past give the log-probs of a plain forward pass?

Architectures differ in ways that no list keeps up with, and a wrong cache raises nothing: log-probs are just wrong. So
every model is asked, with a few random tokens, which of the ways in :mod:`skillsd.policy.engines.caches` it bears.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skillsd.errors import SkillSDError
from skillsd.policy.dense import knows
from skillsd.policy.engines.caches import Own, Past, Recomputed, Shared, can_share
from skillsd.policy.engines.static import Static
from skillsd.policy.positions import position_limit, same_rotary

#: Greatest difference of log-probs (nats) in fp32, and in lower precision, where rounding alone makes some tenths.
TOLERANCE, ROUGH = 1e-3, 1.0
#: Holes in front of the tokens of a shared cache, so that whoever counts columns goes astray; as many as fit in here.
_HOLES, _HOLE_BYTES = 16384, 2**26
#: What two episodes of unequal length are fed: a prompt, tokens one by one (the first one's turn ends early, so that it
#: waits), an observation, a token.
_TURNS: list[tuple[int, int]] = [(5, 9), (1, 1), (0, 1), (0, 1), (4, 7), (1, 1)]

Decoding = Callable[[PreTrainedModel, int], Past]
_WAYS: dict[str, Decoding] = {
    "static": Static,
    "shared": Shared,
    "own": Own,
    "single": partial(Own, single=True),
    "recomputed": Recomputed,
}
#: The same in words.
WAYS = {
    "static": "all episodes share one cache, and a prompt is kept once",
    "shared": "all episodes share one cache",
    "own": "each episode has a cache of its own",
    "single": "each episode has a cache of its own, which takes one token at a time",
    "recomputed": "no cache of it is right, so every token costs a whole forward pass",
}
#: Those that serve many episodes in one pass.
FAST = ("static", "shared")
_FOUND: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()


def decoding(model: PreTrainedModel) -> str:
    """The fastest way of generating with ``model`` that agrees with a plain forward pass: shared, own, single or
    recomputed (:mod:`skillsd.policy.engines.caches`). Found out once for each model.

    Raises :class:`SkillSDError` if none does: then no way of scoring it in a batch is right either.
    """
    if model not in _FOUND:
        _FOUND[model] = _find(model)
    return _FOUND[model]


def is_dense(model: PreTrainedModel) -> bool:
    """Whether :mod:`skillsd.policy.dense` may compute ``model``: it is made for it and agrees with the library."""
    return knows(model) and decoding(model) == "static"


def start(model: PreTrainedModel, rows: int) -> Past:
    """An empty past for ``rows`` episodes."""
    way = decoding(model)
    return _WAYS["shared" if way == "static" and not knows(model) else way](model, rows)  # sharded since, or hooked


@torch.no_grad()
def _find(model: PreTrainedModel) -> str:
    try:
        limit, rows = position_limit(model), _random_rows(model)
    except Exception as error:  # configs of some kinds raise where others have a value
        raise SkillSDError(f"{type(model).__name__} is no model of one text: {_reason(error)}") from None
    if limit is not None and limit < max(map(len, rows)):
        raise SkillSDError(f"{type(model).__name__} has {limit} positions: too few for an episode")
    with torch.autocast(model.device.type, enabled=False), torch.random.fork_rng(devices=[]):
        try:
            truth = [_plain_logps(model, row) for row in rows]
            causal = _gap([lp[: len(lp) // 2] for lp in truth], [_plain_logps(model, r[: len(r) // 2]) for r in rows])
        except Exception as error:  # a model's code may raise anything
            raise SkillSDError(f"{type(model).__name__} cannot be run on token ids alone: {_reason(error)}") from None
        low = model.dtype != torch.float32
        bound = ROUGH if low else TOLERANCE
        if not all(bool(torch.isfinite(one).all()) for one in truth):
            raise SkillSDError(f"{type(model).__name__} gives log-probs that are not finite: are its weights whole?")
        if causal > bound:
            raise SkillSDError(
                f"{type(model).__name__} is not a causal model as it is configured: what comes later changes the "
                f"log-probs of earlier tokens (by {causal:.2g} nats)"
            )
        why = "it needs masks of another kind"
        for name, way in _WAYS.items():
            try:
                if (name == "static" and not knows(model)) or (name == "shared" and not can_share(model)):
                    continue
                gap = _gap(*_played(way, model, rows, truth))
            except Exception as error:
                why = _reason(error)
                continue
            if gap <= bound:
                return name
            why = f"log-probs differ by {gap:.2g} nats"
    raise SkillSDError(
        f"{type(model).__name__}: episodes in a batch do not get the log-probs of a plain forward pass ({why}); "
        "this architecture is not supported"
    )


def _played(
    way: Decoding, model: PreTrainedModel, rows: list[list[int]], truth: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Log-probs wherever something was fed, and what they should be."""
    past = way(model, len(rows))
    if isinstance(past, Shared):
        _dig_holes(past, rows)
    found, wanted, done = [], [], [0] * len(rows)
    for turn in _TURNS:
        new = [row[at : at + count] for row, at, count in zip(rows, done, turn, strict=True)]
        logps = torch.log_softmax(past.append(new).float(), -1)
        for row, tokens in enumerate(new):
            done[row] += len(tokens)
            if tokens:
                found.append(logps[row])
                wanted.append(truth[row][done[row] - 1])
    past.select([1])
    return found, wanted


def _dig_holes(past: Shared, rows: list[list[int]]) -> None:
    """Fill the cache with columns that must not be seen, nor counted."""
    past.append([row[:2] for row in rows])
    layers: list[Any] = past.cache.layers
    size = sum(states.numel() * states.element_size() for layer in layers for states in (layer.keys, layer.values))
    times = max(1, min(_HOLES // 2, _HOLE_BYTES // size))
    for layer in layers:
        layer.keys, layer.values = layer.keys.repeat(1, 1, times, 1), layer.values.repeat(1, 1, times, 1)
    past.mask = torch.zeros_like(past.mask).repeat(1, times)
    past.places = past.places.repeat(1, times)
    past.lengths = torch.zeros_like(past.lengths)
    past.packing = False


def _plain(model: PreTrainedModel, rows: list[list[int]]) -> Tensor:
    logits: Tensor
    for _ in same_rotary(model, [len(row) for row in rows[:1]]):
        ids = torch.tensor(rows, device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits
    return logits


def _plain_logps(model: PreTrainedModel, row: list[int]) -> Tensor:
    return torch.log_softmax(_plain(model, [row])[0].float(), -1)


def _gap(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The greatest difference; infinite where one is not finite. Tokens that nobody would ever sample do not count."""
    worst = 0.0
    for one, other in zip(found, wanted, strict=True):
        gap = (one - other).abs().masked_fill(other < -40.0, 0.0)
        worst = max(worst, float(gap.max()) if bool(torch.isfinite(gap).all()) else float("inf"))
    return worst


def _random_rows(model: PreTrainedModel) -> list[list[int]]:
    vocabulary = int(model.config.get_text_config().vocab_size)
    padding = getattr(model.config.get_text_config(), "pad_token_id", None)  # some count positions without it
    generator = torch.Generator().manual_seed(0)
    lengths = [sum(turn[row] for turn in _TURNS) for row in range(2)]
    ids = [i for i in torch.randint(vocabulary, (64,), generator=generator).tolist() if i != padding]
    return [ids[: lengths[0]], ids[lengths[0] : sum(lengths)]]


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"

"""The recipe of the embedded office model: `skillsd base-model build --of office`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3ForCausalLM,
)

from skillsd.base_model.clerk import lessons
from skillsd.base_model.fit import Report, Size, compose_embeddings
from skillsd.base_model.talks import corpus, learn
from skillsd.base_model.tokenizer import train_tokenizer, word_parts
from skillsd.policy.embedded import path

#: Words and numbers stay whole, with a space in front; other signs stand alone.
_PIECES = r"\n+|`+| ?[A-Za-z]+| ?[0-9]+|.|\s"


@dataclass(frozen=True)
class Recipe(Size):
    """Everything that the weights depend on."""

    episodes: int = 24_000
    batch: int = 8


def start(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    """Begin with the layers of the AppWorld model, and with its vectors of the words that it knows.

    It has learned to copy, which takes a network of this size longest: from nothing, 32,000 episodes were not enough.
    What it copied were other words in another form; it knows nothing of an office.
    """
    where = str(path("embedded-appworld"))
    old = AutoModelForCausalLM.from_pretrained(where, use_safetensors=True)
    known = {str(word): index for index, word in enumerate(_words(AutoTokenizer.from_pretrained(where)))}
    vectors: torch.Tensor = old.state_dict()["model.embed_tokens.weight"]
    layers = {name: value for name, value in old.state_dict().items() if "embed" not in name and "lm_head" not in name}
    model.load_state_dict(layers, strict=False)
    compose_embeddings(model, tokenizer, word_parts, torch.Generator().manual_seed(seed), float(vectors.std()))
    for index, word in enumerate(_words(tokenizer)):
        if word in known:
            model.model.embed_tokens.weight.data[index] = vectors[known[word]]


def _words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [str(tokenizer.decode([index])) for index in range(len(tokenizer))]


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A tokenizer trained on episodes of ``seed``."""
    return train_tokenizer(corpus(lessons(seed, 6000)), 2048, _PIECES)


def build(out: Path, recipe: Recipe, report: Report | None = None) -> None:
    """Train and save to ``out``."""
    torch.manual_seed(recipe.seed)
    tokenizer = make_tokenizer(recipe.seed)
    talks = lessons(recipe.seed + 1, recipe.episodes)
    learn(tokenizer, lambda model: start(model, tokenizer, recipe.seed), talks, recipe, out, report)

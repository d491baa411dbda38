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

from skillsd.base_model.clerk import Lesson, lessons
from skillsd.base_model.fit import (
    Example,
    Report,
    Size,
    by_length,
    compose_embeddings,
    fit,
    new_model,
    save,
    weighted_loss,
)
from skillsd.base_model.tokenizer import train_tokenizer, word_parts
from skillsd.policy.chat import ChatFormat
from skillsd.policy.embedded import path
from skillsd.skills.teacher_view import skill_view

#: Words and numbers stay whole, with a space in front; other signs stand alone.
_PIECES = r"\n+|`+| ?[A-Za-z]+| ?[0-9]+|.|\s"
#: Weight of predicting what the tools answer beside what the clerk writes.
ANSWER_WEIGHT = 0.1


@dataclass(frozen=True)
class Recipe(Size):
    """Everything that the weights depend on."""

    episodes: int = 24_000
    batch: int = 8


def example(lesson: Lesson, chat: ChatFormat) -> Example:
    """The ids that a rollout would have; what was written carelessly on purpose is not learned."""
    ids = chat.prompt(skill_view(lesson.skill, lesson.prompt) if lesson.skill else lesson.prompt)
    weights = [0.0] * len(ids)
    for (said, answer), learned in zip(lesson.turns, lesson.learned, strict=True):
        written = [*chat.message(said), chat.end_id]
        heard = chat.followup(answer, ended=True)
        ids += written + heard
        weights += [float(learned)] * len(written) + [ANSWER_WEIGHT] * len(heard)
    return Example(ids, weights)


def start(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    """Begin with the layers of the AppWorld model, and with its vectors of the words that it knows.

    It has learned to copy, which takes a network of this size longest: from nothing it would take ten times as many
    episodes. What it copied were other words in another form; it knows nothing of an office.
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
    corpus = []
    for lesson in lessons(seed, 6000):
        corpus += [lesson.prompt, *(text for turn in lesson.turns for text in turn)]
        if lesson.skill:
            corpus.append(skill_view(lesson.skill, ""))
    return train_tokenizer(corpus, 2048, _PIECES)


def build(out: Path, recipe: Recipe, report: Report | None = None) -> None:
    """Train and save to ``out``."""
    torch.manual_seed(recipe.seed)
    tokenizer = make_tokenizer(recipe.seed)
    chat, model = ChatFormat(tokenizer), new_model(tokenizer, recipe)
    start(model, tokenizer, recipe.seed)
    stream = (example(lesson, chat) for lesson in lessons(recipe.seed + 1, recipe.episodes))
    pad = int(tokenizer.pad_token_id)
    fit(model, by_length(stream, len, recipe), lambda batch: weighted_loss(model, batch, pad), recipe, report)
    save(model, tokenizer, out)

"""The recipe of the embedded office model: `skillsd base-model build --of office`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

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
from skillsd.seeding import derive_seed
from skillsd.skills.teacher_view import skill_view

#: Words and numbers stay whole, with a space in front; other signs stand alone.
_PIECES = r"\n+|`+| ?[A-Za-z]+| ?[0-9]+|.|\s"
#: Weight of predicting what the tools answer beside what the clerk writes.
ANSWER_WEIGHT = 0.1


@dataclass(frozen=True)
class Recipe(Size):
    """Everything that the weights depend on."""

    episodes: int = 32_000
    batch: int = 8  # twice the updates of 16, which copying needs
    copies: int = 6_000


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


def copies(tokenizer: PreTrainedTokenizerFast, seed: int, count: int) -> Iterator[Example]:
    """Words in a random order, then the same ones again, with or without the space in front of them.

    Copying is what a reader needs most, and learns last: here every word of the second half asks for it.
    """
    rng = random.Random(derive_seed(seed, "copies"))
    known: dict[str, list[int]] = {}
    for token in range(len(tokenizer)):
        if word := word_parts(str(tokenizer.decode([token]))):
            known.setdefault(word[0], []).append(token)
    words = list(known.values())
    for _ in range(count):
        drawn = rng.choices(words, k=rng.randint(20, 100))
        first, second = ([rng.choice(forms) for forms in drawn] for _ in range(2))
        yield Example(first + second, [0.0] * len(first) + [0.0] + [1.0] * (len(second) - 1))


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
    compose_embeddings(model, tokenizer, word_parts, torch.Generator().manual_seed(recipe.seed))
    taught = lessons(recipe.seed + 1, recipe.episodes - recipe.copies)
    stream = chain(copies(tokenizer, recipe.seed, recipe.copies), (example(lesson, chat) for lesson in taught))
    pad = int(tokenizer.pad_token_id)
    fit(model, by_length(stream, len, recipe), lambda batch: weighted_loss(model, batch, pad), recipe, report)
    save(model, tokenizer, out)

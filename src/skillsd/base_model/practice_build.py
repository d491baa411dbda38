"""The recipe of the embedded AppWorld model: `skillsd base-model build --of appworld`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from skillsd.base_model.fit import Report, Size, compose_embeddings
from skillsd.base_model.practice import Answers, lessons, record
from skillsd.base_model.talks import ANSWER_WEIGHT as ANSWER_WEIGHT
from skillsd.base_model.talks import Example as Example
from skillsd.base_model.talks import corpus, learn
from skillsd.base_model.talks import example as example
from skillsd.base_model.tokenizer import train_tokenizer, word_parts
from skillsd.envs.appworld.environment import AppWorldTasks

#: Names with their dots and numbers stay whole, with a space in front; other signs stand alone.
_PIECES = r"\n+|`+| ?[A-Za-z_]+(?:\.[a-z_]+)*| ?[0-9]+|.|\s"


@dataclass(frozen=True)
class Recipe(Size):
    """Everything that the weights depend on, beside what the engine answers."""

    episodes: int = 18_000
    batch: int = 8  # twice the updates of 16, which copying needs


def make_tokenizer(seed: int, answers: Answers, excluded: frozenset[str]) -> PreTrainedTokenizerFast:
    """A tokenizer trained on episodes of ``seed``."""
    return train_tokenizer(corpus(lessons(seed, 2000, answers, excluded)), 1024, _PIECES)


def gather() -> tuple[Answers, frozenset[str]]:
    """What the engine answers, and the pack's own instructions. Raises :class:`UsageError` without an engine."""
    tasks = AppWorldTasks(servers=1, prompt="short")
    try:
        answers = record(tasks)
    finally:
        tasks.pool.close()
    splits = ("practice", "practice_test")
    return answers, frozenset(str(task.data["instruction"]) for split in splits for task in tasks.tasks(split))


def build(out: Path, recipe: Recipe, answers: Answers, excluded: frozenset[str], report: Report | None = None) -> None:
    """Train and save to ``out``. ``answers`` is what the engine says, ``excluded`` the pack's own instructions."""
    torch.manual_seed(recipe.seed)
    tokenizer = make_tokenizer(recipe.seed, answers, excluded)
    generator = torch.Generator().manual_seed(recipe.seed)
    talks = lessons(recipe.seed + 1, recipe.episodes, answers, excluded)
    learn(
        tokenizer,
        lambda model: compose_embeddings(model, tokenizer, word_parts, generator),
        talks, recipe, out, report,
    )  # fmt: skip

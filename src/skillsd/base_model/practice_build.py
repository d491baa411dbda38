"""The recipe of the embedded AppWorld model: `skillsd base-model build --of appworld`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

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
from skillsd.base_model.practice import Answers, Episode, lessons, message, record
from skillsd.base_model.tokenizer import train_tokenizer, word_parts
from skillsd.envs.appworld.environment import AppWorldTasks
from skillsd.policy.chat import ChatFormat
from skillsd.skills.teacher_view import skill_view

#: Names with their dots and numbers stay whole, with a space in front; other signs stand alone.
_PIECES = r"\n+|`+| ?[A-Za-z_]+(?:\.[a-z_]+)*| ?[0-9]+|.|\s"
#: Weight of predicting what the apps answer beside what the agent writes.
ANSWER_WEIGHT = 0.1


@dataclass(frozen=True)
class Recipe(Size):
    """Everything that the weights depend on, beside what the engine answers."""

    episodes: int = 18_000
    batch: int = 8  # twice the updates of 16, which copying needs


def example(episode: Episode, chat: ChatFormat) -> Example:
    """The ids that a rollout would have; what was written carelessly on purpose is not learned."""
    ids = chat.prompt(skill_view(episode.skill, episode.prompt) if episode.skill else episode.prompt)
    weights = [0.0] * len(ids)
    for (_, code, answer), learned in zip(episode.turns, episode.learned, strict=True):
        said = [*chat.message(message(code)), chat.end_id]
        heard = chat.followup(answer, ended=True)
        ids += said + heard
        weights += [float(learned)] * len(said) + [ANSWER_WEIGHT] * len(heard)
    return Example(ids, weights)


def make_tokenizer(seed: int, answers: Answers, excluded: frozenset[str]) -> PreTrainedTokenizerFast:
    """A tokenizer trained on episodes of ``seed``."""
    corpus = []
    for episode in lessons(seed, 2000, answers, excluded):
        corpus += [episode.prompt, *(text for _, code, answer in episode.turns for text in (message(code), answer))]
        if episode.skill:
            corpus.append(skill_view(episode.skill, ""))
    return train_tokenizer(corpus, 1024, _PIECES)


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
    chat, model = ChatFormat(tokenizer), new_model(tokenizer, recipe)
    compose_embeddings(model, tokenizer, word_parts, torch.Generator().manual_seed(recipe.seed))
    stream = (example(episode, chat) for episode in lessons(recipe.seed + 1, recipe.episodes, answers, excluded))
    pad = int(tokenizer.pad_token_id)
    fit(model, by_length(stream, len, recipe), lambda batch: weighted_loss(model, batch, pad), recipe, report)
    save(model, tokenizer, out)

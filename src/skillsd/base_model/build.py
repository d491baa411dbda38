"""The recipe of the embedded base model for Sokoban: `skillsd base-model build`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, log_softmax
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from skillsd.base_model.episodes import Lesson, lessons
from skillsd.base_model.fit import Report, Size, by_length, compose_embeddings, fit, new_model, save
from skillsd.base_model.tokenizer import ASSISTANT, END, PAD, USER, parts, room_rows, train_tokenizer
from skillsd.envs.sokoban.game import DIRECTIONS
from skillsd.envs.sokoban.text import INVALID, PROMPT, format_action
from skillsd.skills.teacher_view import skill_view

#: Weight of predicting the boards beside the moves: it teaches the model what a move does.
BOARD_WEIGHT = 0.2


#: (seed, how many, hashes of excluded levels, share of levels with two boxes) to episodes.
Lessons = Callable[[int, int, frozenset[str], float], Iterator[Lesson]]


@dataclass(frozen=True)
class Recipe(Size):
    """Everything that the weights depend on."""

    two_boxes: float = 0.4
    lessons: Lessons = lessons


@dataclass(frozen=True)
class Example:
    """Token ids of one episode; at ``moves`` the next token is to follow ``targets`` over the four directions."""

    ids: list[int]
    moves: list[int]
    targets: list[list[float]]
    form: list[int]


class Encoder:
    """Lessons to ids, by the same pieces as the chat template (a test compares the two)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.directions = [self.token(d) for d in DIRECTIONS]
        self.actions = {d: self(format_action(d)) for d in DIRECTIONS}
        self.user, self.assistant, self.end = map(self.token, (USER, ASSISTANT, END))

    def token(self, text: str) -> int:
        """The id of a text that is a single token."""
        (token,) = self(text)
        return token

    def __call__(self, text: str) -> list[int]:
        """Ids of plain text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def example(self, lesson: Lesson) -> Example:
        """The ids of one lesson, and where moves and form are to be learned."""
        opening = PROMPT + lesson.boards[0]
        if lesson.skill is not None:
            opening = skill_view(lesson.skill, opening)
        ids, moves, form = [self.user, *self(opening), self.end, self.assistant], [], []
        for turn, move in enumerate(lesson.taken):
            action = self.actions[move]
            form += [len(ids) - 1, *range(len(ids) + 1, len(ids) + len(action))]
            moves.append(len(ids))
            ids += [*action, self.end]
            if turn + 1 < len(lesson.boards):
                ids += [self.user, *self(lesson.boards[turn + 1]), self.end, self.assistant]
        return Example(ids, moves, [[t[d] for d in DIRECTIONS] for t in lesson.targets], form)


def make_tokenizer(recipe: Recipe, excluded: frozenset[str]) -> PreTrainedTokenizerFast:
    """A tokenizer trained on prompts, moves and skills."""
    corpus = [PROMPT, INVALID] * 100 + [format_action(d) for d in DIRECTIONS] * 1000  # one token for each move
    skills = (lesson.skill for lesson in recipe.lessons(recipe.seed, 2000, excluded, 0.4))
    corpus += [skill_view(skill, "") for skill in skills if skill is not None]
    return train_tokenizer(corpus, whole=room_rows())


def loss_of(model: Qwen3ForCausalLM, batch: list[Example], directions: list[int], pad: int) -> torch.Tensor:
    """Cross-entropy to the move distributions, plus the form of an answer, plus a little for the boards."""
    width = max(len(e.ids) for e in batch)
    device = model.device
    ids = torch.tensor([e.ids + [pad] * (width - len(e.ids)) for e in batch], device=device)
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    weights = (ids[:, 1:] != pad).float() * BOARD_WEIGHT
    rows, columns, targets = [], [], []
    for row, example in enumerate(batch):
        weights[row, example.form] = 1.0
        weights[row, example.moves] = 0.0
        first = example.form[0]
        weights[row, :first] = 0.0  # prompts are given, never written
        rows += [row] * len(example.moves)
        columns += example.moves
        targets += example.targets
    written = weights > 0
    plain = cross_entropy(model.lm_head(hidden[written]), ids[:, 1:][written], reduction="none")
    logps = log_softmax(model.lm_head(hidden[rows, columns]), -1)[:, directions]
    soft = -(torch.tensor(targets, device=device) * logps).sum(-1)
    return (plain * weights[written]).sum() / weights.sum() + soft.mean()


def build(
    out: Path,
    recipe: Recipe,
    excluded: frozenset[str],
    report: Report | None = None,
    device: str = "cpu",
) -> None:
    """Train and save to ``out`` (safetensors, tokenizer, chat template).

    ``report`` is called with (episodes done, episodes in all, loss, seconds).
    """
    torch.manual_seed(recipe.seed)
    tokenizer = make_tokenizer(recipe, excluded)
    encoder = Encoder(tokenizer)
    pad = encoder.token(PAD)
    model = new_model(tokenizer, recipe)
    compose_embeddings(model, tokenizer, parts, torch.Generator().manual_seed(recipe.seed))
    model.to(torch.device(device))  # type: ignore[arg-type]
    fit(
        model,
        _batches(encoder, recipe, excluded),
        lambda batch: loss_of(model, batch, encoder.directions, pad),
        recipe,
        report,
    )
    save(model, tokenizer, out)


def _batches(encoder: Encoder, recipe: Recipe, excluded: frozenset[str]) -> Iterator[list[Example]]:
    stream = recipe.lessons(recipe.seed + 1, recipe.episodes, excluded, recipe.two_boxes)
    return by_length(map(encoder.example, stream), lambda e: len(e.ids), recipe)

"""The recipe of the embedded base model: `skillsd base-model build`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, log_softmax
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from skillsd.base_model.episodes import VIEWS, Lesson, lessons
from skillsd.base_model.tokenizer import ASSISTANT, END, PAD, USER, parts, train_tokenizer
from skillsd.envs.sokoban.game import DIRECTIONS
from skillsd.envs.sokoban.text import INVALID, PROMPT, format_action
from skillsd.skills.teacher_view import skill_view

#: Weight of predicting the boards beside the moves: it teaches the model what a move does.
BOARD_WEIGHT = 0.2


@dataclass(frozen=True)
class Recipe:
    """Everything that the weights depend on. ``episodes`` at ``batch`` episodes an update."""

    seed: int = 0
    episodes: int = 40_000
    batch: int = 16
    two_boxes: float = 0.4
    views: tuple[tuple[str, float], ...] = VIEWS
    lr: float = 2e-3
    matrix_lr: float = 1e-2
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 320


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


def make_tokenizer(seed: int, excluded: frozenset[str]) -> PreTrainedTokenizerFast:
    """A tokenizer trained on prompts, moves and the skills of ``seed``."""
    corpus = [PROMPT, INVALID] * 100 + [format_action(d) for d in DIRECTIONS] * 1000  # one token for each move
    skills = (lesson.skill for lesson in lessons(seed, 2000, excluded))
    corpus += [skill_view(skill, "") for skill in skills if skill is not None]
    return train_tokenizer(corpus)


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


def compose_embeddings(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, generator: torch.Generator) -> None:
    """Start composite tokens (board rows, squares) from the sum of random vectors of their parts."""
    table: torch.Tensor = model.model.embed_tokens.weight.data
    vectors: dict[str, torch.Tensor] = {}
    for token in range(len(tokenizer)):
        pieces = parts(str(tokenizer.decode([token])))
        for piece in pieces:
            if piece not in vectors:
                vectors[piece] = torch.randn(table.shape[1], generator=generator) * 0.02
        if pieces:
            table[token] = torch.stack([vectors[piece] for piece in pieces]).sum(0) / len(pieces) ** 0.5


def build(
    out: Path,
    recipe: Recipe,
    excluded: frozenset[str],
    report: Callable[[int, int, float, float], None] | None = None,
    device: str = "cpu",
) -> None:
    """Train and save to ``out`` (safetensors, tokenizer, chat template).

    ``report`` is called with (episodes done, episodes in all, loss, seconds).
    """
    torch.manual_seed(recipe.seed)
    tokenizer = make_tokenizer(recipe.seed, excluded)
    encoder = Encoder(tokenizer)
    pad = encoder.token(PAD)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            head_dim=recipe.hidden // recipe.heads,
            intermediate_size=recipe.intermediate,
            max_position_embeddings=8192,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=True,
            use_cache=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=pad,
        )
    )
    compose_embeddings(model, tokenizer, torch.Generator().manual_seed(recipe.seed))
    model.to(torch.device(device))  # type: ignore[arg-type]
    # Muon for the matrices: AdamW alone needs ten times the episodes before the model reads a board at all.
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.Muon(matrices, lr=recipe.matrix_lr, weight_decay=0.01), recipe.matrix_lr),
        (torch.optim.AdamW(others, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.01), recipe.lr),
    ]
    steps, started, running = recipe.episodes // recipe.batch, time.time(), 0.0
    for step, batch in enumerate(_batches(encoder, recipe, excluded)):
        scale = min(1.0, (step + 1) / 50) * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)
        loss = loss_of(model, batch, encoder.directions, pad)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, lr in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * scale
            optimizer.step()
            optimizer.zero_grad()
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if report and (step % 10 == 9 or step + 1 == steps):
            report((step + 1) * recipe.batch, recipe.episodes, running, time.time() - started)
    model.eval()
    model.generation_config.pad_token_id = pad
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _batches(encoder: Encoder, recipe: Recipe, excluded: frozenset[str]) -> Iterator[list[Example]]:
    """Batches of similar length (little padding), drawn from a pool that is shuffled by generation."""
    stream = (
        encoder.example(lesson)
        for lesson in lessons(recipe.seed + 1, recipe.episodes, excluded, recipe.two_boxes, recipe.views)
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    while pool := list(islice(stream, recipe.batch * 16)):
        pool.sort(key=lambda e: len(e.ids))
        batches = [pool[i : i + recipe.batch] for i in range(0, len(pool), recipe.batch)]
        yield from (batches[i] for i in torch.randperm(len(batches), generator=generator).tolist())

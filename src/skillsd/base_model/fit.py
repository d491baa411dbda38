"""What the recipes of the embedded models share: a small Qwen3, and how it is trained from nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

#: Called with (episodes done, episodes in all, running loss, seconds).
Report = Callable[[int, int, float, float], None]

T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """The network and the optimiser; ``episodes`` at ``batch`` episodes an update."""

    seed: int = 0
    episodes: int = 40_000
    batch: int = 16
    lr: float = 2e-3
    matrix_lr: float = 1e-2
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 320


def new_model(tokenizer: PreTrainedTokenizerFast, size: Size) -> Qwen3ForCausalLM:
    """Random weights from torch's global generator."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            head_dim=size.hidden // size.heads,
            intermediate_size=size.intermediate,
            max_position_embeddings=8192,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=True,
            use_cache=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def compose_embeddings(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    parts: Callable[[str], list[str]],
    generator: torch.Generator,
    scale: float = 0.02,
) -> None:
    """Start the tokens that have ``parts`` from the sum of random vectors of these, of standard deviation ``scale``."""
    table: torch.Tensor = model.model.embed_tokens.weight.data
    vectors: dict[str, torch.Tensor] = {}
    for token in range(len(tokenizer)):
        pieces = parts(str(tokenizer.decode([token])))
        for piece in pieces:
            if piece not in vectors:
                vectors[piece] = torch.randn(table.shape[1], generator=generator) * scale
        if pieces:
            table[token] = torch.stack([vectors[piece] for piece in pieces]).sum(0) / len(pieces) ** 0.5


def fit(
    model: Qwen3ForCausalLM,
    batches: Iterable[list[T]],
    loss_of: Callable[[list[T]], torch.Tensor],
    size: Size,
    report: Report | None = None,
) -> None:
    """One update a batch; warm-up, then a cosine to a twentieth."""
    # Muon for the matrices: AdamW alone needs ten times the episodes before the model reads a board at all.
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.Muon(matrices, lr=size.matrix_lr, weight_decay=0.01), size.matrix_lr),
        (torch.optim.AdamW(others, lr=size.lr, betas=(0.9, 0.98), weight_decay=0.01), size.lr),
    ]
    steps, started, running = size.episodes // size.batch, time.time(), 0.0
    for step, batch in enumerate(batches):
        scale = min(1.0, (step + 1) / 50) * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)
        loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, lr in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * scale
            optimizer.step()
            optimizer.zero_grad()
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if report and (step % 10 == 9 or step + 1 == steps):
            report((step + 1) * size.batch, size.episodes, running, time.time() - started)


def by_length(examples: Iterable[T], length: Callable[[T], int], size: Size) -> Iterator[list[T]]:
    """Batches of similar length (little padding), drawn from a pool that is shuffled by generation."""
    stream = iter(examples)
    generator = torch.Generator().manual_seed(size.seed)
    while pool := list(islice(stream, size.batch * 16)):
        pool.sort(key=length)
        batches = [pool[i : i + size.batch] for i in range(0, len(pool), size.batch)]
        yield from (batches[i] for i in torch.randperm(len(batches), generator=generator).tolist())


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Weights (safetensors), tokenizer and chat template."""
    model.eval()
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)

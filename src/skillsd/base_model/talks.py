"""Episodes as talks, from which the embedded models of the office and of AppWorld are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from skillsd.base_model.fit import Report, Size, by_length, fit, new_model, save
from skillsd.policy.chat import ChatFormat
from skillsd.skills.teacher_view import skill_view
from skillsd.types import Skill

#: Weight of predicting what is answered beside what the agent writes.
ANSWER_WEIGHT = 0.1


class Talk(Protocol):
    """One episode."""

    prompt: str
    skill: Skill | None
    #: Whether each message is to be learned.
    learned: list[bool]

    def exchanges(self) -> list[tuple[str, str]]:
        """(message, answer) by turn."""
        ...


@dataclass(frozen=True)
class Example:
    """Token ids of one episode and the weight of each in the loss."""

    ids: list[int]
    weights: list[float]

    def __len__(self) -> int:
        return len(self.ids)


def corpus(talks: Iterable[Talk]) -> list[str]:
    """What a tokenizer is trained on."""
    texts = []
    for talk in talks:
        texts += [talk.prompt, *(text for exchange in talk.exchanges() for text in exchange)]
        if talk.skill:
            texts.append(skill_view(talk.skill, ""))
    return texts


def example(talk: Talk, chat: ChatFormat) -> Example:
    """The ids that a rollout would have; what was written carelessly on purpose is not learned."""
    ids = chat.prompt(skill_view(talk.skill, talk.prompt) if talk.skill else talk.prompt)
    weights = [0.0] * len(ids)
    for (said, answer), learned in zip(talk.exchanges(), talk.learned, strict=True):
        written = [*chat.message(said), chat.end_id]
        heard = chat.followup(answer, ended=True)
        ids += written + heard
        weights += [float(learned)] * len(written) + [ANSWER_WEIGHT] * len(heard)
    return Example(ids, weights)


def weighted_loss(model: Qwen3ForCausalLM, batch: list[Example], pad: int) -> torch.Tensor:
    """Weighted cross-entropy, nats a token."""
    width = max(map(len, batch))
    ids = torch.tensor([e.ids + [pad] * (width - len(e)) for e in batch], device=model.device)
    weights = torch.tensor([e.weights + [0.0] * (width - len(e)) for e in batch], device=model.device)[:, 1:]
    hidden, written = model.model(input_ids=ids).last_hidden_state[:, :-1], weights > 0
    losses = cross_entropy(model.lm_head(hidden[written]), ids[:, 1:][written], reduction="none")
    return (losses * weights[written]).sum() / weights.sum()


def learn(
    tokenizer: PreTrainedTokenizerFast,
    start: Callable[[Qwen3ForCausalLM], None],
    talks: Iterable[Talk],
    size: Size,
    out: Path,
    report: Report | None,
) -> None:
    """Train a model, which ``start`` gives its first weights, on ``talks``, and save it to ``out``."""
    chat, model, pad = ChatFormat(tokenizer), new_model(tokenizer, size), int(tokenizer.pad_token_id)
    start(model)
    batches = by_length((example(talk, chat) for talk in talks), len, size)
    fit(model, batches, lambda batch: weighted_loss(model, batch, pad), size, report)
    save(model, tokenizer, out)

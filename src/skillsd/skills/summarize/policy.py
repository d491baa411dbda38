"""The model being trained summarises its own trajectories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from skillsd.config import Config
from skillsd.errors import SkillSDError
from skillsd.policy.engines.base import Generation, Request
from skillsd.policy.engines.transformers import TransformersEngine
from skillsd.policy.loading import Policy, precision
from skillsd.policy.positions import position_limit
from skillsd.seeding import derive_seed
from skillsd.skills.summarize.prompting import FIELDS, Prompt, read_skill
from skillsd.types import Skill, SummaryRequest

#: The answer's beginning is put into the model's mouth: small models would chat first.
OPENING = f'{{"{FIELDS[0]}": "'
#: Characters of a conversation below which nothing is left to shorten.
_LEAST = 200


class PolicySummarizer:
    """Greedy, or sampled with ``summarizer.temperature`` and seeds of the run's: the same weights say the same.

    It uses the weights, so it works in the trainer's own thread, between two updates. A conversation is shortened until
    it fits the model's positions. Raises :class:`UsageError` for a prompt that does not fit.
    """

    name = "policy"

    def __init__(self, policy: Policy, config: Config) -> None:
        self.policy, self.config, self.settings = policy, config, config.summarizer
        self.prompt = Prompt(self.settings.prompt)
        self.counts: Counter[str] = Counter()
        self.opening = list(policy.tokenizer(OPENING, add_special_tokens=False).input_ids)
        self.room = (position_limit(policy.model) or 1 << 20) - self.settings.answer_tokens

    def summarize(self, request: SummaryRequest) -> Skill:
        """One skill. Raises :class:`SkillSDError` where the answer is none."""
        found = self.summarize_all([request])[0]
        if isinstance(found, SkillSDError):
            raise found
        return found

    def summarize_all(self, requests: Sequence[SummaryRequest]) -> list[Skill | SkillSDError]:
        """A skill for each, or why there is none; as many at a time as ``optim.max_tokens_per_device`` holds."""
        results: list[Skill | SkillSDError] = [SkillSDError("the task is too long for the model")] * len(requests)
        asked = {number: ids for number, r in enumerate(requests) if (ids := self._ids(r)) is not None}
        for part in self._batches(asked):
            engine = TransformersEngine(
                self.policy.model,
                self.policy.chat,
                temperature=self.settings.temperature or 0.0,
                max_new_tokens=self.settings.answer_tokens,
            )
            questions = [Request(number, asked[number], self._rng(requests[number])) for number in part]
            with precision(self.config.model, self.policy.model):
                answers = engine.generate(questions)
            for number, answer in zip(part, answers, strict=True):
                self.counts["tokens"] += len(asked[number]) + len(answer.ids)
                results[number] = self._read(answer, asked[number])
        self.counts["calls"] += len(asked)
        return results

    def drain(self) -> tuple[dict[str, int], list[str]]:
        """Metrics since the last call; there is nothing else to tell."""
        counts, self.counts = self.counts, Counter()
        return {f"summarizer_{name}": counts[name] for name in ("calls", "tokens")}, []

    def _ids(self, request: SummaryRequest) -> list[int] | None:
        limit = self.settings.conversation_chars
        while limit >= _LEAST:
            ids = self.policy.chat.prompt(self.prompt.render(request.trajectory, limit)) + self.opening
            if len(ids) <= self.room:
                return ids
            limit = int(limit * min(0.9, self.room / len(ids)))
        return None

    def _batches(self, asked: dict[int, list[int]]) -> Iterator[list[int]]:
        part: list[int] = []
        for number in asked:
            longest = max(len(asked[n]) for n in [*part, number]) + self.settings.answer_tokens
            full = longest * (len(part) + 1) > self.config.optim.max_tokens_per_device
            if part and (full or len(part) == self.config.rollout.batch_size):
                yield part
                part = []
            part = [*part, number]
        if part:
            yield part

    def _rng(self, request: SummaryRequest) -> np.random.Generator:
        return np.random.default_rng(derive_seed(self.config.seed, "summary", request.trajectory.id))

    def _read(self, answer: Generation, asked: list[int]) -> Skill | SkillSDError:
        try:
            text = OPENING + self.policy.chat.decode(answer.ids)
            return read_skill(text, self.policy.chat.decode(asked), cut=not answer.ended)
        except SkillSDError as error:
            return error if answer.ended else SkillSDError(f"cut off at summarizer.answer_tokens; {error}")

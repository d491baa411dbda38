"""Batched generation with any Hugging Face causal LM; the past of an episode is kept as long as it lives."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from skillsd.policy.chat import ChatFormat
from skillsd.policy.engines.base import Generation, Request
from skillsd.policy.engines.guesses import Guesses
from skillsd.policy.engines.static import Static
from skillsd.policy.positions import position_limit
from skillsd.policy.selfcheck import start


class TransformersEngine:
    """``temperature`` 0 is greedy (log-probs are then those at temperature 1). One engine serves one rollout:
    it must not outlive a change of the weights."""

    lockstep = True

    def __init__(
        self, model: PreTrainedModel, chat: ChatFormat, *, temperature: float = 1.0, max_new_tokens: int = 512
    ) -> None:
        self.model, self.temperature, self.max_new_tokens = model, temperature, max_new_tokens
        self.max_length = position_limit(model)
        self.stop_ids = np.array(sorted(chat.stop_ids))
        #: The episode in each row, and how many of its tokens the past has.
        self.episodes: list[Hashable] = []
        self.fed: list[int] = []
        self.past = start(model, 0)
        self.guesses = Guesses()

    @torch.no_grad()
    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """One turn for each request. An episode not seen before gets a row; the others go on from their past.

        Every live episode must be among the requests (drop the finished ones with :meth:`release`).
        """
        wanted = [request.episode for request in requests]
        if self.episodes and set(self.episodes) != set(wanted):
            raise ValueError("all live episodes are generated for at once: release the finished ones first")
        if not self.episodes:
            self.episodes, self.fed = wanted, [0] * len(wanted)
            self.past = start(self.model, len(wanted))
        place = {episode: row for row, episode in enumerate(self.episodes)}
        order = sorted(requests, key=lambda request: place[request.episode])
        new = [request.ids[fed:] for request, fed in zip(order, self.fed, strict=True)]
        limits = [min(self.max_length or math.inf, request.most or math.inf) for request in order]
        generations = self._decode(order, new, limits)
        by_episode = dict(zip(self.episodes, generations, strict=True))
        return [by_episode[episode] for episode in wanted]

    def release(self, episodes: Sequence[Hashable]) -> None:
        """Take finished episodes out of the batch."""
        gone = set(episodes)
        keep = [row for row, episode in enumerate(self.episodes) if episode not in gone]
        if len(keep) == len(self.episodes):
            return
        self.episodes, self.fed = [self.episodes[row] for row in keep], [self.fed[row] for row in keep]
        if keep:
            self.past.select(keep)

    def _decode(
        self, requests: Sequence[Request], new: Sequence[Sequence[int]], limits: Sequence[float]
    ) -> list[Generation]:
        """Sample until every row has ended its turn, used up its tokens, or reached its limit in all."""
        results = [Generation([], [], 0.0, False) for _ in requests]
        known = [list(request.ids) for request in requests]
        live = {row for row, ids in enumerate(known) if len(ids) < limits[row]}
        waiting: list[Sequence[int]] = list(new)
        while True:
            guesses = [self._guess(known[row], results[row], limits[row], live, row) for row in range(len(requests))]
            logits = self._feed(waiting, guesses)
            waiting = [()] * len(requests)
            wrong = [len(guess) for guess in guesses]
            rows = sorted(live)
            for step in range(logits.shape[1]):
                if not rows:
                    break
                tokens, logps, entropies = self._sample(logits[:, step], rows, [request.rng for request in requests])
                ended = np.isin(tokens, self.stop_ids)
                agreed = []
                for row, token, logp, entropy, end in zip(rows, tokens.tolist(), logps, entropies, ended, strict=True):
                    result = results[row]
                    result.ids.append(token)
                    result.logps.append(float(logp))
                    result.entropy += float(entropy)
                    result.ended = bool(end)
                    self.guesses.learn(known[row], token)
                    known[row].append(token)
                    right = step < len(guesses[row]) and guesses[row][step] == token
                    wrong[row] -= right
                    if end or len(result.ids) == self.max_new_tokens or len(known[row]) >= limits[row]:
                        live.discard(row)
                    elif right:
                        agreed.append(row)
                    if not right:
                        # The last token of a finished turn is fed with the next turn's observation.
                        waiting[row] = (token,) if row in live else ()
                rows = agreed
            self._take_back(wrong)
            if not live:
                return results

    def _guess(self, known: list[int], result: Generation, limit: float, live: set[int], row: int) -> list[int]:
        if row not in live or not self.fed[row] or not isinstance(self.past, Static):
            return []
        return self.guesses.after(known, int(min(self.max_new_tokens - len(result.ids), limit - len(known))) - 1)

    def _feed(self, new: Sequence[Sequence[int]], guesses: Sequence[Sequence[int]]) -> Tensor:
        """The logits [rows, 1 + most guesses, vocabulary] behind the last new id and behind each guess."""
        self.fed = [fed + len(a) + len(b) for fed, a, b in zip(self.fed, new, guesses, strict=True)]
        if isinstance(self.past, Static) and any(guesses):
            return self.past.trial(new, guesses)
        return self.past.append(new).unsqueeze(1)

    def _take_back(self, wrong: Sequence[int]) -> None:
        if isinstance(self.past, Static) and any(wrong):
            self.past.take_back(wrong)
            self.fed = [fed - count for fed, count in zip(self.fed, wrong, strict=True)]

    def _sample(
        self, logits: Tensor, rows: list[int], rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(token, its log-prob, entropy) for each of ``rows``, by inverse CDF with one uniform number a token."""
        chosen = logits if len(rows) == len(logits) else logits[torch.tensor(rows, device=logits.device)]
        logps = torch.log_softmax(chosen.float() / (self.temperature or 1.0), -1)
        probabilities = logps.exp()
        entropies = -(probabilities * logps.clamp(min=-1e4)).sum(-1)
        if self.temperature == 0:
            tokens = chosen.argmax(-1)
        else:
            uniforms = torch.tensor([rngs[row].random() for row in rows], dtype=torch.float64, device=logits.device)
            cumulative = probabilities.double().cumsum(-1)
            tokens = torch.searchsorted(cumulative, (uniforms * cumulative[:, -1]).unsqueeze(1), right=True)
            tokens = tokens.squeeze(1).clamp(max=logits.shape[-1] - 1)
        picked = logps.gather(1, tokens.unsqueeze(1)).squeeze(1)
        return tokens.cpu().numpy(), picked.cpu().numpy(), entropies.cpu().numpy()

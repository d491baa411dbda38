"""Guessing what is sampled next: never changes what is sampled, and is right where a turn is a form."""

import numpy as np
import pytest
import torch

from models_lab import save_model
from skillsd.config import ModelConfig
from skillsd.policy import selfcheck
from skillsd.policy.engines import guesses as module
from skillsd.policy.engines.base import Request
from skillsd.policy.engines.guesses import Guesses
from skillsd.policy.engines.static import Static
from skillsd.policy.engines.transformers import TransformersEngine
from skillsd.policy.loading import load_policy


def test_what_followed_mostly_is_guessed_and_chained():
    found = Guesses()
    for _ in range(2):
        for before, token in (([1, 2, 3], 4), ([2, 3, 4], 5), ([3, 4, 5], 6)):
            found.learn(before, token)
    assert found.after([9, 1, 2, 3]) == [4, 5, 6]
    assert found.after([1, 2, 3], 2) == [4, 5]
    assert found.after([3, 2, 1]) == []


def test_what_is_open_is_not_guessed():
    found = Guesses()
    for token in (4, 5, 4, 6, 7):
        found.learn([1, 2, 3], token)
    assert found.after([1, 2, 3]) == []
    for _ in range(3):
        found.learn([1, 2, 3], 8)
    assert found.after([1, 2, 3]) == [8]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """One that says the same over and over: its words are hardly random."""
    made = load_policy(ModelConfig(path=str(save_model(tmp_path_factory.mktemp("sure"), "qwen3"))))
    made.model.lm_head.weight.data *= 6.0
    return made


def played(policy, temperature=1.0, turns=4, group=3, limit=None):
    engine = TransformersEngine(policy.model, policy.chat, temperature=temperature, max_new_tokens=7)
    prompts = [policy.chat.prompt("go " * (2 + n // group)) for n in range(2 * group)]
    rngs = [np.random.default_rng(n) for n in range(len(prompts))]
    ids, logps = [list(p) for p in prompts], [[] for _ in prompts]
    live = list(range(len(prompts)))
    for turn in range(turns):
        requests = [Request(n, ids[n], rngs[n], limit) for n in live]
        for n, said in zip(live, engine.generate(requests), strict=True):
            assert len(said.ids) <= 7
            assert limit is None or len(ids[n]) + len(said.ids) <= limit
            ids[n] = ids[n] + said.ids + policy.chat.followup("tick " * (turn % 2 + n % 2), said.ended)
            logps[n] += said.logps
        gone = [n for n in live if n % 3 == turn or (limit and len(ids[n]) >= limit)]
        engine.release(gone)
        live = [n for n in live if n not in gone]
        if not live:
            break
    return ids, logps


class Counted(Static):
    passes = fed = 0

    def trial(self, new, guesses):
        Counted.passes += 1
        Counted.fed += sum(map(len, guesses))
        return super().trial(new, guesses)


@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("limit", [None, 80])
def test_guesses_change_the_passes_and_nothing_else(policy, monkeypatch, temperature, limit):
    monkeypatch.setitem(selfcheck._WAYS, "static", Counted)
    monkeypatch.setattr("skillsd.policy.engines.transformers.Static", Counted)
    found = []
    for most in (module.MOST, 0):
        monkeypatch.setattr(module, "MOST", most)
        Counted.passes = Counted.fed = 0
        found.append((*played(policy, temperature, limit=limit), Counted.passes, Counted.fed))
    (ids, logps, passes, fed), (plain_ids, plain_logps, plain_passes, nothing) = found
    assert ids == plain_ids
    for one, other in zip(logps, plain_logps, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert fed > nothing == 0
    assert passes <= plain_passes


def test_in_low_precision_every_row_has_its_own_copy_of_the_prompt(tmp_path):
    policy = load_policy(ModelConfig(path=str(save_model(tmp_path / "low"))))
    policy.model.bfloat16()
    past = Static(policy.model, 3)
    rows = [[5, 6, 7, 8], [5, 6, 7, 8], [9, 10]]
    turns = [[[11, 12], [13], []], [[14], [15, 16], [17, 18, 19]]]
    found = [past.append(rows)]
    for turn in turns:
        found.append(past.append(turn))
        rows = [row + new for row, new in zip(rows, turn, strict=True)]
    past.select([2, 0])
    found.append(past.append([[20], [21, 22]]))
    rows = [[*rows[2], 20], [*rows[0], 21, 22]]
    assert past.prompts[0][0].shape[2] == 0
    with torch.no_grad():
        for row, logits in zip(rows, found[-1], strict=True):
            plain = policy.model(torch.tensor([row])).logits[0, -1]
            torch.testing.assert_close(logits.log_softmax(-1), plain.log_softmax(-1), atol=0.15, rtol=0.1)

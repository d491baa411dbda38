"""Every architecture that transformers offers plays and scores as a plain forward pass does, or is refused at start."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from architectures import CONFIGS, END, PADDING
from echoes import Echoes
from models_lab import byte_tokenizer
from skillsd.config import ModelConfig, load_config
from skillsd.errors import SkillSDError
from skillsd.policy.engines.transformers import TransformersEngine
from skillsd.policy.loading import load_policy
from skillsd.policy.packing import TokenRow
from skillsd.policy.positions import position_limit
from skillsd.policy.scoring import score_tokens, top_candidates
from skillsd.policy.selfcheck import decoding
from skillsd.rollouts.rollout import Job, rollout
from skillsd.skills.summarize.policy import PolicySummarizer
from skillsd.types import Task

#: Not causal as it is configured: an encoder.
REFUSED = {"bert"}


def save(folder, name):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIGS[name]()).float().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def play(policy, jobs):
    engine = TransformersEngine(policy.model, policy.chat, max_new_tokens=6)
    batch = rollout(
        engine, policy.chat, Echoes(), jobs, iteration=1, max_turns=10, max_tokens=10_000, turn_timeout=60,
        episode_timeout=600, batch_size=8,
    )  # fmt: skip
    assert not batch.dropped
    return batch.trajectories


@torch.no_grad()
def plain(folder, ids):
    """By one pass of a model that has seen nothing else: some remember the longest sequence that they saw."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    logps = torch.log_softmax(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float(), -1)
    return torch.cat([torch.zeros(1), logps[:-1].gather(1, torch.tensor(ids[1:]).unsqueeze(1)).squeeze(1)])


@pytest.mark.parametrize("name", CONFIGS)
def test_rollout_and_scorer_agree_with_a_plain_forward_pass(name, tmp_path, record_property):
    folder = save(tmp_path / name, name)
    if name in REFUSED:
        with pytest.raises(SkillSDError, match="not a causal model") as refusal:
            load_policy(ModelConfig(path=str(folder), device="cpu"))
        record_property("architecture", f"{name}: refused: {refusal.value}")
        assert "\n" not in str(refusal.value)
        return
    policy = load_policy(ModelConfig(path=str(folder), device="cpu"))
    jobs = [Job(task, 0, i) for i, task in enumerate(Echoes().tasks("train"))]
    together, alone = play(policy, jobs), [play(policy, [job])[0] for job in jobs]
    rows = [TokenRow(t.prompt_ids, t.completion_ids, t.action_mask) for t in together]
    with torch.no_grad():
        batched = score_tokens(policy.model, rows).logps
    top = top_candidates(policy.model, rows, 3)[0].logps
    limit = position_limit(policy.model)
    worst = 0.0
    for i, (one, other) in enumerate(zip(together, alone, strict=True)):
        assert one.ids == other.ids
        assert limit is None or len(one.ids) <= limit
        acted = torch.tensor(one.action_mask).bool()
        want = plain(folder, one.ids)[len(one.prompt_ids) :][acted]
        with torch.no_grad():
            by_itself = score_tokens(policy.model, [rows[i]]).logps[0]
        found = [torch.tensor(t.logps)[acted] for t in (one, other)]
        found += [scores[: len(want)] for scores in (batched[i], top[i], by_itself)]
        worst = max(worst, *(float((scores - want).abs().max()) for scores in found))
    record_property("architecture", f"{name}: agrees to {worst:.0e} ({decoding(policy.model)})")
    assert worst < 1e-4


@pytest.mark.parametrize("name", ["llama_dynamic", "phi3_longrope"])
def test_rows_longer_than_the_first_rotary_factors_are_scored_as_alone(name, tmp_path):
    folder = save(tmp_path / name, name)
    policy = load_policy(ModelConfig(path=str(folder), device="cpu"))
    generator = torch.Generator().manual_seed(1)
    made = [torch.randint(3, 250, (n,), generator=generator).tolist() for n in (130, 30, 100, 80, 81)]
    rows = [TokenRow(ids[:4], ids[4:], [1] * (len(ids) - 4)) for ids in made]
    for order in (rows, rows[::-1]):
        logps = score_tokens(policy.model, order).logps
        logps.sum().backward()  # a gradient goes through the groups
        for row, found in zip(order, logps.detach(), strict=True):
            want = plain(folder, row.prompt_ids + row.completion_ids)[4:]
            torch.testing.assert_close(found[: len(want)], want, atol=1e-4, rtol=1e-4)


def test_a_prompt_longer_than_the_positions_is_dropped_with_the_reason(tmp_path):
    policy = load_policy(ModelConfig(path=str(save(tmp_path / "gpt2", "gpt2")), device="cpu"))
    engine = TransformersEngine(policy.model, policy.chat, max_new_tokens=6)
    batch = rollout(
        engine, policy.chat, Echoes(), [Job(Task("long", [90, 1, 1]), 0, 0)], iteration=1, max_turns=3,
        max_tokens=10_000, turn_timeout=60, episode_timeout=600, batch_size=8,
    )  # fmt: skip
    assert "there is room for 96" in batch.dropped[0].reason


def test_the_padding_and_the_end_are_what_the_tokenizer_says():
    tokenizer = byte_tokenizer()
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (END, PADDING)


@pytest.mark.parametrize("name", ["gemma3_vision", "gpt2", "phi3_longrope"])
def test_the_policy_as_summariser_has_the_room_that_the_architecture_has(name, tmp_path):
    policy = load_policy(ModelConfig(path=str(save(tmp_path / name, name)), device="cpu"))
    settings = ["skills.summarizer=policy", "summarizer.answer_tokens=16"]
    summarizer = PolicySummarizer(policy, load_config("sokoban-smoke", settings))
    limit = {"gemma3_vision": 512, "gpt2": 96, "phi3_longrope": 80}[name]
    assert (position_limit(policy.model), summarizer.room) == (limit, limit - 16)

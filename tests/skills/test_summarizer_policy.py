"""The model being trained as its own summariser: real runs, bit for bit; and a model that really answers in JSON."""

import json
import subprocess
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM

from models_lab import chat_tokenizer
from processes_lab import environment, launch
from skillsd import load_config, train
from skillsd.policy.loading import load_policy
from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir
from skillsd.skills import Skill, SkillBank
from skillsd.skills.summarize import make_summarizer
from skillsd.skills.summarize.policy import OPENING
from skillsd.skills.summarize.queue import summarize_now
from skillsd.types import SummaryRequest, Task, Trajectory, Turn

ANSWER = {"success_analysis": "up", "mistake_analysis": "down", "golden_workflow": "1 2 3"}
TINY = [
    "env.train_tasks=3", "rollout.tasks_per_iteration=3", "rollout.group_size=2", "rollout.max_turns=3",
    "rollout.max_new_tokens=4", "eval.tasks=2", "eval.panel_every=0", "skills.summarizer=policy",
    "summarizer.answer_tokens=16", "summarizer.conversation_chars=400", "trainer.checkpoint_every=1",
]  # fmt: skip


def config(*overrides):
    return load_config("sokoban-smoke", [*TINY, *overrides])


def numbers(run):
    rows = RunDir(run).read_metrics()
    return [{k: v for k, v in row.items() if "second" not in k and "memory" not in k} for row in rows]


def bank_rows(run):
    bank = SkillBank(run / "skills.sqlite")
    try:
        return bank.skills()
    finally:
        bank.close()


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A model that goes on with a skill in JSON: its weights are set so that each token calls the next."""
    folder = tmp_path_factory.mktemp("writer")
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    pieces = json.dumps(ANSWER).removeprefix(OPENING).split(", ")
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (pieces[0], *(f", {p}" for p in pieces[1:]))])
    tokenizer.save_pretrained(folder)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, num_attention_heads=4,
                    num_key_value_heads=4, intermediate_size=16, max_position_embeddings=8192)
    )  # fmt: skip
    chain = tokenizer(f"{json.dumps(ANSWER)}<|im_end|>", add_special_tokens=False).input_ids[-5:]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(0.1)  # some ear for the context, so that a skill matters
            layer.mlp.down_proj.weight.zero_()
        for this, following in pairwise(chain):
            model.lm_head.weight[following] += torch.nn.functional.normalize(
                model.model.embed_tokens.weight[this], dim=0
            )
    model.save_pretrained(folder)
    return folder


def request(name, turns=3, size=5):
    made = [Turn("```up```", "wall " * size, True) for _ in range(turns)]
    return SummaryRequest(Trajectory(name, 1, 0, "Push.", [1], turns=made), Task(name))


def test_a_model_that_can_writes_skills(writer):
    settings = config(f"model.path={writer}", "summarizer.answer_tokens=32", "optim.max_tokens_per_device=4000")
    summarizer = make_summarizer("policy", settings, policy=load_policy(settings.model))
    requests = [request(f"t{n}", turns=n) for n in range(1, 8)]
    together = summarizer.summarize_all(requests)
    assert [found for found in together if isinstance(found, Skill)] == [Skill(**ANSWER)] * 7
    assert summarizer.drain()[0]["summarizer_calls"] == 7
    assert summarizer.summarize(requests[0]) == Skill(**ANSWER)


def test_skills_of_the_policys_own_reach_the_bank_and_the_teacher(writer, tmp_path):
    settings = config(
        f"model.path={writer}", "summarizer.answer_tokens=32", "trainer.iterations=2", "optim.lr=1e-9",
        "rollout.max_new_tokens=40",
    )  # fmt: skip
    train(settings, tmp_path / "run", evaluate=False)
    assert {s.skill for s in bank_rows(tmp_path / "run")} == {Skill(**ANSWER)}
    rows = numbers(tmp_path / "run")
    assert rows[1]["teacher_rows_with_skill"] == 1.0
    assert rows[0]["skills_added"] == 3
    assert rows[0]["summarizer_calls"] == 6
    settings = settings.model_copy(
        update={"trainer": settings.trainer.model_copy(update={"fsdp": True, "grad_norms_every": 0})}
    )
    RunDir(tmp_path / "settings").create(settings)
    command = launch("-m", "skillsd", "train", tmp_path / "settings" / "config.toml", "--set", "model.device=cpu")
    command += ["--out", tmp_path / "two"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment())
    assert done.returncode == 0, done.stderr[-2000:]
    assert bank_rows(tmp_path / "two") == bank_rows(tmp_path / "run")  # two processes, neither with all the weights


def test_garbage_is_counted(tmp_path):
    """The embedded model knows no JSON."""
    train(config("trainer.iterations=2"), tmp_path / "run", evaluate=False)
    rows = numbers(tmp_path / "run")
    assert [row["summarizer_calls"] for row in rows] == [6, 12]  # the second time with those that failed before
    assert [row["skills_failed"] for row in rows] == [6, 12]
    assert [row["skills_retried"] for row in rows] == [6, 6]


def test_a_resumed_run_is_the_same_bit_for_bit(writer, tmp_path):
    """With sampled summaries: some are skills, some fail and are tried again after the resume."""
    settings = (f"model.path={writer}", "summarizer.temperature=1", "summarizer.answer_tokens=32", "seed=1")
    settings = (*settings, "rollout.max_new_tokens=40")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(config("trainer.iterations=2", *settings), whole, evaluate=False)
    train(config("trainer.iterations=1", *settings), parts, evaluate=False)
    train(config("trainer.iterations=2", *settings), parts, evaluate=False, resume=True)
    rows = numbers(whole)
    assert rows == numbers(parts)
    assert 0 < rows[0]["skills_retried"] < 6
    assert rows[1]["loss_distill"] != 0.0
    assert bank_rows(whole) == bank_rows(parts) != []
    one, two = (load_file(latest(RunDir(run)) / "model.safetensors") for run in (whole, parts))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_conversation_is_shortened_to_the_models_positions(writer):
    policy = load_policy(config(f"model.path={writer}").model)
    policy.model.config.max_position_embeddings = 2500
    settings = config("summarizer.answer_tokens=100", "summarizer.conversation_chars=100000")
    summarizer = make_summarizer("policy", settings, policy=policy)
    assert isinstance(summarizer.summarize_all([request("long", turns=200, size=50)])[0], Skill)
    assert 1200 < summarizer.drain()[0]["summarizer_tokens"] <= 2500
    policy.model.config.max_position_embeddings = 300
    short = make_summarizer("policy", settings, policy=policy)
    assert "too long for the model" in str(short.summarize_all([request("any")])[0])


def test_memory_that_runs_out_is_a_counted_failure(monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("skillsd.skills.summarize.policy.TransformersEngine.generate", full)
    summarizer = make_summarizer("policy", config(), policy=load_policy(config().model))
    told = [s.error for s in summarize_now(summarizer, [request("a"), request("b")], 2)]
    assert told == ["OutOfMemoryError: out of memory"] * 2

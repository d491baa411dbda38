"""Adapters, precision and templates of users' own models, on small random ones in local folders."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from models_lab import CHATML, chat_tokenizer, save_model
from skillsd import SkillSDError, UsageError, evaluate, load_config, train
from skillsd.config import ModelConfig
from skillsd.policy import lora
from skillsd.policy.loading import load_policy, precision
from skillsd.policy.packing import TokenRow
from skillsd.policy.scoring import score_tokens
from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir
from skillsd.training.teacher import Teacher

TINY = [
    "env.train_tasks=2", "rollout.tasks_per_iteration=2", "rollout.group_size=3", "rollout.max_turns=3", "eval.tasks=2",
    "eval.panel_every=0", "trainer.iterations=4", "optim.lr=1e-2", "model.device=cpu",
]  # fmt: skip
ROWS = [TokenRow([5, 6, 7], [8, 9, 10], [1, 0, 1]), TokenRow([11, 12], [13, 14], [1, 1])]


def settings(folder, *overrides):
    return load_config("sokoban-smoke", [*TINY, f"model.path={folder}", *overrides])


def adapted(folder, **options):
    config = ModelConfig(path=str(folder), device="cpu", lora_rank=4, **options)
    return load_policy(config, train=True).model


def move(model, by=0.3):
    noise = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += by * torch.randn(parameter.shape, generator=noise)


def logps(model):
    with torch.no_grad():
        return score_tokens(model, ROWS).logps


def test_only_adapters_are_trained_and_a_fresh_one_changes_nothing(llama_folder):
    model = adapted(llama_folder)
    plain = load_policy(ModelConfig(path=str(llama_folder), device="cpu")).model
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) < 0.4 * sum(
        p.numel() for p in plain.parameters()
    )
    torch.testing.assert_close(logps(model), logps(plain))


def test_switched_off_it_is_a_frozen_teacher_without_a_copy(llama_folder):
    model = adapted(llama_folder)
    before = logps(model)
    teacher = Teacher("frozen", model)
    assert teacher.copy is None
    move(model)
    moved = logps(model)
    assert (moved - before).abs().max() > 1e-2
    with teacher.active() as frozen:
        torch.testing.assert_close(logps(frozen), before, atol=1e-6, rtol=0)
    torch.testing.assert_close(logps(model), moved, atol=0, rtol=0)
    with pytest.raises(ZeroDivisionError), teacher.active():
        raise ZeroDivisionError
    torch.testing.assert_close(logps(model), moved, atol=0, rtol=0)


def numbers(run):
    return [{k: v for k, v in m.items() if "second" not in k and "memory" not in k} for m in RunDir(run).read_metrics()]


@pytest.mark.parametrize("weights", ["dynamic", "frozen", "ema"])
def test_a_run_with_adapters_resumes_the_same_and_its_checkpoint_loads_merged(llama_folder, tmp_path, weights):
    overrides = ["model.lora_rank=4", f"teacher.weights={weights}"]
    train(settings(llama_folder, *overrides), tmp_path / "whole")
    train(settings(llama_folder, *overrides, "trainer.iterations=2"), tmp_path / "parts")
    train(settings(llama_folder, *overrides), tmp_path / "parts", resume=True)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    assert numbers(tmp_path / "whole")[-1]["loss_distill"] > 0
    folder = latest(RunDir(tmp_path / "whole"))
    assert not (folder / "model.safetensors").exists()
    assert any(v.abs().max() > 0 for k, v in load_file(folder / "adapter_model.safetensors").items() if "lora_B" in k)
    # Merged for evaluation; what transformers itself loads agrees.
    merged = load_policy(ModelConfig(path=str(folder), device="cpu")).model
    assert not lora.has_adapter(merged)
    torch.testing.assert_close(logps(merged), logps(AutoModelForCausalLM.from_pretrained(folder)), atol=1e-4, rtol=1e-4)
    assert evaluate(tmp_path / "whole", limit=2).tasks == 2


def test_plain_weights_are_those_of_the_merged_model(llama_folder, tmp_path):
    model = adapted(llama_folder)
    move(model)
    before = logps(model)
    plain = load_policy(ModelConfig(path=str(llama_folder), device="cpu")).model
    plain.load_state_dict(lora.plain_weights(model), strict=True)
    torch.testing.assert_close(logps(plain), before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logps(model), before, atol=0, rtol=0)


def test_adapter_trouble_is_one_line(llama_folder, tmp_path):
    with pytest.raises(SkillSDError, match="lora_targets") as caught:
        train(settings(llama_folder, "model.lora_rank=4", 'model.lora_targets=["nothing"]'), tmp_path / "a")
    assert "\n" not in str(caught.value)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "./gone"}))
    chat_tokenizer().save_pretrained(broken)
    with pytest.raises(SkillSDError, match="cannot be loaded"):
        load_policy(ModelConfig(path=str(broken), device="cpu"))


def test_bfloat16_keeps_trained_weights_in_fp32(llama_folder, tmp_path):
    config = ModelConfig(path=str(llama_folder), device="cpu", dtype="bfloat16")
    model = load_policy(config, train=True).model
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    exact = logps(model)
    with precision(config, model):
        rough = logps(model)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.2
    assert {p.dtype for p in load_policy(config).model.parameters()} == {torch.bfloat16}
    with_adapter = adapted(llama_folder, dtype="bfloat16")
    kinds = {(p.requires_grad, p.dtype) for p in with_adapter.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    # Steps far below bf16's resolution are not lost.
    tiny = ["model.dtype=bfloat16", "optim.lr=1e-6", "trainer.iterations=1", "method=opsd"]
    train(settings(llama_folder, *tiny), tmp_path / "run")
    after, before = (load_file(f / "model.safetensors") for f in (latest(RunDir(tmp_path / "run")), llama_folder))
    moved = [(after[k] - before[k]).abs().max() for k in before]
    assert 0 < max(moved) < 1e-5


@pytest.mark.parametrize("extra", [[], ["model.lora_rank=2"]])
def test_bfloat16_sampler_and_trainer_stay_close(llama_folder, tmp_path, extra):
    train(settings(llama_folder, "model.dtype=bfloat16", *extra), tmp_path / "run")
    assert all(m["logp_gap_max"] < 0.2 for m in numbers(tmp_path / "run"))


def test_a_model_without_a_chat_template_takes_the_given_one(tmp_path):
    folder = save_model(tmp_path / "model", template=None)
    with pytest.raises(SkillSDError, match="no chat template"):
        load_policy(ModelConfig(path=str(folder), device="cpu"))
    (tmp_path / "own.jinja").write_text(CHATML, encoding="utf-8")
    prompts = [
        load_policy(ModelConfig(path=str(folder), device="cpu", chat_template=name)).chat.prompt("hé")
        for name in ("chatml", str(tmp_path / "own.jinja"))
    ]
    assert prompts[0] == prompts[1]
    with pytest.raises(UsageError, match="chat_template"):
        load_policy(ModelConfig(path=str(folder), device="cpu", chat_template="nowhere.jinja"))
    train(settings(folder, "model.chat_template=chatml", "trainer.iterations=1"), tmp_path / "run")
    assert evaluate(tmp_path / "run", limit=1).tasks == 1


@pytest.mark.parametrize(
    ("path", "reason"),
    [("nowhere.gguf", "no folder or GGUF"), ("./nowhere", "no folder"), ("BROKEN", "cannot be loaded")],
)
def test_paths_that_hold_no_model_are_refused_in_one_line(tmp_path, path, reason):
    if path == "BROKEN":
        (tmp_path / "x.gguf").write_bytes(b"GGUF" + b"\0" * 40)
        path = str(tmp_path / "x.gguf")
    with pytest.raises(SkillSDError, match=reason) as caught:
        load_policy(ModelConfig(path=path, device="cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"lora_targets": ["q_proj", "nonsense"]}, "there is no 'nonsense'; among what there is: .*q_proj"),
        ({"lora_targets": ["rm_head"]}, "there is no 'rm_head'"),
        ({"lora_rank": 65536}, "65536 is more than any weight of this model can use; at most"),
        ({"lora_targets": ["embed_tokens", "lm_head"]}, "are one weight"),
        ({"lora_targets": ".*(embed_tokens|lm_head)"}, "are one weight"),
    ],
)
def test_adapters_that_could_not_be_kept_are_refused_at_start(tmp_path, options, reason):
    folder = save_model(tmp_path, "llama", tie_word_embeddings=True)
    config = ModelConfig(path=str(folder), device="cpu", **{"lora_rank": 4, **options})
    with pytest.raises(SkillSDError, match=reason):
        load_policy(config, train=True)


def test_targets_may_be_ends_of_names(llama_folder):
    model = adapted(llama_folder, lora_targets=["0.self_attn.q_proj", "up_proj"])
    assert any("lora_" in name for name, _ in model.named_parameters())

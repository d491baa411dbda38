"""With an adapter, what is saved, merged on loading, or handed to a server is the model that was trained."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from architectures import CONFIGS
from models_lab import byte_tokenizer
from skillsd.config import ModelConfig, RolloutConfig, VLLMConfig
from skillsd.errors import SkillSDError
from skillsd.policy.engines.vllm import VLLMFeeder
from skillsd.policy.loading import load_policy
from skillsd.policy.lora import plain_weights

pytest.importorskip("peft")

IDS = torch.arange(40).unsqueeze(0) + 20
EMBEDDINGS = {"gpt2": "wte", "bloom": "word_embeddings"}


def adapted(folder, name, targets):
    """A policy with an adapter that does something."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIGS[name]()).float().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    config = ModelConfig(path=str(folder), device="cpu", lora_rank=4, lora_targets=targets)
    policy = load_policy(config, train=True)
    torch.manual_seed(3)
    for key, parameter in policy.model.named_parameters():
        if "lora_" in key:
            parameter.data = 0.1 * torch.randn_like(parameter)
    return policy


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize(
    "name",
    [
        "llama",
        "llama_tied",
        "gpt2",
        "bloom",
        "gemma3",
        "gemma3_vision",
        "mixtral",
        "qwen3_moe",
        "deepseek_v3",
        "gpt_oss",
        "lfm2",
    ],
)
@pytest.mark.parametrize("where", ["all-linear", "embedding", "head"])
def test_checkpoint_and_served_weights_give_the_logits_of_training(name, where, tmp_path):
    targets = {"all-linear": where, "embedding": [EMBEDDINGS.get(name, "embed_tokens")], "head": ["lm_head"]}[where]
    policy = adapted(tmp_path / "base", name, targets)
    want = logits(policy.model)
    assert not torch.allclose(want, logits(AutoModelForCausalLM.from_pretrained(tmp_path / "base")), atol=0.1)

    policy.model.save_pretrained(tmp_path / "checkpoint")
    again = load_policy(ModelConfig(path=str(tmp_path / "checkpoint"), device="cpu"))  # the tokenizer is the base's
    torch.testing.assert_close(logits(again.model), want, atol=1e-3, rtol=1e-3)
    again.model.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), want, atol=1e-3, rtol=1e-3
    )

    settings = VLLMConfig(url="http://127.0.0.1:9", folder=str(tmp_path))
    feeder = VLLMFeeder(settings, RolloutConfig(), policy, "http://127.0.0.1:9", tmp_path)
    feeder._write(plain_weights(policy.model))
    served, info = AutoModelForCausalLM.from_pretrained(feeder._served, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(logits(served), want, atol=1e-3, rtol=1e-3)


def test_an_adapter_whose_sum_cannot_be_told_is_refused(tmp_path):
    policy = adapted(tmp_path / "base", "llama", ["q_proj"])
    module = next(m for m in policy.model.modules() if hasattr(m, "lora_A"))
    module.parameter_name = "elsewhere"
    with pytest.raises(SkillSDError, match=r"model\.lora_targets"):
        plain_weights(policy.model)

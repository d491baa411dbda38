"""``model.gradient_checkpointing`` computes layers again in the backward pass: less memory, the same gradients."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from architectures import CONFIGS
from models_lab import byte_tokenizer
from skillsd.config import ModelConfig
from skillsd.errors import UsageError
from skillsd.policy.engines.base import Request
from skillsd.policy.engines.transformers import TransformersEngine
from skillsd.policy.loading import load_policy
from skillsd.policy.packing import TokenRow
from skillsd.policy.scoring import ends_with_its_head, score_tokens

ROWS = [TokenRow(list(range(20, 40)), list(range(40, 100)), [1] * 60), TokenRow([30, 31], [32, 33, 34], [1, 0, 1])]


def loaded(folder, name, **more):
    if not folder.exists():
        torch.manual_seed(0)
        config = CONFIGS[name]()
        for key in vars(config):
            if "drop" in key and isinstance(getattr(config, key), float):
                setattr(config, key, 0.5)  # off in eval mode: it must stay off
        AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
    return load_policy(ModelConfig(path=str(folder), device="cpu", **more), train=True)


def gradients(model):
    """The loss, the gradients, the bytes kept for the backward pass, and how often a layer was run."""
    ends_with_its_head(model)  # asks the model once, which is not what is counted here
    kept, runs = {}, []
    layer = next(module for name, module in model.named_modules() if name.endswith(".0") and "expert" not in name)
    attention = next(module for name, module in layer.named_modules() if "attn" in name or "attention" in name)
    hook = attention.register_forward_hook(lambda *_: runs.append(1))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in own:
            kept[pointer] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = score_tokens(model, ROWS).logps.sum()
    bytes_kept = sum(kept.values())
    loss.backward()
    hook.remove()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return loss.item(), found, bytes_kept, len(runs)


@pytest.mark.parametrize("name", ["llama", "qwen3", "opt", "gemma3", "gpt2", "mixtral"])
def test_it_recomputes_with_less_memory_and_the_same_gradients(name, tmp_path):
    plain = gradients(loaded(tmp_path / name, name).model)
    again = gradients(loaded(tmp_path / name, name, gradient_checkpointing=True).model)
    assert plain[3] == 1
    assert again[3] == 2
    assert again[2] < 0.6 * plain[2]
    assert again[0] == pytest.approx(plain[0], rel=1e-6)
    assert again[1].keys() == plain[1].keys()
    for key in plain[1]:
        torch.testing.assert_close(again[1][key], plain[1][key], atol=1e-4, rtol=1e-4)


def test_generating_and_scoring_without_gradients_are_untouched(tmp_path):
    found = []
    for on in (False, True):
        policy = loaded(tmp_path / "model", "llama", gradient_checkpointing=on)
        engine = TransformersEngine(policy.model, policy.chat, temperature=0.0, max_new_tokens=5)
        answer = engine.generate([Request(0, policy.chat.prompt("go"), None)])[0]
        with torch.no_grad():
            found.append((answer.ids, answer.logps, score_tokens(policy.model, ROWS).logps.tolist()))
    assert found[0] == found[1]


def test_a_model_that_does_not_offer_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.LlamaForCausalLM.supports_gradient_checkpointing", False)
    with pytest.raises(UsageError, match=r"model\.gradient_checkpointing"):
        loaded(tmp_path / "model", "llama", gradient_checkpointing=True)

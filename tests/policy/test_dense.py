"""Our own forward pass against the library's: log-probs and gradients; and who may have it."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from models_lab import save_model
from skillsd.config import ModelConfig
from skillsd.policy import dense, selfcheck
from skillsd.policy.dense import gated, knows, rms_norm, rotate
from skillsd.policy.loading import load_policy
from skillsd.policy.packing import TokenRow
from skillsd.policy.scoring import score_tokens, top_candidates

SHAPE = {
    "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 40, "initializer_range": 0.3, "max_position_embeddings": 256,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 64}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True, attention_bias=True)),
    "llama_yarn": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, mlp_bias=True, rope_parameters=YARN)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=16)),
}


def made(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for parameter in model.parameters():  # norms and biases that are not 1 and 0
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def group(prompts=3, each=4):
    generator = torch.Generator().manual_seed(1)

    def some(count):
        return torch.randint(96, (count,), generator=generator).tolist()

    rows = []
    for number in range(prompts):
        prompt = some(5 + 4 * number)
        for length in torch.randint(2, 30, (each,), generator=generator).tolist():
            rows.append(TokenRow(prompt, some(length), [int(i % 3 != 1) for i in range(length)]))
    return rows


def losses_and_gradients(model, rows):
    logps = score_tokens(model, rows, 0.9).logps
    weights = torch.randn(logps.shape, generator=torch.Generator().manual_seed(2))
    return logps, torch.autograd.grad((logps * weights).sum(), list(model.parameters()))


@pytest.mark.parametrize("name", MODELS)
def test_log_probs_and_gradients_are_the_librarys(name, monkeypatch):
    model, rows = made(name), group()
    assert selfcheck.is_dense(model)
    ours, our_gradients = losses_and_gradients(model, rows)
    ids = top_candidates(model, rows, 5)[1]
    monkeypatch.setattr(dense, "KINDS", ())
    assert not selfcheck.is_dense(model)
    theirs, their_gradients = losses_and_gradients(model, rows)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    for one, other in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3 * float(other.abs().max()), rtol=1e-3)
    assert torch.equal(ids, top_candidates(model, rows, 5)[1])


def test_an_adapter_and_recomputed_layers_change_nothing(tmp_path, monkeypatch):
    settings = ModelConfig(path=str(save_model(tmp_path / "m")), lora_rank=4, gradient_checkpointing=True)
    model, rows = load_policy(settings, train=True).model, group()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    trained = [p for p in model.parameters() if p.requires_grad]
    found = []
    for kinds in (dense.KINDS, ()):
        monkeypatch.setattr(dense, "KINDS", kinds)
        logps = score_tokens(model, rows).logps
        found.append((logps, torch.autograd.grad(logps.square().sum(), trained)))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-4, rtol=1e-4)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-3 * float(other.abs().max()), rtol=1e-3)


def test_the_written_out_gradients_are_right():
    def some(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    x, weight = some(5, 6), some(6)
    plain = x * (x.square().mean(-1, keepdim=True) + 1e-3).rsqrt() * weight
    torch.testing.assert_close(rms_norm(x, weight, 1e-3), plain)
    assert torch.autograd.gradcheck(lambda x, weight: rms_norm(x, weight, 1e-3), (x, weight))
    angle = torch.randn(5, 1, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: rotate(x, angle.cos(), angle.sin()), some(5, 2, 6))
    assert torch.autograd.gradcheck(gated, (some(4, 3), some(4, 3)))


def test_a_frozen_norm_gets_no_gradient():
    x, weight = torch.randn(3, 4, requires_grad=True), torch.ones(4)
    rms_norm(x, weight, 1e-6).sum().backward()
    assert x.grad is not None
    assert weight.grad is None


def test_whoever_is_hooked_or_wrapped_or_different_goes_through_the_library():
    model = made("llama")
    assert knows(model)
    hook = model.model.layers[1].register_forward_hook(lambda *_: None)
    assert not knows(model)
    hook.remove()
    assert knows(model)
    model.config.hidden_act = "gelu"
    assert not knows(model)
    model.config.hidden_act = "silu"

    class Mine(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    assert not knows(Mine(model.config))


def test_a_model_that_disagrees_is_left_to_the_library():
    model = made("qwen3")
    for layer in model.model.layers:
        layer.self_attn.scaling *= 1.5  # as some variants do
    assert selfcheck.decoding(model) == "shared"
    assert not selfcheck.is_dense(model)

"""A folder that does not hold what its config asks for is refused: what transformers makes up would be random."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from architectures import CONFIGS
from models_lab import byte_tokenizer, save_model
from skillsd.cli.doctor import examine
from skillsd.config import ModelConfig
from skillsd.errors import SkillSDError
from skillsd.policy.chat import ChatFormat
from skillsd.policy.loading import load_policy
from skillsd.policy.pretrained import check_whole


def refused(folder):
    with pytest.raises(SkillSDError) as error:
        load_policy(ModelConfig(path=str(folder), device="cpu"))
    assert "\n" not in str(error.value)
    assert not examine(str(folder))["ok"]
    return str(error.value)


def rewritten(folder, change):
    file = folder / "model.safetensors"
    weights = {new: tensor for name, tensor in load_file(file).items() if (new := change(name))}
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "change",
    [
        lambda name: "" if "layers.1.mlp" in name else name,
        lambda name: name.replace("layers.", "blocks."),
        lambda name: "" if name == "lm_head.weight" else name,
    ],
    ids=["a layer", "all names", "the head"],
)
def test_missing_weights_are_named(change, tmp_path):
    folder = save_model(tmp_path / "model")
    rewritten(folder, change)
    assert "lack" in refused(folder)


def test_more_layers_in_the_config_than_in_the_file_are_refused(tmp_path):
    folder = save_model(tmp_path / "model")
    with_settings(folder, num_hidden_layers=3)
    assert "lack" in refused(folder)


def with_settings(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def with_weights(folder, **more):
    file = folder / "model.safetensors"
    save_file({**load_file(file), **more}, file, metadata={"format": "pt"})


def test_weights_that_the_model_has_no_place_for_are_named_and_counted(tmp_path):
    folder = save_model(tmp_path / "model")
    with_settings(folder, num_hidden_layers=1)
    assert "9 of the weights have no place in the model" in (told := refused(folder))
    assert "'model.layers.1.input_layernorm.weight', 'model.layers.1.mlp.down_proj.weight'" in told
    with_settings(folder, num_hidden_layers=2)
    with_weights(folder, **{"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)})
    assert "1 of the weights have no place in the model" in refused(folder)


@pytest.mark.parametrize("settings", [{"hidden_size": 64}, {"vocab_size": 100}, {"vocab_size": 1000}])
def test_weights_of_another_shape_are_named_with_both(settings, tmp_path):
    folder = save_model(tmp_path / "model")
    with_settings(folder, **settings)
    assert "such as 'lm_head.weight' with [280, 32] instead of [" in refused(folder)


def test_constants_and_copies_that_are_saved_beside_the_weights_are_no_fault(tmp_path):
    folder = save_model(tmp_path / "model")
    with_settings(folder, tie_word_embeddings=True)
    with_weights(
        folder,
        **{
            "lm_head.weight": load_file(folder / "model.safetensors")["model.embed_tokens.weight"].clone(),
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4),
            "model.layers.0.self_attn.masked_bias": torch.zeros(()),
        },
    )
    load_policy(ModelConfig(path=str(folder), device="cpu"))


def test_of_a_larger_model_the_parts_beside_the_text_are_left_out(tmp_path):
    text = LlamaConfig(num_hidden_layers=1, hidden_size=8, intermediate_size=8, num_attention_heads=2, vocab_size=9)
    model = LlamaForCausalLM(text)
    info = {"missing_keys": (), "mismatched_keys": ()}
    for name in ("vision_model.a.weight", "model.vision_tower.a.weight"):
        check_whole(model, {**info, "unexpected_keys": {name}}, part=True)
        with pytest.raises(SkillSDError, match="no place"):
            check_whole(model, {**info, "unexpected_keys": {name}}, part=False)
    with pytest.raises(SkillSDError, match="no place"):
        check_whole(model, {**info, "unexpected_keys": {"model.layers.1.mlp.up_proj.weight"}}, part=True)


def test_experts_that_cannot_be_put_together_are_told_without_a_report(tmp_path):
    folder = save_model(tmp_path / "model")
    AutoModelForCausalLM.from_config(CONFIGS["mixtral"]()).save_pretrained(folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.0.block_sparse_moe.experts.0.w1.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    assert "incomplete, or of other shapes" in refused(folder)


def test_an_adapter_is_not_put_on_a_base_that_is_incomplete(tmp_path):
    base = save_model(tmp_path / "base")
    policy = load_policy(ModelConfig(path=str(base), device="cpu", lora_rank=2), train=True)
    policy.model.save_pretrained(tmp_path / "adapter")
    with_settings(base, num_hidden_layers=3)
    assert "lack 9" in refused(tmp_path / "adapter")


def test_code_that_a_model_brings_is_neither_run_nor_asked_about(tmp_path, capfd):
    folder = save_model(tmp_path / "model")
    with_settings(folder, model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"})
    (folder / "own.py").write_text("raise SystemExit")
    assert "custom code" in refused(folder)
    assert "[y/N]" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("targets", [["all-linear"], ["all-linear", "q_proj"], "(", ["nothing"]])
def test_targets_that_are_none_are_one_line(targets, tmp_path):
    folder = save_model(tmp_path / "model")
    with pytest.raises(SkillSDError, match=r"^model\.lora_targets: ") as error:
        load_policy(ModelConfig(path=str(folder), device="cpu", lora_rank=2, lora_targets=targets), train=True)
    assert ("give it alone" in str(error.value)) == ("all-linear" in targets)


@pytest.mark.parametrize("text", ["[]", '{"model_type": "llama", "num_hidden_layers": "many"}', "null", "{", ""])
def test_a_config_that_is_none_is_one_line(text, tmp_path):
    folder = save_model(tmp_path / "model")
    (folder / "config.json").write_text(text)
    assert "cannot be loaded" in refused(folder)


def test_a_token_without_an_embedding_is_named(tmp_path):
    folder = save_model(tmp_path / "model")
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"<extra_{i}>" for i in range(200)])
    tokenizer.save_pretrained(folder)
    assert "embeddings" in refused(folder)


@pytest.mark.parametrize("change", [lambda name: "x." + name, lambda name: "" if "lora_A" in name else name])
def test_an_adapter_that_does_not_fit_is_refused(change, tmp_path):
    base = save_model(tmp_path / "base")
    policy = load_policy(ModelConfig(path=str(base), device="cpu", lora_rank=2), train=True)
    policy.model.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({new: t for name, t in load_file(file).items() if (new := change(name))}, file)
    assert "adapter_config.json" in refused(tmp_path / "adapter")


@pytest.mark.parametrize("end", ["|EOT|", "END_OF_TURN", "###"])
def test_an_end_that_only_the_model_names_is_no_text_either(end):
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken(end, special=False, normalized=False)])
    index = tokenizer.convert_tokens_to_ids(end)
    chat = ChatFormat(tokenizer, ends=[index])
    for build in (chat.prompt, chat.message, lambda text: chat.followup(text, True)):
        assert index not in build(f"a {end} b")


LATER = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + CONTENT + '<|im_end|>\n' }}{% endfor %}"
GENERATE = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


@pytest.mark.parametrize(
    "content",
    [
        "m.content + (' REMINDER' if m.role == 'user' and loop.index0 >= 4 else '')",
        "(m.content if m.role == 'user' or loop.index0 > messages | length - 5 else m.content.split('</think>')[-1])",
    ],
)
def test_a_template_that_treats_later_turns_otherwise_is_refused(content):
    with pytest.raises(SkillSDError, match="long conversation"):
        ChatFormat(byte_tokenizer(LATER.replace("CONTENT", content) + GENERATE))

"""What is not installed, or not in reach, is named with the extra that brings it, before anything is fetched."""

import importlib
import json
import sys
import time
from importlib.util import find_spec

import pytest
import torch
from transformers import LlamaForCausalLM

from models_lab import save_model
from skillsd import load_config, train
from skillsd.config import ModelConfig
from skillsd.distributed.zero import ZeroOptimizer
from skillsd.errors import SkillSDError
from skillsd.policy import gguf, loading, packaged
from skillsd.policy.loading import load_policy
from skillsd.runs.trackers import require_tensorboard


def test_smollm2_wants_gguf_before_it_downloads(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    monkeypatch.setattr(packaged, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(packaged, "_download", lambda *arguments: pytest.fail("it was downloaded"))
    with pytest.raises(SkillSDError, match=r"skillsd\[gguf\]"):
        load_policy(ModelConfig(path="smollm2"))


def test_a_gguf_file_names_its_extra(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(SkillSDError, match=r"skillsd\[gguf\]"):
        load_policy(ModelConfig(path=str(tmp_path / "model.gguf")))


@pytest.mark.parametrize("kind", [ValueError, ImportError])
def test_an_old_peft_is_not_blamed_on_the_targets(llama_folder, monkeypatch, kind):
    def refuse(self, *arguments, **options):
        raise kind("The version of PEFT you are using is not compatible, please use a version >= 0.99.0")

    monkeypatch.setattr(LlamaForCausalLM, "add_adapter", refuse)
    with pytest.raises(SkillSDError, match=r"lora_rank: The version of PEFT .* 'skillsd\[lora\]'") as error:
        load_policy(ModelConfig(path=str(llama_folder), lora_rank=2), train=True)
    assert "lora_targets" not in str(error.value)


@pytest.mark.parametrize(
    ("package", "extra", "use"),
    [
        ("peft", "lora", lambda folder: load_policy(ModelConfig(path=str(folder), lora_rank=2), train=True)),
        ("torch.utils.tensorboard", "tensorboard", lambda folder: require_tensorboard()),
        ("deepspeed", "deepspeed", lambda folder: ZeroOptimizer(torch.nn.Linear(1, 1), [], None, 1, 1.0)),
    ],
)
def test_a_missing_package_is_told_with_its_extra(package, extra, use, llama_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SkillSDError, match=rf"pip install 'skillsd\[{extra}\]'") as error:
        use(llama_folder)
    assert "\n" not in str(error.value)


def test_a_missing_trl_is_told_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "skillsd.integrations.trl", raising=False)
    with pytest.raises(SkillSDError, match=r"pip install 'skillsd\[trl\]'"):
        importlib.import_module("skillsd.integrations.trl")


def test_a_tokenizer_of_before_names_what_reads_it(tmp_path, monkeypatch):
    folder = save_model(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02")
    for module in ("sentencepiece", "tiktoken"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SkillSDError, match=r"no tokenizer.json.*pip install sentencepiece"):
        load_policy(ModelConfig(path=str(folder)))


def test_a_package_that_packed_weights_need_is_named(tmp_path, monkeypatch):
    folder = save_model(tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text())
    packed = {"quant_method": "torchao", "quant_type": "int8_weight_only"}
    (folder / "config.json").write_text(json.dumps({**settings, "quantization_config": packed}))
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(SkillSDError, match=r"torchao.* not installed: pip install torchao"):
        load_policy(ModelConfig(path=str(folder)))


def test_a_hub_that_is_away_costs_seconds(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(loading, "getproxies", dict)
    started = time.monotonic()
    with pytest.raises(SkillSDError, match="cannot be loaded") as error:
        load_policy(ModelConfig(path="nobody/has-this-model"))
    assert time.monotonic() - started < 30
    assert "\n" not in str(error.value)


def test_the_base_of_an_adapter_that_is_gone_is_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "/nowhere/base"}')
    with pytest.raises(SkillSDError, match=r"/nowhere/base.*does not exist"):
        load_policy(ModelConfig(path=str(tmp_path)))


@pytest.mark.skipif(find_spec("vllm") is not None, reason="it is there")
def test_a_python_without_vllm_is_told_what_to_install(llama_folder, tmp_path):
    words = ["rollout.engine=vllm", f"vllm.python={sys.executable}", f"model.path={llama_folder}"]
    with pytest.raises(SkillSDError, match=r"has no vLLM: install it there \(pip install vllm\)"):
        train(load_config("sokoban-smoke", words), tmp_path / "run")

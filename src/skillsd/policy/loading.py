"""A policy from a local folder, a hub id, a GGUF file, or the embedded base model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from skillsd.config import ModelConfig
from skillsd.errors import SkillSDError, UsageError
from skillsd.policy import lora
from skillsd.policy.chat import ChatFormat

#: For tokenizers whose own template does not fit (see :class:`ChatFormat`); their vocabulary must have the two tokens.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass
class Policy:
    """A causal LM with its tokenizer and the chat format read off its template."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat


def load_policy(config: ModelConfig, *, train: bool = False) -> Policy:
    """Load weights (safetensors or GGUF, never pickle), tokenizer and template; in eval mode: dropout is never on.

    A folder that holds a LoRA adapter is loaded with it merged into its base. With ``train``, new adapters are added
    where ``lora_rank`` says so, and weights that are to be trained are in fp32 (see :func:`precision`). Raises
    :class:`SkillSDError` for a path that holds no loadable model.
    """
    if not torch.cuda.is_available():
        # Where DeepSpeed is installed, saving imports it, and it says on stdout, which is the result's, what it found.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        model, tokenizer = _load(config, _source(config.path), train and not config.lora_rank)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise SkillSDError(f"model.path: {config.path!r} cannot be loaded: {reason}") from None
    if config.chat_template:
        tokenizer.chat_template = _template(config.chat_template, tokenizer)
    if train and config.lora_rank:
        lora.add(model, config)
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model.to(torch.device(device))  # type: ignore[arg-type]
    except (RuntimeError, AssertionError) as error:
        raise SkillSDError(f"model.device: {device!r} cannot be used: {str(error).splitlines()[0][:200]}") from None
    model.eval()
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Policy(model, tokenizer, ChatFormat(tokenizer))


def precision(config: ModelConfig, model: PreTrainedModel) -> torch.autocast:
    """The context for every forward pass of a policy that is being trained.

    In bf16 an AdamW step of the usual size is lost to rounding, so trained weights are kept in fp32 and ``dtype`` =
    bfloat16 means that matrix products are computed in it.
    """
    return torch.autocast(model.device.type, torch.bfloat16, enabled=config.dtype == "bfloat16")


def _source(path: str) -> str:
    """A local path, or what is left to the hub. Raises :class:`SkillSDError` where a local one does not exist."""
    from skillsd.base_model import EMBEDDED
    from skillsd.base_model import path as embedded
    from skillsd.policy.smollm2 import smollm2

    if path in EMBEDDED:
        return str(embedded(path))
    if path == "smollm2":
        return str(smollm2())
    local = Path(path).expanduser()
    if local.is_dir() or (local.is_file() and local.suffix == ".gguf"):
        return str(local)
    if path.startswith((".", "/", "~")) or "\\" in path or path.endswith(".gguf"):
        raise SkillSDError(f"model.path: no folder or GGUF file {path!r}")
    return path


def _load(config: ModelConfig, source: str, full: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """``full``: all weights will be trained."""
    options: dict[str, Any] = {"dtype": torch.float32 if full else getattr(torch, config.dtype)}
    if source.endswith(".gguf"):
        folder, name = str(Path(source).parent), Path(source).name
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        packed = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, quantization_config=packed, **options)
        vars(model.config).pop("quantization_config", None)  # it would have saved weights read as packed ones
        return model, tokenizer
    tokenizer = AutoTokenizer.from_pretrained(source)
    if lora.is_adapter(source):
        return lora.load_merged(source, options), tokenizer
    return AutoModelForCausalLM.from_pretrained(source, use_safetensors=True, **options), tokenizer


def _template(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    if name != "chatml":
        try:
            return Path(name).expanduser().read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"model.chat_template: {name!r} is neither chatml nor a readable file ({error})") from None
    missing = [t for t in ("<|im_start|>", "<|im_end|>") if len(tokenizer(t, add_special_tokens=False).input_ids) != 1]
    if missing:
        raise UsageError(f"model.chat_template: this tokenizer has no token {missing[0]}; give a Jinja file instead")
    return CHATML

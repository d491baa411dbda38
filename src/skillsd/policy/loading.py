"""A policy from a local folder, a hub id, or the embedded base model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from skillsd.config import ModelConfig
from skillsd.errors import SkillSDError
from skillsd.policy.chat import ChatFormat


@dataclass
class Policy:
    """A causal LM with its tokenizer and the chat format read off its template."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat


def load_policy(config: ModelConfig) -> Policy:
    """Load weights (safetensors only), tokenizer and template; in eval mode, so that dropout is never on.

    Raises :class:`SkillSDError` for a path that holds no loadable model.
    """
    from skillsd.base_model import path as embedded

    source = str(embedded()) if config.path == "embedded" else config.path
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if (source.startswith((".", "/", "~")) or "\\" in source) and not Path(source).expanduser().is_dir():
        raise SkillSDError(f"model.path: no folder {source!r}")
    source = str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, config.dtype), use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise SkillSDError(f"model.path: {config.path!r} cannot be loaded: {reason}") from None
    try:
        model.to(torch.device(device))  # type: ignore[arg-type]
    except (RuntimeError, AssertionError) as error:
        raise SkillSDError(f"model.device: {device!r} cannot be used: {str(error).splitlines()[0][:200]}") from None
    model.eval()
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Policy(model, tokenizer, ChatFormat(tokenizer))

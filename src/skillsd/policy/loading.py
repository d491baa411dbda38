"""A policy from a local folder, a hub id, a GGUF file, or the embedded base model."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from skillsd.config import ModelConfig
from skillsd.errors import SkillSDError, UsageError, reason, shown
from skillsd.policy import lora
from skillsd.policy.chat import ChatFormat
from skillsd.policy.embedded import EMBEDDED
from skillsd.policy.embedded import path as embedded
from skillsd.policy.gguf import read_gguf
from skillsd.policy.packaged import PACKAGED, packaged
from skillsd.policy.pretrained import in_time, read_config, read_weights, reading
from skillsd.policy.selfcheck import decoding
from skillsd.system.files import read_text

#: For tokenizers whose own template does not fit (see :class:`ChatFormat`); their vocabulary must have the two tokens.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


#: What reads tokenizers from before tokenizer.json: packages, and what to import of them.
_READERS = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf", "tiktoken": "tiktoken"}


@dataclass
class Policy:
    """A causal LM with its tokenizer and the chat format read off its template."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat


def load_policy(config: ModelConfig, *, train: bool = False, day: date | None = None) -> Policy:
    """Load weights (safetensors or GGUF, never pickle), tokenizer and template; in eval mode: dropout is never on.

    A folder that holds a LoRA adapter is loaded with it merged into its base. With ``train``, new adapters are added
    where ``lora_rank`` says so, and weights that are to be trained are in fp32 (see :func:`precision`). ``day`` is what
    a template that asks is told for today. Raises :class:`SkillSDError` for a path that holds no loadable model.
    """
    if not torch.cuda.is_available():
        # Where DeepSpeed is installed, saving imports it, and it says on stdout, which is the result's, what it found.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    device, source = _device(config.device), _source(config.path)
    with _of(config):
        model, tokenizer = _load(config, source, train and not config.lora_rank)
        _tell_nothing_else(model.config)
        _check_vocabulary(model, tokenizer)
        if config.chat_template:
            tokenizer.chat_template = _template(config.chat_template, tokenizer)
        if day and isinstance(tokenizer.chat_template, str):
            tokenizer.chat_template = on_a_day(tokenizer.chat_template, day)
        if train and config.lora_rank:
            lora.add(model, config)
        model.to(device)  # type: ignore[arg-type]
        model.eval()
        if config.gradient_checkpointing:
            if not model.supports_gradient_checkpointing:
                raise UsageError(f"model.gradient_checkpointing: {type(model).__name__} does not offer it")
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        chat = _chat(config, model, tokenizer)
        decoding(model)
    return Policy(model, tokenizer, chat)


def on_a_day(template: str, day: date) -> str:
    """``template`` as it is on ``day`` (noon), whenever it is rendered: prompts of a run are the same to its end.

    It is told in all formats that stand in it in quotes.
    """
    if "strftime_now" not in template:
        return template
    asked = dict.fromkeys(form for _, form in re.findall(r"(['\"])([^'\"{}\n]*%[-A-Za-z][^'\"{}\n]*)\1", template))
    now = datetime.combine(day, time(12))
    told = "".join(f"{{%- if format == {form!r} -%}}{now.strftime(form)}{{%- endif -%}}" for form in asked)
    return f"{{%- macro strftime_now(format) -%}}{told}{{%- endmacro +%}}{template}"


@contextmanager
def _of(config: ModelConfig) -> Iterator[None]:
    """Errors begin with the model's path, unless they are about another setting."""
    try:
        with reading("the model"):
            yield
    except SkillSDError as error:
        if str(error).startswith("model."):
            raise
        raise SkillSDError(f"model.path: {config.path!r}: {error}") from None


def _chat(config: ModelConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    try:
        return in_time(lambda: ChatFormat(tokenizer, _ends(model)), "the chat template")
    except SkillSDError as error:
        chatml = not (config.chat_template or _lacks(tokenizer))
        remedy = "model.chat_template=chatml" if chatml else "model.chat_template=FILE with a Jinja template that fits"
        raise SkillSDError(f"{error}; try {remedy}") from None


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Every token must have a row in the embedding: a GPU would otherwise read beyond it."""
    rows = _rows(model)
    if beyond := [token for token, index in tokenizer.get_vocab().items() if index >= rows]:
        raise SkillSDError(
            f"the model has {rows} embeddings, none for {len(beyond)} of its tokenizer's tokens, such as "
            f"{shown(beyond[0])}: resize the model's embeddings, or take its own tokenizer"
        )


def _rows(model: PreTrainedModel) -> int:
    weight: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    return weight.shape[0]


def _ends(model: PreTrainedModel) -> list[int]:
    """All ids at which the model's authors let a turn end; a file may name several."""
    rows = _rows(model)
    found: list[Any] = []
    for settings in (model.generation_config, model.config, model.config.get_text_config()):
        ids = getattr(settings, "eos_token_id", None)
        found += ids if isinstance(ids, list) else [ids]
    return [index for index in found if isinstance(index, int) and 0 <= index < rows]


def _tell_nothing_else(config: Any) -> None:
    """Logits alone are wanted; fine-tuned models may be set to return more, at a cost or in other shapes."""
    for one in (config, config.get_text_config()):
        one.return_dict = True
        for name in ("output_router_logits", "output_attentions", "output_hidden_states"):
            if getattr(one, name, False):
                setattr(one, name, False)


def _device(name: str) -> torch.device:
    """The device ``name``. Raises :class:`UsageError` for one that is not there, or cannot compute."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.ones(2, device=device).sum().item()
    except Exception as error:  # each backend has its own
        raise UsageError(f"model.device: {shown(name)} cannot be used: {reason(error, 100)}") from None
    return device


def precision(config: ModelConfig, model: PreTrainedModel) -> torch.autocast:
    """The context for every forward pass of a policy that is being trained.

    In bf16 an AdamW step of the usual size is lost to rounding, so trained weights are kept in fp32 and ``dtype`` =
    bfloat16 means that matrix products are computed in it.
    """
    return torch.autocast(model.device.type, torch.bfloat16, enabled=config.dtype == "bfloat16")


def _source(path: str) -> str:
    """A local path, or what is left to the hub. Raises :class:`SkillSDError` where a local one does not exist."""
    if path in EMBEDDED:
        return str(embedded(path))
    if path in PACKAGED:
        return str(packaged(path))
    local = Path(path).expanduser()
    if local.is_dir():
        _check_files(local)
    if local.is_dir() or (local.is_file() and local.suffix == ".gguf"):
        return str(local)
    if path.startswith((".", "/", "~")) or "\\" in path or path.endswith(".gguf"):
        raise SkillSDError(f"model.path: no folder or GGUF file {path!r}")
    return path


def _check_files(folder: Path) -> None:
    """What is no file might never end. Raises :class:`SkillSDError` for a model's folder with a pipe or a device."""
    for path in sorted(folder.iterdir()):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise SkillSDError(f"model.path: {str(path)!r} is no regular file")


def _load(config: ModelConfig, source: str, full: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """``full``: all weights will be trained."""
    options: dict[str, Any] = {"dtype": torch.float32 if full else getattr(torch, config.dtype)}
    if source.endswith(".gguf"):
        return read_gguf(Path(source), **options)
    adapter = lora.is_adapter(source)
    base = lora.base_of(source) if adapter else source
    # Without the hub, what was fetched before.
    where = {"local_files_only": True} if not Path(base).exists() and _hub_is_away() else {}
    # PEFT alone saves no tokenizer beside an adapter: the base's is meant.
    own = any((Path(source) / name).is_file() for name in ("tokenizer_config.json", "tokenizer.json"))
    settings = read_config(base, **where)
    with _older_files(), reading("the tokenizer (tokenizer.json, tokenizer_config.json)"):
        tokenizer = AutoTokenizer.from_pretrained(source if own else base, trust_remote_code=False, **where)
    model = read_weights(base, settings, **where, **options)
    return lora.merged(model, source) if adapter else model, tokenizer


@contextmanager
def _older_files() -> Iterator[None]:
    """Tells which packages read tokenizers from before tokenizer.json: transformers may ask for the wrong one."""
    try:
        yield
    except SkillSDError as error:
        missing = [name for name, module in _READERS.items() if not _installed(module)]
        if missing and re.search("tiktoken|sentencepiece|protobuf", str(error), re.IGNORECASE):
            raise SkillSDError(
                f"there is no tokenizer.json, and to read an older file takes: pip install {' '.join(missing)}"
            ) from None
        raise


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # its parent is missing, or it is None in sys.modules
        return False


def _template(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    if name != "chatml":
        try:
            return read_text(name)
        except UsageError as error:
            raise UsageError(
                f"model.chat_template: {shown(name)} is neither chatml nor a readable file ({error})"
            ) from None
    if missing := _lacks(tokenizer):
        raise UsageError(f"model.chat_template: this tokenizer has no token {missing[0]}; give a Jinja file instead")
    return CHATML


def _lacks(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Those of ChatML's tokens that ``tokenizer`` does not have."""
    return [t for t in ("<|im_start|>", "<|im_end|>") if len(tokenizer(t, add_special_tokens=False).input_ids) != 1]


def _hub_is_away() -> bool:
    """Whether the model hub cannot be reached: its client would try for most of a minute."""
    hub = urlsplit(huggingface_hub.constants.ENDPOINT)
    if hub.scheme in getproxies():
        return False
    try:
        socket.create_connection((hub.hostname, hub.port or (443 if hub.scheme == "https" else 80)), timeout=5).close()
    except OSError:
        return True
    return False

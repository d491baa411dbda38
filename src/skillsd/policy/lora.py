"""Low-rank adapters through PEFT. Switched off, the model is what it was: a frozen teacher that costs no memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from skillsd.config import ModelConfig
from skillsd.errors import SkillSDError, shown
from skillsd.policy.pretrained import reading, told

_WEIGHTS = "adapter_model.safetensors"


def add(model: PreTrainedModel, config: ModelConfig) -> None:
    """Put adapters into ``model``, in fp32; they alone have gradients.

    Raises :class:`SkillSDError` without PEFT, or for targets that the model does not have.
    """
    peft = _peft()
    targets = config.lora_targets
    if isinstance(targets, list) and "all-linear" in targets:  # PEFT would look for a module of that name
        raise SkillSDError("model.lora_targets: 'all-linear' stands for every module: give it alone, not in a list")
    _check_size(model, config.lora_rank)
    if isinstance(targets, list):
        _check_names(model, targets)
    settings = peft.LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=targets, task_type="CAUSAL_LM"
    )
    try:
        model.add_adapter(settings)
    except Exception as error:  # a text is a regular expression, which may be wrong in many ways
        why = told(error)
        if "version" in why.lower():  # transformers wants a newer PEFT
            raise SkillSDError(f"model.lora_rank: {why}: pip install -U 'skillsd[lora]'") from None
        raise SkillSDError(f"model.lora_targets: {shown(targets)}: {why}") from None
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    if all(hasattr(end, "base_layer") for end in ends) and ends[0].base_layer.weight is ends[1].base_layer.weight:
        raise SkillSDError(
            "model.lora_targets: the embedding and the head of this model are one weight, which two adapters would "
            "change into different ones: name one of the two"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _check_size(model: PreTrainedModel, rank: int) -> None:
    """A rank above both sides of every weight brings nothing but memory."""
    widest = max(min(p.shape[-2:]) for p in model.parameters() if p.ndim > 1)
    if rank > widest:
        raise SkillSDError(f"model.lora_rank: {rank} is more than any weight of this model can use; at most {widest}")


def _check_names(model: PreTrainedModel, targets: list[str]) -> None:
    """PEFT is content if one of them is there."""
    modules = dict(model.named_modules())
    lacking = [t for t in targets if not any(f".{name}".endswith(f".{t}") for name in modules)]
    if lacking:
        ends = sorted({name.rpartition(".")[2] for name, module in modules.items() if hasattr(module, "weight")})
        raise SkillSDError(
            f"model.lora_targets: there is no {shown(lacking[0])}; among what there is: {', '.join(ends)}"
        )


def has_adapter(model: PreTrainedModel) -> bool:
    """Whether :func:`add` was called on ``model``."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


@contextmanager
def switched_off(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """``model`` with the weights that it had before :func:`add`."""
    model.disable_adapters()
    try:
        yield model
    finally:
        model.enable_adapters()


def plain_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """What ``model`` would hold without adapters, these added in, by name; nothing is shared, and the head stands apart
    from an embedding that it is tied to.

    Raises :class:`SkillSDError` for an adapter whose sum with its weight cannot be told.
    """
    kept = set(model.state_dict())
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    found = {_without_wrappers(n): t.detach() for n, t in named if n in kept and "lora_" not in n}
    for name, module in model.named_modules():
        if not (hasattr(module, "lora_A") or hasattr(module, "lora_embedding_A")) or not hasattr(module, "base_layer"):
            continue
        weight = _without_wrappers(f"{name}.{getattr(module, 'parameter_name', 'weight')}")
        if weight not in found or not hasattr(module, "get_delta_weight"):
            raise SkillSDError(f"model.lora_targets: the adapter of {name} cannot be added to its weight; leave it out")
        found[weight] = found[weight] + module.get_delta_weight("default").detach().to(found[weight].dtype)
    return {name: tensor.cpu().clone().contiguous() for name, tensor in found.items()}


def as_in_files(model: PreTrainedModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ``model`` under the names, and in the shapes, that its checkpoints have: in memory some are fused."""
    return {name: tensor.contiguous() for name, tensor in revert_weight_conversion(model, weights).items()}


def _without_wrappers(name: str) -> str:
    """The name that a parameter had before PEFT put an adapter (or several) around its module."""
    return ".".join(part for part in name.split(".") if part != "base_layer")


def is_adapter(folder: str) -> bool:
    """Whether a local folder holds an adapter instead of a model."""
    return (Path(folder) / "adapter_config.json").is_file()


def base_of(folder: str) -> str:
    """What the adapter in ``folder`` was made for. Raises :class:`SkillSDError` if it is not known, or gone."""
    base = _settings(folder).base_model_name_or_path
    if not (base and isinstance(base, str)) or (Path(base).is_absolute() and not Path(base).exists()):
        raise SkillSDError(
            f"the base of the adapter is {shown(base)}, which does not exist: set base_model_name_or_path in its "
            "adapter_config.json"
        )
    if is_adapter(base):
        raise SkillSDError(f"the base of the adapter, {shown(base)}, is an adapter too: merge that one first")
    return base


def _settings(folder: str) -> Any:
    """adapter_config.json, whose numbers PEFT does not check."""
    peft = _peft()
    with reading("adapter_config.json"):
        settings = peft.PeftConfig.from_pretrained(folder)
    for field in fields(settings):
        value = getattr(settings, field.name)
        if type(field.default) in (int, float) and type(value) not in (int, float):
            raise SkillSDError(f"adapter_config.json: {field.name} is {shown(value)}: make it a number")
    return settings


def merged(base: PreTrainedModel, folder: str) -> PreTrainedModel:
    """``base`` with the adapter in ``folder`` added to its weights."""
    peft = _peft()
    if not (Path(folder) / _WEIGHTS).is_file():
        raise SkillSDError(f"the adapter has no {_WEIGHTS}")
    with reading("the adapter"):
        adapted = peft.PeftModel.from_pretrained(base, folder, config=_settings(folder))
        held, wanted = peft.load_peft_weights(folder), peft.get_peft_model_state_dict(adapted)
    if _adapters(held) != _adapters(wanted):  # PEFT adds what fits, and only warns
        raise SkillSDError("the weights of the adapter are not those that its adapter_config.json describes")
    _untie_adapted(base)
    return adapted.merge_and_unload()  # type: ignore[no-any-return]


def _adapters(weights: dict[str, Tensor]) -> set[str]:
    return {name for name in weights if "lora_" in name}


def _untie_adapted(model: PreTrainedModel) -> None:
    """Embedding and head may share a weight, which an adapter on one of them must not change for the other."""
    tied = [model.get_input_embeddings(), model.get_output_embeddings()]
    if not any(hasattr(module, "base_layer") for module in tied):
        return
    weights = [getattr(module, "base_layer", module) for module in tied if module is not None]
    if len(weights) == 2 and weights[0].weight is weights[1].weight:
        weights[1].weight = torch.nn.Parameter(weights[0].weight.detach().clone())
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False
        model.all_tied_weights_keys = {}


def restore(model: PreTrainedModel, folder: Path) -> None:
    """Load the adapter in ``folder`` into that of ``model``."""
    _peft().set_peft_model_state_dict(model, load_file(folder / _WEIGHTS))


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise SkillSDError("LoRA needs PEFT: pip install 'skillsd[lora]'") from None
    return peft

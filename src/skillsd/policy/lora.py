"""Low-rank adapters through PEFT. Switched off, the model is what it was: a frozen teacher that costs no memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from skillsd.config import ModelConfig
from skillsd.errors import SkillSDError


def add(model: PreTrainedModel, config: ModelConfig) -> None:
    """Put adapters into ``model``, in fp32; they alone have gradients.

    Raises :class:`SkillSDError` without PEFT, or for targets that the model does not have.
    """
    peft = _peft()
    targets = config.lora_targets
    settings = peft.LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=targets, task_type="CAUSAL_LM"
    )
    try:
        model.add_adapter(settings)
    except ValueError as error:
        raise SkillSDError(f"model.lora_targets: {targets!r}: {str(error).splitlines()[0][:200]}") from None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


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
    """The parameters of ``model``, its adapters added in, under the names of a model without; nothing is shared."""
    found = {n: p.detach() for n, p in model.named_parameters(remove_duplicate=False) if "lora_" not in n}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            weight = found.pop(f"{name}.base_layer.weight")
            found[f"{name}.weight"] = weight + module.get_delta_weight("default").detach().to(weight.dtype)
            if (bias := found.pop(f"{name}.base_layer.bias", None)) is not None:
                found[f"{name}.bias"] = bias
    return {name: tensor.cpu().clone().contiguous() for name, tensor in found.items()}


def is_adapter(folder: str) -> bool:
    """Whether a local folder holds an adapter instead of a model."""
    return (Path(folder) / "adapter_config.json").is_file()


def load_merged(folder: str, options: dict[str, Any]) -> PreTrainedModel:
    """The adapter's base with the adapter added to its weights. ``options`` go to ``from_pretrained``."""
    peft = _peft()
    settings = peft.PeftConfig.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(settings.base_model_name_or_path, use_safetensors=True, **options)
    merged = peft.PeftModel.from_pretrained(base, folder).merge_and_unload()
    return merged  # type: ignore[no-any-return]


def restore(model: PreTrainedModel, folder: Path) -> None:
    """Load the adapter in ``folder`` into that of ``model``."""
    _peft().set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise SkillSDError("LoRA needs PEFT: pip install 'skillsd[lora]'") from None
    return peft

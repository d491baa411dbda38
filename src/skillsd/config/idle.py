"""Settings that nothing reads in their company. Whoever sets one means something by it, so a run says so and ends.

What a method leaves out (GRPO has no teacher) is not among them: a file of settings is run with ``method=grpo`` for a
baseline. Nor is what is switched off by a 0 of its own, such as ``eval.panel_every``.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from skillsd.config import Config, SummarizerConfig, VLLMConfig
from skillsd.errors import UsageError, shown

#: What a summariser that is the policy itself reads; the rest is about a server.
_OF_THE_POLICY = ("prompt", "temperature", "answer_tokens", "conversation_chars")
#: What a server that somebody else starts was started with.
_OF_OUR_SERVER = ("python", "args", "cuda_visible_devices")


def idle(config: Config) -> dict[str, str]:
    """Settings of ``config`` that differ from their default and change nothing, each with what it needs."""
    return {name: needed for name, needed in _unread(config) if _value(config, name) != _value(Config(), name)}


def refuse_idle(config: Config) -> None:
    """Raise :class:`UsageError` for the first setting without effect."""
    for name, needed in idle(config).items():
        raise UsageError(f"{name} has no effect here: it needs {needed}; set that, or leave {name} out")


def without_idle(config: Config) -> Config:
    """The same run, with the default in place of what changes nothing."""
    for name in idle(config):
        section, field = name.split(".")
        changed = getattr(config, section).model_copy(update={field: _value(Config(), name)})
        config = config.model_copy(update={section: changed})
    return config


def spare(config: Config) -> str | None:
    """A line about settings of an LLM summariser that is not asked: ``skills try`` may still use them."""
    name = config.skills.summarizer
    if not config.spec.uses_bank or name in ("openai", "policy") or config.summarizer == SummarizerConfig():
        return None
    return (
        f"summarizer.* is for skills.summarizer = openai or policy; this run asks {shown(name)}, which reads none of it"
    )


def _unread(config: Config) -> Iterator[tuple[str, str]]:
    model, loss, spec = config.model, config.loss, config.spec
    if not model.lora_rank:
        yield from _each("model", ("lora_alpha", "lora_targets"), "model.lora_rank, without which all weights train")
    if config.rollout.engine != "vllm":
        yield from _each("vllm", tuple(VLLMConfig.model_fields), "rollout.engine = vllm")
        if not config.trainer.asynchronous:
            exact = "a sampler that is not exact (rollout.engine = vllm, or trainer.asynchronous)"
            yield "loss.tis_cap", exact
    elif config.vllm.url:
        yield from _each("vllm", _OF_OUR_SERVER, "a server that the run starts (no vllm.url)")
    if spec.uses_bank and config.skills.summarizer == "policy":
        others = tuple(name for name in SummarizerConfig.model_fields if name not in _OF_THE_POLICY)
        yield from _each("summarizer", others, "skills.summarizer = openai")
    if spec.teacher in ("dynamic", "frozen"):
        yield "teacher.ema_decay", "teacher.weights = ema"
    if spec.distill == "loss" and loss.estimator != "top_k":
        yield "loss.top_k", "loss.estimator = top_k"


def _each(section: str, names: tuple[str, ...], needed: str) -> Iterator[tuple[str, str]]:
    for name in names:
        yield f"{section}.{name}", needed


def _value(config: Config, name: str) -> object:
    section, field = name.split(".")
    found: BaseModel = getattr(config, section)
    return getattr(found, field)

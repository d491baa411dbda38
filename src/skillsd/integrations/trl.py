"""Skill-SD inside TRL: its GRPOTrainer, with lambda * L_SDL added (arXiv:2604.10674)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from skillsd.errors import UsageError
from skillsd.objectives import distillation_loss
from skillsd.skills.bank import SkillBank
from skillsd.skills.teacher_view import skill_view
from skillsd.types import Skill

try:
    from accelerate.utils import is_peft_model
    from trl import GRPOTrainer
    from trl.trainer.utils import pad
except ImportError:
    raise UsageError("skillsd.integrations.trl needs TRL: pip install 'skillsd[trl]'") from None

#: A dataset's prompt: a text, or messages of which the last is the user's.
Prompt = str | list[dict[str, Any]]


class SkillSDTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer whose completions are scored again behind a prompt with a skill in it.

    ``skills`` finds the skill: a :class:`SkillBank`, asked for the dataset's column ``task_id`` once a task and
    generation, or a callable from prompt to :class:`Skill` or None. Rows without one are not distilled.
    ``distill_weight`` is lambda; ``teacher`` is ``dynamic`` (the weights as they are when completions are made) or
    ``frozen`` (the first ones; with PEFT the base model). Everything else goes to GRPOTrainer; ``loss_type`` must be
    ``dapo``, the token mean over the batch. The paper's clip is ``epsilon=0.2, epsilon_high=0.28``. Text prompts only.
    Raises :class:`UsageError` for settings that do not fit.
    """

    def __init__(
        self,
        *args: Any,
        skills: SkillBank | Callable[[Prompt], Skill | None],
        distill_weight: float = 0.001,
        teacher: Literal["dynamic", "frozen"] = "dynamic",
        **kwargs: Any,
    ) -> None:
        if teacher not in ("dynamic", "frozen"):
            raise UsageError(f"teacher must be 'dynamic' or 'frozen', not {teacher!r}")
        if not distill_weight >= 0:
            raise UsageError(f"distill_weight must be at least 0, not {distill_weight!r}")
        super().__init__(*args, **kwargs)
        if self.loss_type != "dapo" or self.importance_sampling_level != "token":
            raise UsageError("SkillSDTrainer needs loss_type='dapo' and importance_sampling_level='token'")
        self.skills, self.distill_weight, self.teacher = skills, distill_weight, teacher
        self._student_logps: Tensor | None = None
        self._frozen = None
        if teacher == "frozen" and not is_peft_model(self.model):
            self._frozen = copy.deepcopy(self.accelerator.unwrap_model(self.model)).requires_grad_(False).eval()

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        return {**output, **self._score_by_teacher(inputs, output)}

    def _score_by_teacher(self, inputs: Sequence[Mapping[str, Any]], output: Mapping[str, Any]) -> dict[str, Tensor]:
        """The same completion ids behind the teacher's prompts: log-probs [B, T], and which rows [B] have one."""
        completion_ids, completion_mask = output["completion_ids"], output["completion_mask"]
        skills = self._find_skills(inputs)
        taught = torch.tensor([skill is not None for skill in skills], device=completion_ids.device)
        logps = torch.zeros(completion_ids.shape, dtype=torch.float32, device=completion_ids.device)
        if taught.any():
            rows = [(row["prompt"], skill) for row, skill in zip(inputs, skills, strict=True) if skill is not None]
            prompt_ids = [torch.tensor(ids) for ids in self._tokenize_prompts([_view(*row) for row in rows])[0]]
            ids = pad(prompt_ids, padding_value=self._tokenizer.pad_token_id, padding_side="left").to(
                completion_ids.device
            )
            mask = pad([torch.ones_like(row) for row in prompt_ids], padding_value=0, padding_side="left").to(
                ids.device
            )
            context = nullcontext()
            if self.teacher == "frozen" and self._frozen is None:
                context = self.accelerator.unwrap_model(self.model).disable_adapter()
            with torch.no_grad(), context:
                found, _, _ = self._get_per_token_logps_and_entropies(
                    self.model if self._frozen is None else self._frozen,
                    torch.cat([ids, completion_ids[taught]], 1),
                    torch.cat([mask, completion_mask[taught]], 1),
                    completion_ids.shape[1],
                    self.args.per_device_train_batch_size,
                )
            logps[taught] = found.float()
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["skillsd/taught"].append(taught.float().mean().item())
        return {"teacher_per_token_logps": logps, "taught": taught}

    def _find_skills(self, inputs: Sequence[Mapping[str, Any]]) -> list[Skill | None]:
        if not isinstance(self.skills, SkillBank):
            return [self.skills(row["prompt"]) for row in inputs]
        if any("task_id" not in row for row in inputs):
            raise UsageError("a SkillBank needs the dataset's column task_id; add it, or give skills as a callable")
        found = {task: self.skills.retrieve(task) for task in dict.fromkeys(str(row["task_id"]) for row in inputs)}
        chosen = [found[str(row["task_id"])] for row in inputs]
        return [None if stored is None else stored.skill for stored in chosen]

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        found = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._student_logps = found[0]  # the loss needs them again: no second forward
        return found

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss: Tensor = super()._compute_loss(model, inputs)
        logp, self._student_logps = self._student_logps, None
        assert logp is not None
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1) * inputs["taught"].unsqueeze(1)
        sampler = inputs.get("sampling_per_token_logps")
        sampler = inputs.get("old_per_token_logps") if sampler is None else sampler
        sampler = logp.detach() if sampler is None else sampler
        teacher = inputs["teacher_per_token_logps"]
        distilled = distillation_loss(logp, teacher, sampler, mask.float(), normalizer=self._normalizer(inputs))
        mode = "train" if self.model.training else "eval"
        gap = ((logp.detach() - teacher) * mask).square().sum() / mask.sum().clamp(min=1)
        self._metrics[mode]["skillsd/l_rms"].append(gap.sqrt().item())
        return loss + self.distill_weight * distilled

    def _normalizer(self, inputs: Mapping[str, Any]) -> float:
        """As GRPOTrainer's for ``dapo``: the tokens of the whole accumulated batch."""
        tokens: float = float(inputs["num_items_in_batch"].clamp(min=1.0)) / self.accelerator.num_processes
        if self.model.training:
            tokens *= self.current_gradient_accumulation_steps / self.args.steps_per_generation
        return tokens


def _view(prompt: Prompt, skill: Skill) -> Prompt:
    """The teacher's prompt: the skill in front of the last message."""
    if isinstance(prompt, str):
        return skill_view(skill, prompt)
    if not isinstance(prompt[-1]["content"], str):
        raise UsageError("SkillSDTrainer takes text prompts only: the last message's content must be a text")
    return [*prompt[:-1], {**prompt[-1], "content": skill_view(skill, prompt[-1]["content"])}]

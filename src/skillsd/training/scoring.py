"""What must be measured before the weights move: rows, their advantages, and everybody's log-probs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skillsd.config import Config
from skillsd.distributed.fsdp import finite, whole
from skillsd.distributed.processes import Processes
from skillsd.errors import SkillSDError
from skillsd.objectives import flat_groups, group_advantages, token_weights, truncated_importance
from skillsd.policy.loading import precision
from skillsd.policy.packing import TokenRow, micro_batches
from skillsd.policy.scoring import score_tokens, top_candidates
from skillsd.policy.selfcheck import is_dense
from skillsd.skills.summarize.intake import best_of_each_task
from skillsd.training.teacher import Teacher
from skillsd.types import Trajectory

#: Rows of the first batch whose log-probs are compared with the sampler's, by each process.
_COMPARED = 8


@dataclass
class Row:
    """A trajectory as the losses see it: the same completion ids behind two prompts.

    ``teacher_prompt_ids`` is None where no skill was found: the row then takes no part in distillation.
    """

    trajectory: Trajectory
    student_prompt_ids: list[int]
    teacher_prompt_ids: list[int] | None
    advantage: float = 0.0

    def student(self) -> TokenRow:
        """The completion behind the plain prompt."""
        return TokenRow(self.student_prompt_ids, self.trajectory.completion_ids, self.trajectory.action_mask)

    def teacher(self) -> TokenRow:
        """The same completion behind the skill and the plain prompt."""
        assert self.teacher_prompt_ids is not None
        return TokenRow(self.teacher_prompt_ids, self.trajectory.completion_ids, self.trajectory.action_mask)


@dataclass
class Scores:
    """Log-probs of the action tokens of all rows, [N, T] in fp32 with T the most action tokens of a row."""

    mask: Tensor
    sampler: Tensor
    old: Tensor
    teacher: Tensor
    teacher_mask: Tensor
    #: How much each taught token counts in the distillation loss.
    weights: Tensor
    #: Ids and the teacher's log-probs of its likeliest tokens, [N, T, k], for the estimator "top_k" alone.
    top_ids: Tensor | None = None
    top_teacher: Tensor | None = None
    #: What corrects for samples that are not quite the old policy's; None where they are.
    importance: Tensor | None = None

    def sampler_gap(self) -> dict[str, float]:
        """By how much sampler and trainer disagree on the log-probs of what was sampled (nats)."""
        if self.importance is None:
            return {}
        gap = (self.old - self.sampler).abs()[self.mask.bool()]
        return {"sampler_gap": float(gap.mean()), "sampler_gap_max": float(gap.max())} if gap.numel() else {}

    def favours(self, index: Sequence[int]) -> list[float]:
        """Mean log-prob of each row's tokens under the teacher less that under the student; 0 without a teacher."""
        gap = torch.where(self.teacher_mask.bool(), self.teacher - self.old, 0.0)[index]
        return (gap.sum(1) / self.teacher_mask[index].sum(1).clamp(min=1)).tolist()  # type: ignore[no-any-return]


def assign_advantages(rows: Sequence[Row], eps: float) -> dict[str, float]:
    """Group-normalised rewards per task; returns what the groups look like. A group of one has no advantage."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.trajectory.task_id, []).append(row)
    flat = 0
    for group in groups.values():
        rewards = torch.tensor([row.trajectory.reward for row in group], dtype=torch.float32)
        flat += bool(flat_groups(rewards.unsqueeze(0)))
        if len(group) > 1:
            for row, advantage in zip(group, group_advantages(rewards, len(group), eps).tolist(), strict=True):
                row.advantage = advantage
    spread = torch.tensor([row.advantage for row in rows])
    return {"advantage_std": float(spread.std(correction=0)), "flat_groups": flat / max(1, len(groups))}


def imitate(rows: Sequence[Row], weight: float) -> None:
    """Add ``weight`` to the advantage of each group's best success, if it has one.

    Under the policy that sampled it, the gradient of that is the gradient of ``weight`` x its log-likelihood, as a
    share of the batch's token mean: the weight of imitation beside that of reward.
    """
    chosen = {t.id for t in best_of_each_task([row.trajectory for row in rows if row.trajectory.success], 1)}
    for row in rows:
        row.advantage += weight * (row.trajectory.id in chosen)


def padded(rows: Sequence[Sequence[float]], width: int) -> Tensor:
    """Right-padded with 0: [len(rows), width] in fp32."""
    return torch.tensor([[*row, *([0.0] * (width - len(row)))] for row in rows], dtype=torch.float32)


def action_values(values: Sequence[float], mask: Sequence[int]) -> list[float]:
    """The values at action tokens."""
    return [value for value, action in zip(values, mask, strict=True) if action]


def parts_of(
    model: PreTrainedModel, rows: Sequence[TokenRow], max_tokens: int
) -> Iterator[tuple[list[int], list[TokenRow]]]:
    """Micro-batches of ``rows`` with at most ``max_tokens`` tokens: which they are, and themselves."""
    for index in micro_batches(rows, max_tokens, shared=is_dense(model)):
        yield index, [rows[i] for i in index]


def share_rows(processes: Processes, rows: Sequence[Row], index: Sequence[int]) -> list[int]:
    """This process's part of ``index``: about as many long rows as any other's."""
    return processes.share(sorted(index, key=lambda i: -len(rows[i].trajectory.completion_ids)))


class Scorer:
    """Re-scores rows under the student and its teacher (Algorithm 1, "re-score")."""

    def __init__(self, model: PreTrainedModel, config: Config, processes: Processes | None = None) -> None:
        self.model, self.config, self.spec = model, config, config.spec
        self.processes = processes or Processes()
        self.compared = False

    @torch.no_grad()
    def logps(self, model: PreTrainedModel, rows: Sequence[TokenRow], width: int) -> Tensor:
        """Re-score ``rows`` under ``model``: [N, width], no gradient."""
        result = torch.zeros(len(rows), width)
        for index, part in parts_of(model, rows, self.config.optim.max_tokens_per_device):
            with precision(self.config.model, model):
                logps = score_tokens(model, part, self.config.rollout.temperature).logps
            result[index, : logps.shape[1]] = logps.float().cpu()
        return result

    def top(self, model: PreTrainedModel, rows: Sequence[TokenRow], width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probs [N, width] of the action tokens, and ids and log-probs [N, width, k] of the likeliest."""
        k = min(self.config.loss.top_k, model.config.get_text_config().vocab_size)
        result, tops = torch.zeros(len(rows), width), torch.zeros(len(rows), width, k)
        ids = torch.zeros(len(rows), width, k, dtype=torch.long)
        for index, part in parts_of(model, rows, self.config.optim.max_tokens_per_device):
            with precision(self.config.model, model):
                scored, found = top_candidates(model, part, k, self.config.rollout.temperature)
            assert scored.top is not None
            end = scored.logps.shape[1]
            result[index, :end], tops[index, :end] = scored.logps.cpu(), scored.top.cpu()
            ids[index, :end] = found.cpu()
        return result, ids, tops

    def score(self, rows: Sequence[Row], teacher: Teacher) -> Scores:
        """Everything that must be measured before the weights move (Algorithm 1, "re-score")."""
        masks = [row.trajectory.action_mask for row in rows]
        width = max((sum(mask) for mask in masks), default=0)
        if not self.compared:
            self._check_sampler(rows, teacher, width)
        sampler = padded([action_values(r.trajectory.logps, m) for r, m in zip(rows, masks, strict=True)], width)
        mask = padded([[1.0] * sum(m) for m in masks], width)
        old, importance = sampler, None
        # GRPO's ratio stays centred on the old *student*, also where another sampled: the teacher, an engine that is
        # not exact, or the student of one update ago.
        inexact = self.config.rollout.engine == "vllm" or self.config.trainer.asynchronous
        if self.spec.rollouts == "teacher" or inexact:
            old, mine = torch.zeros_like(mask), share_rows(self.processes, rows, range(len(rows)))
            with whole(self.model):
                old[mine] = self.logps(self.model, [rows[i].student() for i in mine], width)
            self.processes.sum([old])
            if self.spec.rollouts == "student":
                importance = truncated_importance(old, sampler, mask, self.config.loss.tis_cap)
        taught = [
            i for i, row in enumerate(rows) if row.teacher_prompt_ids is not None and row.trajectory.action_tokens
        ]
        loss = self.config.loss
        scores, teacher_mask = torch.zeros_like(mask), torch.zeros_like(mask)
        top_ids = top_teacher = None
        if taught and self.spec.distill != "none":
            mine = share_rows(self.processes, rows, taught)
            views = [rows[i].teacher() for i in mine]
            with teacher.active() as model, whole(model):
                if self.spec.distill == "loss" and loss.estimator == "top_k":
                    scores[mine], ids, tops = self.top(model, views, width)
                    top_ids = torch.zeros(*mask.shape, ids.shape[-1], dtype=torch.long)
                    top_teacher = torch.zeros(top_ids.shape)
                    top_ids[mine], top_teacher[mine] = ids, tops
                    self.processes.sum([top_ids, top_teacher])
                else:
                    scores[mine] = self.logps(model, views, width)
            self.processes.sum([scores])
            teacher_mask[taught] = mask[taught]
        weights = token_weights(
            old,
            scores,
            teacher_mask,
            torch.tensor([row.advantage for row in rows]),
            gate_beta=loss.gate_beta,
            token_share=loss.token_share,
            positive_only=loss.positive_only,
        )
        return Scores(mask, sampler, old, scores, teacher_mask, weights, top_ids, top_teacher, importance)

    def _check_sampler(self, rows: Sequence[Row], teacher: Teacher, width: int) -> None:
        """Once a run: are the log-probs that the sampler noted the trainer's own? Looks at a few rows.

        Raises :class:`SkillSDError` if they are not: every ratio would be wrong, and nothing else would show it.
        """
        self.compared = True
        mine = [rows[i].trajectory for i in share_rows(self.processes, rows, range(len(rows)))][:_COMPARED]
        who = teacher.active() if self.spec.rollouts == "teacher" else nullcontext(self.model)
        with who as model, whole(model):
            found = self.logps(model, [TokenRow(t.prompt_ids, t.completion_ids, t.action_mask) for t in mine], width)
        gap = sum(
            sum(abs(a - b) for a, b in zip(action_values(t.logps, t.action_mask), logps, strict=False))
            for t, logps in zip(mine, found.tolist(), strict=True)
        )
        gap, tokens = self.processes.total([gap, sum(t.action_tokens for t in mine)])
        exact = self.config.rollout.engine == "transformers" and self.config.model.dtype == "float32"
        bound = 0.02 if exact and not self.config.trainer.asynchronous else 0.3
        if math.isnan(gap) and self.processes.any(not finite([*self.model.parameters()])):
            raise SkillSDError("the model's weights are not finite: it can be neither sampled from nor trained")
        if tokens and not gap / tokens <= bound:
            raise SkillSDError(
                f"sampler and trainer disagree: the log-probs of what was sampled differ by {gap / tokens:.3g} nats a "
                f"token (at most {bound:g} is rounding). The engine does not run the model that is trained"
            )

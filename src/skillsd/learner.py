"""One update of the policy from one batch of trajectories: L = L_GRPO + lambda * L_SDL (PAPER section 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skillsd.config import Config
from skillsd.errors import SkillSDError
from skillsd.objectives import (
    Diagnostics,
    diagnose,
    distillation_advantages,
    distillation_loss,
    group_advantages,
    grpo_loss,
    token_weights,
    top_k_distillation_loss,
    truncated_importance,
)
from skillsd.parallel import Processes
from skillsd.policy.loading import precision
from skillsd.policy.scoring import TokenRow, micro_batches, score_tokens, top_candidates
from skillsd.sharding import full, is_sharded, whole
from skillsd.teacher import Teacher
from skillsd.trajectory import Trajectory
from skillsd.zero import ZeroOptimizer


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
        flat += bool((rewards == rewards[0]).all())
        if len(group) > 1:
            for row, advantage in zip(group, group_advantages(rewards, len(group), eps).tolist(), strict=True):
                row.advantage = advantage
    spread = torch.tensor([row.advantage for row in rows])
    return {"advantage_std": float(spread.std(correction=0)), "flat_groups": flat / max(1, len(groups))}


def padded(rows: Sequence[Sequence[float]], width: int) -> Tensor:
    """Right-padded with 0: [len(rows), width] in fp32."""
    return torch.tensor([[*row, *([0.0] * (width - len(row)))] for row in rows], dtype=torch.float32)


def action_values(values: Sequence[float], mask: Sequence[int]) -> list[float]:
    """The values at action tokens."""
    return [value for value, action in zip(values, mask, strict=True) if action]


class Learner:
    """The optimiser and the arithmetic around it."""

    def __init__(self, model: PreTrainedModel, config: Config, processes: Processes | None = None) -> None:
        self.model, self.config, self.spec = model, config, config.spec
        self.processes = processes or Processes()
        optim = config.optim
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.adamw = torch.optim.AdamW(
            self.parameters, lr=optim.lr, betas=(optim.beta1, optim.beta2), weight_decay=optim.weight_decay
        )
        self.zero: ZeroOptimizer | None = None
        if (stage := config.trainer.zero_stage) and self.processes.size > 1:
            self.zero = ZeroOptimizer(model, self.parameters, self.adamw, stage, optim.max_grad_norm)
        self.first = Teacher("frozen", model) if config.loss.anchor_weight else None

    @property
    def optimizer(self) -> torch.optim.Optimizer | ZeroOptimizer:
        """What holds the learning rate and the optimiser's state."""
        return self.zero or self.adamw

    @torch.no_grad()
    def logps(self, model: PreTrainedModel, rows: Sequence[TokenRow], width: int) -> Tensor:
        """Re-score ``rows`` under ``model``: [N, width], no gradient."""
        result = torch.zeros(len(rows), width)
        for index, part in self._parts(rows):
            with precision(self.config.model, model):
                logps = score_tokens(model, part, self.config.rollout.temperature).logps
            result[index, : logps.shape[1]] = logps.float().cpu()
        return result

    def top(self, model: PreTrainedModel, rows: Sequence[TokenRow], width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probs [N, width] of the action tokens, and ids and log-probs [N, width, k] of the likeliest."""
        k = min(self.config.loss.top_k, model.config.get_text_config().vocab_size)
        result, tops = torch.zeros(len(rows), width), torch.zeros(len(rows), width, k)
        ids = torch.zeros(len(rows), width, k, dtype=torch.long)
        for index, part in self._parts(rows):
            with precision(self.config.model, model):
                scored, found = top_candidates(model, part, k, self.config.rollout.temperature)
            assert scored.top is not None
            end = scored.logps.shape[1]
            result[index, :end], tops[index, :end] = scored.logps.cpu(), scored.top.cpu()
            ids[index, :end] = found.cpu()
        return result, ids, tops

    def _parts(self, rows: Sequence[TokenRow]) -> Iterator[tuple[list[int], list[TokenRow]]]:
        """Micro-batches of ``rows``: which they are, and themselves."""
        for index in micro_batches([row.length for row in rows], self.config.optim.max_tokens_per_device):
            yield index, [rows[i] for i in index]

    def _in_step(self, rows: Sequence[TokenRow], filler: TokenRow) -> Iterator[tuple[list[int], list[TokenRow]]]:
        """Micro-batches to differentiate. Where weights are gathered or gradients scattered by all processes together,
        whoever has fewer of them goes through ``filler``, without effect."""
        parts, most = list(self._parts(rows)), 0
        if is_sharded(self.model) or self.zero:
            most = max(self.processes.gather([len(parts)]))  # before, so that all collectives come in one order
        yield from parts
        for _ in range(most - len(parts)):
            self._backward(score_tokens(self.model, [filler], self.config.rollout.temperature).logps.sum() * 0.0)

    def _backward(self, loss: Tensor) -> None:
        if self.zero:
            self.zero.backward(loss)
        else:
            loss.backward()

    def score(self, rows: Sequence[Row], teacher: Teacher) -> Scores:
        """Everything that must be measured before the weights move (Algorithm 1, "re-score")."""
        masks = [row.trajectory.action_mask for row in rows]
        width = max((sum(mask) for mask in masks), default=0)
        sampler = padded([action_values(r.trajectory.logps, m) for r, m in zip(rows, masks, strict=True)], width)
        mask = padded([[1.0] * sum(m) for m in masks], width)
        old, importance = sampler, None
        # GRPO's ratio stays centred on the old *student*, also where another sampled: the teacher, an engine that is
        # not exact, or the student of one update ago.
        inexact = self.config.rollout.engine == "vllm" or self.config.trainer.asynchronous
        if self.spec.rollouts == "teacher" or inexact:
            old, mine = torch.zeros_like(mask), self._mine(rows, range(len(rows)))
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
            mine = self._mine(rows, taught)
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

    def update(self, rows: Sequence[Row], scores: Scores, iteration: int) -> dict[str, float]:
        """One pass over the batch in ``optim.minibatches`` optimiser steps. Returns metrics.

        Raises :class:`SkillSDError` when a loss or gradient is not finite; the weights are then untouched by
        that step.
        """
        optim = self.config.optim
        for group in self.optimizer.param_groups:
            group["lr"] = optim.lr_at(iteration, self.config.trainer.iterations)
        order = torch.randperm(len(rows)).tolist() if optim.minibatches > 1 else list(range(len(rows)))
        size = math.ceil(len(order) / optim.minibatches)
        total: dict[str, float] = {}
        diagnostics = Diagnostics()
        chunks = [order[i : i + size] for i in range(0, len(order), size)]
        for chunk in chunks:
            for key, value in self._step(rows, scores, chunk, iteration, diagnostics).items():
                total[key] = total.get(key, 0.0) + value / len(chunks)
        everyone = Diagnostics()
        for part in self.processes.gather([diagnostics]):
            everyone.merge(part)
        return {**total, **scores.sampler_gap(), **everyone.summary(), "lr": self.optimizer.param_groups[0]["lr"]}

    def _step(
        self, rows: Sequence[Row], scores: Scores, chunk: list[int], iteration: int, diagnostics: Diagnostics
    ) -> dict[str, float]:
        weight = self.config.loss.weight_at(iteration) if self.spec.distill == "loss" else 0.0
        every = self.config.trainer.grad_norms_every
        split = bool(every and iteration % every == 0 and weight and self.spec.reward)
        tokens = float(scores.mask[chunk].sum())
        # Rows without advantage and without teacher have no gradient; they count in the mean all the same.
        active = self._mine(rows, [i for i in chunk if self._has_gradient(rows[i])])
        distilled = [torch.zeros_like(p) for p in self.parameters] if split else []
        policy_loss = distill_loss = 0.0
        for micro, students in self._in_step([rows[i].student() for i in active], rows[chunk[0]].student()):
            index = [active[i] for i in micro]
            reward_part, distill_part = self._losses(rows, students, scores, index, tokens, diagnostics)
            if split:
                gradients = torch.autograd.grad(weight * distill_part, self.parameters, retain_graph=True)
                for total, gradient in zip(distilled, gradients, strict=True):
                    total += gradient
                reward_part.backward()
            else:
                self._backward(reward_part + weight * distill_part)
            policy_loss += float(reward_part.detach())
            distill_loss += float(distill_part.detach())
        view = self._train_view(rows, scores, chunk, tokens)
        policy_loss, distill_loss, *parts = self._add_up([policy_loss, distill_loss, *view.values()])
        metrics = {"loss_policy": policy_loss, "loss_distill": distill_loss, **dict(zip(view, parts, strict=True))}
        metrics |= {"loss": policy_loss + weight * distill_loss, "distill_weight": weight}
        norm = self.zero.step() if self.zero else self._whole_gradient(distilled, metrics)
        metrics["grad_norm"] = norm
        if not (weight and self.spec.reward):  # one loss alone: the whole gradient is its own
            metrics |= {"grad_norm_policy": 0.0, "grad_norm_distill": norm} if weight else {"grad_norm_policy": norm}
        if not (math.isfinite(norm) and math.isfinite(metrics["loss"])):
            if not self.zero:
                self.adamw.zero_grad()
            taken = "the last checkpoint is intact" if self.zero else "the step was not taken"
            raise SkillSDError(
                f"iteration {iteration}: loss {metrics['loss']:g}, gradient norm {norm:g}; {taken}. "
                "Lower optim.lr or loss.distill_weight, then go on with --resume"
            )
        if not self.zero:
            self.adamw.step()
            self.adamw.zero_grad()
        return metrics

    def _whole_gradient(self, distilled: list[Tensor], metrics: dict[str, float]) -> float:
        """Sum the gradients over the processes, add ``distilled`` where it is apart, and clip; the norm before that."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if not is_sharded(self.model):  # else the backward pass has done so
            self.processes.sum([*(p.grad for p in self.parameters if p.grad is not None), *distilled])
        if distilled:
            metrics |= self._combine(distilled)
        return float(full(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.optim.max_grad_norm)))

    def _mine(self, rows: Sequence[Row], index: Sequence[int]) -> list[int]:
        """This process's part of ``index``: about as many long rows as any other's."""
        return self.processes.share(sorted(index, key=lambda i: -len(rows[i].trajectory.completion_ids)))

    def _add_up(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes."""
        total = torch.tensor(values, dtype=torch.float64)
        self.processes.sum([total])
        return total.tolist()  # type: ignore[no-any-return]

    def _has_gradient(self, row: Row) -> bool:
        taught = self.spec.distill != "none" and row.teacher_prompt_ids is not None
        return row.trajectory.action_tokens > 0 and (taught or (self.spec.reward and row.advantage != 0.0))

    def _losses(
        self,
        rows: Sequence[Row],
        students: Sequence[TokenRow],
        scores: Scores,
        index: list[int],
        tokens: float,
        diagnostics: Diagnostics,
    ) -> tuple[Tensor, Tensor]:
        """(L_GRPO, L_SDL) of the micro-batch ``index``, seen as ``students``: its share of the batch's token mean."""
        candidates = None if scores.top_ids is None else scores.top_ids[index]
        with precision(self.config.model, self.model):
            logp, _, top = score_tokens(self.model, students, self.config.rollout.temperature, candidates=candidates)
        width = logp.shape[1]

        def take(values: Tensor) -> Tensor:
            return values[index, :width].to(logp.device)

        mask, old, teacher, taught = map(take, (scores.mask, scores.old, scores.teacher, scores.teacher_mask))
        sampler, weights = take(scores.sampler), take(scores.weights)
        if self.spec.distill == "advantage":
            advantages = distillation_advantages(old, teacher, taught)
        else:
            advantages = torch.tensor([rows[i].advantage for i in index], device=logp.device)
        loss = self.config.loss
        importance = None if scores.importance is None else take(scores.importance)
        reward_part = grpo_loss(
            logp, old, advantages, mask, loss.clip_low, loss.clip_high, weights=importance, normalizer=tokens
        )
        if not self.spec.reward and self.spec.distill != "advantage":
            reward_part = reward_part * 0.0
        distill_part = logp.sum() * 0.0
        if self.spec.distill == "loss":
            if loss.estimator != "top_k":
                distill_part = distillation_loss(
                    logp, teacher, sampler, taught, loss.estimator, weights=weights, normalizer=tokens
                )
            elif top is not None and scores.top_teacher is not None:
                distill_part = top_k_distillation_loss(
                    top, take(scores.top_teacher), taught, weights=weights, normalizer=tokens
                )
        diagnostics.merge(diagnose(logp, old, teacher, sampler, mask, taught, loss.clip_low, loss.clip_high))
        return reward_part, distill_part

    def _train_view(self, rows: Sequence[Row], scores: Scores, chunk: list[int], tokens: float) -> dict[str, float]:
        """Remedies for a moving teacher that forgets how to read: gradients on its own view of the same tokens.

        ``anchor_weight`` keeps that view near what the first weights said in it (reverse KL over their top k);
        ``view_reward_weight`` trains it on the reward, as the student's view is.
        """
        loss, temperature = self.config.loss, self.config.rollout.temperature
        if not (loss.anchor_weight or loss.view_reward_weight):
            return {}
        metrics = {"loss_anchor": 0.0, "loss_view_reward": 0.0}
        taught = self._mine(rows, [i for i in chunk if scores.teacher_mask[i].any()])
        for micro, views in self._in_step([rows[i].teacher() for i in taught], rows[chunk[0]].student()):
            index = [taught[i] for i in micro]
            ids = first = None
            if self.first is not None:
                with self.first.active() as anchor, precision(self.config.model, anchor):
                    (_, _, first), ids = top_candidates(anchor, views, loss.top_k, temperature)
            with precision(self.config.model, self.model):
                logp, mask, top = score_tokens(self.model, views, temperature, candidates=ids)
            parts = {}
            if top is not None and first is not None:
                parts["loss_anchor"] = loss.anchor_weight * top_k_distillation_loss(top, first, mask, normalizer=tokens)
            if loss.view_reward_weight:
                sampler = scores.sampler[index, : logp.shape[1]].to(logp.device)
                advantages = torch.tensor([rows[i].advantage for i in index], device=logp.device)
                policy = grpo_loss(logp, sampler, advantages, mask, loss.clip_low, loss.clip_high, normalizer=tokens)
                parts["loss_view_reward"] = loss.view_reward_weight * policy
            self._backward(torch.stack(list(parts.values())).sum())
            for name, value in parts.items():
                metrics[name] += float(value.detach())
        return metrics

    def _combine(self, distilled: list[Tensor]) -> dict[str, float]:
        """Add the distillation gradient to the policy gradient; norms of both and the cosine between them."""
        policy = [p.grad for p in self.parameters if p.grad is not None]
        squares = [float(sum((g * g).sum() for g in grads)) for grads in (policy, distilled)]
        product = float(sum((a * b).sum() for a, b in zip(policy, distilled, strict=True)))
        for gradient, extra in zip(policy, distilled, strict=True):
            gradient += extra
        norms = [math.sqrt(square) for square in squares]
        cosine = product / (norms[0] * norms[1]) if norms[0] and norms[1] else 0.0
        return {"grad_norm_policy": norms[0], "grad_norm_distill": norms[1], "grad_cosine": cosine}

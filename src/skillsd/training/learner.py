"""One update of the policy from one batch of trajectories: L = L_GRPO + lambda * L_SDL (arXiv:2604.10674)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from skillsd.config import Config
from skillsd.distributed.fsdp import finite, full, is_sharded
from skillsd.distributed.processes import Processes
from skillsd.distributed.zero import ZeroOptimizer
from skillsd.errors import SkillSDError
from skillsd.objectives import (
    Diagnostics,
    diagnose,
    distillation_advantages,
    distillation_loss,
    grpo_loss,
    top_k_distillation_loss,
)
from skillsd.policy.loading import precision
from skillsd.policy.packing import TokenRow
from skillsd.policy.scoring import score_tokens
from skillsd.seeding import derive_seed
from skillsd.training.scoring import Row, Scores, parts_of, share_rows


def _parts_of(order: list[int], count: int) -> list[list[int]]:
    """``order`` in ``count`` parts of nearly the same size, none of them empty."""
    count = min(count, len(order))
    return [order[i * len(order) // count : (i + 1) * len(order) // count] for i in range(count)]


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

    @property
    def optimizer(self) -> torch.optim.Optimizer | ZeroOptimizer:
        """What holds the learning rate and the optimiser's state."""
        return self.zero or self.adamw

    def _in_step(self, rows: Sequence[TokenRow], filler: TokenRow) -> Iterator[tuple[list[int], list[TokenRow]]]:
        """Micro-batches to differentiate. Where weights are gathered or gradients scattered by all processes together,
        whoever has fewer of them goes through ``filler``, without effect."""
        parts, most = list(parts_of(self.model, rows, self.config.optim.max_tokens_per_device)), 0
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

    def update(self, rows: Sequence[Row], scores: Scores, iteration: int) -> dict[str, float]:
        """One pass over the batch in ``optim.minibatches`` optimiser steps (at most one a row). Returns metrics.

        Raises :class:`SkillSDError` when a loss or gradient is not finite (the weights are then untouched by that
        step), or the weights are not.
        """
        optim = self.config.optim
        for group in self.optimizer.param_groups:
            group["lr"] = optim.lr_at(iteration, self.config.trainer.iterations)
        order = self._order(len(rows), iteration) if optim.minibatches > 1 else list(range(len(rows)))
        total: dict[str, float] = {}
        diagnostics = Diagnostics()
        chunks = _parts_of(order, optim.minibatches)
        for chunk in chunks:
            for key, value in self._step(rows, scores, chunk, iteration, diagnostics).items():
                total[key] = total.get(key, 0.0) + value / len(chunks)
        if self.processes.any(not finite(self.parameters)):
            raise SkillSDError(
                f"iteration {iteration}: the update made weights that are not finite; the last checkpoint is intact. "
                "Lower optim.lr, then go on with --resume"
            )
        everyone = Diagnostics()
        for part in self.processes.gather([diagnostics]):
            everyone.merge(part)
        return {**total, **scores.sampler_gap(), **everyone.summary(), "lr": self.optimizer.param_groups[0]["lr"]}

    def _order(self, count: int, iteration: int) -> list[int]:
        """Of a generator of its own: an environment may seed torch's."""
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "iteration", iteration))
        order: list[int] = torch.randperm(count, generator=generator).tolist()
        return order

    def _step(
        self, rows: Sequence[Row], scores: Scores, chunk: list[int], iteration: int, diagnostics: Diagnostics
    ) -> dict[str, float]:
        weight = self.config.loss.weight_at(iteration) if self.spec.distill == "loss" else 0.0
        every = self.config.trainer.grad_norms_every
        split = bool(every and iteration % every == 0 and weight and self.spec.reward)
        tokens = float(scores.mask[chunk].sum())
        # Rows without advantage and without teacher have no gradient; they count in the mean all the same.
        active = share_rows(self.processes, rows, [i for i in chunk if self._has_gradient(rows[i])])
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
        policy_loss, distill_loss = self.processes.total([policy_loss, distill_loss])
        metrics = {"loss_policy": policy_loss, "loss_distill": distill_loss}
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
                "Lower optim.lr, optim.weight_decay or loss.distill_weight, then go on with --resume"
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
            advantages = distillation_advantages(old, teacher, taught) * weights
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

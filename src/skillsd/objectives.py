"""The losses of Skill-SD as pure functions (arXiv:2604.10674). Imports torch alone.

All tensors are float of shape [B, T] unless said otherwise; ``mask`` is 1 on action tokens. Everything is computed
in fp32 whatever comes in. Both losses are token means over the *whole* batch: a micro-batch passes
``normalizer`` (the number of action tokens of the whole batch), and its losses then add up to the batch's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: Guards on exponents. The paper clamps nothing; exp(-l) overflows where a teacher is far surer than the student.
MAX_NEG_L = 20.0
MAX_LOG_RHO = 10.0
#: Least probability of all tokens outside the top k: its logarithm must be finite.
MIN_TAIL = 1e-6
#: Spread of rewards, as a share of the largest, that is rounding (some ten times the precision of fp32).
FLAT = 1e-6

ESTIMATORS = ("iw_k3", "iw_k3_detached", "k1", "k2", "k3")


def group_advantages(rewards: Tensor, group_size: int, eps: float = 1e-8) -> Tensor:
    """Group-normalised rewards, ``[N] -> [N]``: (R - mean) / (std + eps) within each run of ``group_size``.

    The sample standard deviation is used, as in verl and TRL. A group whose rewards are equal but for rounding has
    advantage 0 exactly: the mean and the deviation of equal floats are not exact. Raises ``ValueError`` unless
    ``group_size`` is at least 2 and divides N.
    """
    if group_size < 2 or rewards.dim() != 1 or rewards.numel() % group_size:
        raise ValueError(f"rewards of shape {tuple(rewards.shape)} do not form groups of {group_size} (at least 2)")
    groups = rewards.float().view(-1, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    advantages = centred / (groups.std(1, keepdim=True) + eps)
    return torch.where(flat_groups(groups), 0.0, advantages).flatten()


def flat_groups(groups: Tensor) -> Tensor:
    """Which rows of [groups, group size] hold one reward, but for rounding in fp32; [groups, 1], bool."""
    rewards = groups.float()
    spread = rewards.amax(1, keepdim=True) - rewards.amin(1, keepdim=True)
    return spread <= FLAT * rewards.abs().amax(1, keepdim=True)


def grpo_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    *,
    weights: Tensor | None = None,
    normalizer: float | None = None,
) -> Tensor:
    """``-mean(min(r A, clip(r, 1 - clip_low, 1 + clip_high) A))``, r = pi_theta / sg(pi_old); a scalar.

    ``advantages`` is [B], or [B, T] for advantages of single tokens. ``weights`` [B, T] multiply the tokens: see
    :func:`truncated_importance`.
    """
    advantages = advantages.float() if advantages.dim() == 2 else advantages.float().unsqueeze(1)
    ratio = _masked(logp - old_logp.detach(), mask).clamp(max=MAX_LOG_RHO).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    value = -torch.minimum(ratio * advantages, clipped * advantages)
    return _token_mean(value if weights is None else value * weights, mask, normalizer)


def truncated_importance(old_logp: Tensor, sampler_logp: Tensor, mask: Tensor, cap: float) -> Tensor:
    """min(pi_old / mu, ``cap``) of each token, [B, T], detached, 1 where masked.

    Engines disagree with the trainer on log-probs (kernels, precision), so samples of an engine are not quite the old
    policy's; the weight corrects for it, and the cap bounds its variance (truncated importance sampling).
    """
    return _masked(old_logp - sampler_logp, mask).clamp(max=math.log(cap)).exp().detach()


def distillation_loss(
    logp: Tensor,
    teacher_logp: Tensor,
    sampler_logp: Tensor,
    mask: Tensor,
    estimator: str = "iw_k3",
    *,
    weights: Tensor | None = None,
    normalizer: float | None = None,
) -> Tensor:
    """The token mean of an estimator of KL(student || teacher); a scalar.

    ``weights`` (see :func:`token_weights`) multiply the tokens; the mean is over all of them all the same.

    With ``l = logp - teacher_logp`` and ``rho = exp(logp - sg(sampler_logp))``:

    - ``iw_k3`` (the paper, Prop. 2): ``rho (exp(-l) - 1 + l)``, whose gradient is ``rho l grad logp``, in expectation
      under the sampler exactly the gradient of the reverse KL;
    - ``iw_k3_detached``: the same with rho detached; its expected gradient is the *forward* KL's;
    - ``k1`` = ``l``, ``k2`` = ``l^2 / 2``, ``k3`` = ``exp(-l) - 1 + l``: without importance weights, for ablation.

    Raises ``ValueError`` for another estimator.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"unknown estimator {estimator!r}; choose one of {', '.join(ESTIMATORS)}")
    log_ratio = _masked(logp - teacher_logp.detach(), mask)
    if estimator == "k1":
        value = log_ratio
    elif estimator == "k2":
        value = log_ratio.square() / 2
    else:
        value = (-log_ratio).clamp(max=MAX_NEG_L).exp() - 1 + log_ratio
        if estimator != "k3":
            rho = _masked(logp - sampler_logp.detach(), mask).clamp(max=MAX_LOG_RHO).exp()
            value = (rho.detach() if estimator == "iw_k3_detached" else rho) * value
    return _token_mean(value if weights is None else value * weights, mask, normalizer)


def top_k_distillation_loss(
    top_logp: Tensor,
    teacher_top_logp: Tensor,
    mask: Tensor,
    *,
    weights: Tensor | None = None,
    normalizer: float | None = None,
) -> Tensor:
    """The token mean of KL(student || teacher) over the teacher's k likeliest tokens and one bucket for the rest.

    ``top_logp`` and ``teacher_top_logp`` are [B, T, k]: both log-probs of the same k tokens at every place. The sum
    over tokens replaces the sampled one, so there is no importance weight and less noise; with k = the vocabulary it
    is the exact KL of every prefix, else a lower bound of it (SDPO, arXiv:2601.20802, has the tail bucket).
    """
    everywhere = mask.unsqueeze(-1)
    student = _with_tail(_masked(top_logp, everywhere))
    teacher = _with_tail(_masked(teacher_top_logp.detach(), everywhere))
    value = (student.exp() * (student - teacher)).sum(-1)
    return _token_mean(value if weights is None else value * weights, mask, normalizer)


def _with_tail(logps: Tensor) -> Tensor:
    """[..., k] -> [..., k + 1]: the log of what is left to 1 comes last."""
    rest = (1 - logps.exp().sum(-1, keepdim=True)).clamp(min=MIN_TAIL)
    return torch.cat([logps, rest.log()], -1)


def token_weights(
    logp: Tensor,
    teacher_logp: Tensor,
    mask: Tensor,
    advantages: Tensor,
    *,
    gate_beta: float = 0.0,
    token_share: float = 1.0,
    positive_only: bool = False,
) -> Tensor:
    """How much each token counts in the distillation loss, [B, T], detached; all 1 (on the mask) by default.

    ``gate_beta`` > 0: times sigmoid(gate_beta (log pi_teacher - log pi_student)) (SDAR, arXiv:2605.15155, beta 5);
    ``token_share`` < 1: only that share of the tokens, those with the largest |l| (GenEvolve keeps 0.1);
    ``positive_only``: only trajectories whose advantage (``advantages``, [B]) is positive.
    """
    gap = _masked(teacher_logp - logp, mask).detach()
    weights = mask.float()
    if gate_beta:
        weights = weights * torch.sigmoid(gate_beta * gap)
    if positive_only:
        weights = weights * (advantages > 0).float().unsqueeze(1)
    if token_share < 1:
        sizes = gap.abs()[mask.bool()]
        if sizes.numel():
            kept = max(1, round(token_share * sizes.numel()))
            weights = weights * (gap.abs() >= sizes.topk(kept).values[-1]).float()
    return weights


def distillation_advantages(logp: Tensor, teacher_logp: Tensor, mask: Tensor) -> Tensor:
    """Vanilla OPD: the negative reverse-KL sample of each token as its advantage, [B, T], detached."""
    return -_masked(logp - teacher_logp, mask).detach()


def _masked(difference: Tensor, mask: Tensor) -> Tensor:
    """fp32, with 0 where the mask is 0, whatever stood there (an infinity times 0 would be NaN)."""
    return torch.where(mask.bool(), difference.float(), 0.0)


def _token_mean(values: Tensor, mask: Tensor, normalizer: float | None) -> Tensor:
    count = float(mask.sum()) if normalizer is None else normalizer
    return torch.where(mask.bool(), values, 0.0).sum() / max(count, 1.0)


@dataclass
class Diagnostics:
    """Sums over tokens, so that micro-batches merge into the numbers of the whole batch."""

    tokens: float = 0.0
    taught: float = 0.0
    l_sum: float = 0.0
    l_abs: float = 0.0
    l_square: float = 0.0
    rho_max: float = -math.inf
    rho_min: float = math.inf
    clipped_low: float = 0.0
    clipped_high: float = 0.0
    clamped_l: float = 0.0
    clamped_rho: float = 0.0
    kl_old: float = 0.0
    gap_max: float = 0.0

    def merge(self, other: Diagnostics) -> None:
        """Add another micro-batch's sums."""
        for name in self.__dataclass_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            pick = {"rho_max": max, "gap_max": max, "rho_min": min}.get(name)
            setattr(self, name, pick(mine, theirs) if pick else mine + theirs)

    def summary(self) -> dict[str, float]:
        """Token means; shares for ``clip_fraction_*`` and ``clamp_fraction_*``; nats for ``l_*`` and ``kl_old``.

        ``logp_gap_max`` is the largest ``|logp - old_logp|``: with one optimiser step an iteration, that is what the
        sampler and the trainer disagree by."""
        tokens, taught = max(self.tokens, 1.0), max(self.taught, 1.0)
        return {
            "l_mean": self.l_sum / taught,
            "l_abs": self.l_abs / taught,
            "l_rms": math.sqrt(self.l_square / taught),
            "rho_max": self.rho_max if self.taught else 1.0,
            "rho_min": self.rho_min if self.taught else 1.0,
            "clip_fraction_low": self.clipped_low / tokens,
            "clip_fraction_high": self.clipped_high / tokens,
            "clamp_fraction_l": self.clamped_l / taught,
            "clamp_fraction_rho": self.clamped_rho / taught,
            "kl_old": self.kl_old / tokens,
            "logp_gap_max": self.gap_max,
        }


@torch.no_grad()
def diagnose(
    logp: Tensor,
    old_logp: Tensor,
    teacher_logp: Tensor,
    sampler_logp: Tensor,
    mask: Tensor,
    teacher_mask: Tensor,
    clip_low: float,
    clip_high: float,
) -> Diagnostics:
    """How the losses' ingredients are spread; ``teacher_mask`` is 1 where a teacher took part.

    ``kl_old`` is the k3 estimate of KL(pi_old || pi_theta) on tokens of pi_old.
    """
    chosen, taught = mask.bool(), teacher_mask.bool()
    log_ratio = (logp - old_logp).float()[chosen]
    gap = (logp - teacher_logp).float()[taught]
    log_rho = (logp - sampler_logp).float()[taught]
    rho = log_rho.clamp(max=MAX_LOG_RHO).exp()
    ratio = log_ratio.clamp(max=MAX_LOG_RHO).exp()
    return Diagnostics(
        tokens=float(chosen.sum()),
        taught=float(taught.sum()),
        l_sum=float(gap.sum()),
        l_abs=float(gap.abs().sum()),
        l_square=float(gap.square().sum()),
        rho_max=float(rho.max()) if rho.numel() else -math.inf,
        rho_min=float(rho.min()) if rho.numel() else math.inf,
        clipped_low=float((ratio < 1 - clip_low).sum()),
        clipped_high=float((ratio > 1 + clip_high).sum()),
        clamped_l=float((-gap > MAX_NEG_L).sum()),
        clamped_rho=float((log_rho > MAX_LOG_RHO).sum()),
        kl_old=float((ratio - 1 - log_ratio).sum()),
        gap_max=float(log_ratio.abs().max()) if log_ratio.numel() else 0.0,
    )

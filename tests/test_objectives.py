"""The losses against exact enumeration over a small vocabulary, never against stored outputs."""

import math

import pytest
import torch

from skillsd.objectives import (
    ESTIMATORS,
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

V = 5


def policies(seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher, sampler = (torch.randn(V, generator=generator, dtype=torch.float64) for _ in range(3))
    return student.requires_grad_(), teacher.log_softmax(-1), sampler.log_softmax(-1)


def gradient(value, parameter):
    return torch.autograd.grad(value, parameter)[0]


def expected_gradient(student, teacher, sampler, estimator):
    """E_{y ~ sampler} of the estimator's gradient, by summing over all y."""
    total = torch.zeros(V, dtype=torch.float64)
    for token in range(V):
        logp = student.log_softmax(-1)[token].view(1, 1)
        loss = distillation_loss(
            logp, teacher[token].view(1, 1), sampler[token].view(1, 1), torch.ones(1, 1), estimator
        )
        total += sampler[token].exp() * gradient(loss, student)
    return total


def reverse_kl_gradient(student, teacher):
    logp = student.log_softmax(-1)
    return gradient((logp.exp() * (logp - teacher)).sum(), student)


def forward_kl_gradient(student, teacher):
    return gradient((teacher.exp() * (teacher - student.log_softmax(-1))).sum(), student)


@pytest.mark.parametrize("token", range(V))
def test_gradient_of_iw_k3_is_rho_l_grad_logp(token):
    student, teacher, sampler = policies()
    logp = student.log_softmax(-1)[token]
    loss = distillation_loss(
        logp.view(1, 1), teacher[token].view(1, 1), sampler[token].view(1, 1), torch.ones(1, 1), "iw_k3"
    )
    rho, gap = (logp - sampler[token]).exp().detach(), (logp - teacher[token]).detach()
    torch.testing.assert_close(
        gradient(loss, student), rho * gap * gradient(student.log_softmax(-1)[token], student), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("seed", range(4))
def test_expectation_of_iw_k3_is_reverse_kl_for_any_sampler(seed):
    student, teacher, sampler = policies(seed)
    for behaviour in (sampler, student.log_softmax(-1).detach()):
        found = expected_gradient(student, teacher, behaviour, "iw_k3")
        torch.testing.assert_close(found, reverse_kl_gradient(student, teacher), rtol=1e-4, atol=1e-6)


def test_detached_rho_gives_the_forward_kl_instead():
    student, teacher, sampler = policies()
    for behaviour in (sampler, student.log_softmax(-1).detach()):
        found = expected_gradient(student, teacher, behaviour, "iw_k3_detached")
        torch.testing.assert_close(found, forward_kl_gradient(student, teacher), rtol=1e-4, atol=1e-6)
        assert (found - reverse_kl_gradient(student, teacher)).abs().max() > 1e-2


def test_bare_estimators_have_other_expectations():
    student, teacher, _ = policies()
    own = student.log_softmax(-1).detach()
    reverse = reverse_kl_gradient(student, teacher)
    torch.testing.assert_close(
        expected_gradient(student, teacher, own, "k1"), torch.zeros(V, dtype=torch.float64), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(expected_gradient(student, teacher, own, "k2"), reverse, rtol=1e-4, atol=1e-6)
    assert (expected_gradient(student, teacher, own, "k3") - reverse).abs().max() > 1e-2


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_no_gradient_where_student_and_teacher_agree(estimator):
    logp = torch.full((1, 1), -1.3, requires_grad=True)
    loss = distillation_loss(logp, logp.detach(), logp.detach(), torch.ones(1, 1), estimator)
    expected = 1.0 if estimator == "k1" else 0.0  # k1 does not vanish at l = 0: one more reason not to use it
    assert gradient(loss, logp).item() == pytest.approx(expected, abs=1e-6)


def top_k_loss(student, teacher, k):
    ids = teacher.topk(k).indices
    logp = student.log_softmax(-1)[ids]
    return top_k_distillation_loss(logp.view(1, 1, -1), teacher[ids].view(1, 1, -1), torch.ones(1, 1))


@pytest.mark.parametrize("seed", range(4))
def test_top_k_over_the_whole_vocabulary_is_the_reverse_kl(seed):
    student, teacher, _ = policies(seed)
    logp = student.log_softmax(-1)
    loss = top_k_loss(student, teacher, V)
    assert loss.item() == pytest.approx((logp.exp() * (logp - teacher)).sum().item(), abs=1e-5)
    torch.testing.assert_close(gradient(loss, student), reverse_kl_gradient(student, teacher), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", range(1, V))
def test_top_k_lumps_the_rest_together(k):
    student, teacher, _ = policies(3)
    p, q = student.softmax(-1), teacher.exp()
    top = q.topk(k).indices
    rest = [i for i in range(V) if i not in top.tolist()]
    lumped_p = torch.cat([p[top], p[rest].sum().view(1)])
    lumped_q = torch.cat([q[top], q[rest].sum().view(1)])
    exact = (lumped_p * (lumped_p / lumped_q).log()).sum()
    loss = top_k_loss(student, teacher, k)
    assert loss.item() == pytest.approx(exact.item(), abs=1e-5)
    assert 0 <= loss.item() <= top_k_loss(student, teacher, V).item() + 1e-6
    torch.testing.assert_close(gradient(loss, student), gradient(exact, student), rtol=1e-4, atol=1e-5)


def test_top_k_is_finite_with_a_teacher_that_is_sure_of_one_token():
    logp = torch.tensor([[[0.0, -40.0]]], requires_grad=True)
    loss = top_k_distillation_loss(logp, torch.tensor([[[-50.0, 0.0]]]), torch.ones(1, 1))
    assert loss.isfinite()
    assert gradient(loss, logp).isfinite().all()


def test_token_weights_gate_choose_by_sign_and_keep_the_largest_gaps():
    logp, _, teacher, mask, advantages = batch(4)
    logp = logp.detach()
    plain = token_weights(logp, teacher, mask, advantages)
    assert torch.equal(plain, mask)
    gated = token_weights(logp, teacher, mask, advantages, gate_beta=5.0)
    torch.testing.assert_close(gated, mask * torch.sigmoid(5 * (teacher - logp)))
    positive = token_weights(logp, teacher, mask, advantages, positive_only=True)
    for i, advantage in enumerate(advantages.tolist()):
        assert torch.equal(positive[i], mask[i] if advantage > 0 else torch.zeros_like(mask[i]))
    kept = token_weights(logp, teacher, mask, advantages, token_share=0.25)
    count = round(0.25 * mask.sum().item())
    assert kept.sum() == count
    gap = (logp - teacher).abs()
    assert gap[kept.bool()].min() >= gap[(mask - kept).bool()].max()
    assert token_weights(logp, teacher, torch.zeros_like(mask), advantages, token_share=0.25).sum() == 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_weights_multiply_tokens_and_not_the_mean(estimator):
    logp, old, teacher, mask, _ = batch(5)
    weights = torch.rand(mask.shape, generator=torch.Generator().manual_seed(0))
    whole = distillation_loss(logp, teacher, old, mask, estimator, weights=weights)
    parts = 0.0
    for i, t in mask.nonzero().tolist():
        single = torch.zeros_like(mask)
        single[i, t] = 1
        parts += weights[i, t].item() * distillation_loss(logp, teacher, old, single, estimator).item()
    assert whole.item() == pytest.approx(parts / mask.sum().item(), rel=1e-4, abs=1e-6)


def batch(seed=0, rows=8, width=7):
    generator = torch.Generator().manual_seed(seed)
    logp, old, teacher = (-torch.rand(rows, width, generator=generator) * 3 for _ in range(3))
    mask = (torch.rand(rows, width, generator=generator) < 0.7).float()
    mask[0] = 0
    return logp.requires_grad_(), old, teacher, mask, torch.randn(rows, generator=generator)


def test_grpo_loss_equals_the_formula_written_out():
    logp, old, _, mask, advantages = batch()
    total = 0.0
    for i in range(len(mask)):
        for t in range(mask.shape[1]):
            if mask[i, t]:
                r, a = (logp[i, t] - old[i, t]).exp().item(), advantages[i].item()
                total -= min(r * a, min(max(r, 0.8), 1.28) * a)
    assert grpo_loss(logp, old, advantages, mask).item() == pytest.approx(total / mask.sum().item(), rel=1e-5)


def test_grpo_gradient_equals_finite_differences():
    logp, old, _, mask, advantages = batch()
    exact = gradient(grpo_loss(logp, old, advantages, mask), logp)
    for index in [(1, 0), (2, 3), (5, 5), (7, 1)]:
        step = torch.zeros_like(logp)
        step[index] = 1e-2
        up, down = (grpo_loss(logp.detach() + s, old, advantages, mask).item() for s in (step, -step))
        ratio = (logp[index] - old[index]).exp().item()
        if min(abs(ratio - 0.8), abs(ratio - 1.28)) > 0.05:  # not at a kink
            assert exact[index].item() == pytest.approx((up - down) / 2e-2, abs=2e-3)


@pytest.mark.parametrize("kind", ["grpo", *ESTIMATORS])
def test_micro_batches_add_up(kind):
    logp, old, teacher, mask, advantages = batch()
    tokens = mask.sum().item()

    def loss(index, normalizer=None):
        if kind == "grpo":
            return grpo_loss(logp[index], old[index], advantages[index], mask[index], normalizer=normalizer)
        return distillation_loss(logp[index], teacher[index], old[index], mask[index], kind, normalizer=normalizer)

    whole = loss(slice(None))
    parts = sum(loss(slice(i, i + 1), tokens) for i in range(8))
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(gradient(parts, logp), gradient(whole, logp))


@pytest.mark.parametrize("kind", ["grpo", *ESTIMATORS])
def test_masked_tokens_cannot_touch_loss_or_gradient(kind):
    logp, old, teacher, mask, advantages = batch()
    clean = logp.detach().clone().requires_grad_()
    with torch.no_grad():
        logp[mask == 0] = math.nan
        old[mask == 0] = math.inf
        teacher[mask == 0] = -math.inf

    def loss(x, o, t):
        return grpo_loss(x, o, advantages, mask) if kind == "grpo" else distillation_loss(x, t, o, mask, kind)

    dirty = loss(logp, old, teacher)
    tidy = loss(clean, torch.where(mask == 0, 0.0, old), torch.where(mask == 0, 0.0, teacher))
    torch.testing.assert_close(dirty, tidy)
    found = gradient(dirty, logp)
    assert torch.isfinite(found).all()
    assert (found[mask == 0] == 0).all()


def test_empty_mask_is_zero_with_a_graph():
    logp = torch.zeros(2, 3, requires_grad=True)
    for loss in (
        grpo_loss(logp, logp.detach(), torch.ones(2), torch.zeros(2, 3)),
        distillation_loss(logp, logp.detach(), logp.detach(), torch.zeros(2, 3)),
    ):
        assert loss.item() == 0.0
        assert (gradient(loss, logp) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_overflow_is_guarded_and_counted(dtype):
    logp = torch.tensor([[-300.0, -1.0, -0.5]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-0.1, -1.0, -200.0]], dtype=dtype)
    sampler = torch.tensor([[-300.0, -60.0, -0.5]], dtype=dtype)
    mask = torch.ones(1, 3)
    loss = distillation_loss(logp, teacher, sampler, mask)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient(loss, logp)).all()
    summary = diagnose(logp, sampler, teacher, sampler, mask, mask, 0.2, 0.28).summary()
    assert summary["clamp_fraction_l"] == pytest.approx(1 / 3)
    assert summary["clamp_fraction_rho"] == pytest.approx(1 / 3)


def test_diagnostics_merge_to_the_whole_batch():
    logp, old, teacher, mask, _ = batch()
    taught = mask.clone()
    taught[4:] = 0
    merged = Diagnostics()
    for i in range(8):
        row = slice(i, i + 1)
        merged.merge(diagnose(logp[row], old[row], teacher[row], old[row], mask[row], taught[row], 0.2, 0.28))
    whole = diagnose(logp, old, teacher, old, mask, taught, 0.2, 0.28).summary()
    assert merged.summary() == pytest.approx(whole, rel=1e-5)
    gaps = (logp - teacher)[taught.bool()].detach()
    assert whole["l_rms"] == pytest.approx(gaps.square().mean().sqrt().item(), rel=1e-5)
    ratios = (logp - old).exp()[mask.bool()].detach()
    assert whole["clip_fraction_high"] == pytest.approx((ratios > 1.28).float().mean().item())
    assert whole["kl_old"] == pytest.approx((ratios - 1 - ratios.log()).mean().item(), rel=1e-4)


def test_group_advantages_are_those_by_hand():
    rewards = torch.tensor([0.0, 0.5, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0])
    found = group_advantages(rewards, 4)
    first = rewards[:4]
    torch.testing.assert_close(found[:4], (first - first.mean()) / (first.std() + 1e-8))
    assert (found[4:] == 0).all()
    for wrong in (3, 1, 0):
        with pytest.raises(ValueError, match="groups"):
            group_advantages(rewards, wrong)


@pytest.mark.parametrize(
    "rewards",
    [
        [0.9] * 3,
        [10.1] * 16,
        [0.1 + 0.2, 0.3, 0.3],
        [1e-3 / 3] * 5,
        [-7.7] * 6,
        [1e8 + 8, 1e8, 1e8],
        [0.0] * 4,
        [-0.0, 0.0],
    ],
)
def test_rewards_that_are_equal_but_for_rounding_have_no_advantage(rewards):
    assert (group_advantages(torch.tensor(rewards), len(rewards)) == 0).all()
    assert (group_advantages(torch.tensor(rewards, dtype=torch.float64), len(rewards)) == 0).all()


@pytest.mark.parametrize("rewards", [[1e-7, 2e-7], [100.0, 100.01], [0.0, 1e-20], [-1.0, 1.0, 1.0]])
def test_small_differences_of_rewards_count(rewards):
    found = group_advantages(torch.tensor(rewards), len(rewards), eps=1e-30)
    assert found.min() < -0.5
    assert found.max() > 0.5


def test_opd_advantages_are_minus_the_log_ratio():
    logp, _, teacher, mask, _ = batch()
    found = distillation_advantages(logp, teacher, mask)
    torch.testing.assert_close(found, torch.where(mask.bool(), teacher - logp.detach(), 0.0))
    # On-policy, its policy gradient is the reverse KL's (per token; the constant baseline vanishes).
    student, reference, _ = policies()
    own = student.log_softmax(-1)
    total = sum(
        own[y].exp().detach()
        * gradient(
            grpo_loss(
                student.log_softmax(-1)[y].view(1, 1),
                own[y].detach().view(1, 1),
                distillation_advantages(own[y].view(1, 1), reference[y].view(1, 1), torch.ones(1, 1)),
                torch.ones(1, 1),
            ),
            student,
        )
        for y in range(V)
    )
    torch.testing.assert_close(total, reverse_kl_gradient(student, reference), rtol=1e-4, atol=1e-6)


def test_unknown_estimator_is_named():
    with pytest.raises(ValueError, match=r"k9.*iw_k3"):
        distillation_loss(*(torch.zeros(1, 1),) * 4, "k9")


def test_truncated_importance_makes_a_foreign_samplers_gradient_the_old_policys():
    """Enumerated: E_mu[min(pi_old / mu, cap) d(r A)] is E_pi_old[d(r A)] where the cap does not act, and bounded."""
    torch.manual_seed(3)
    theta = torch.randn(6, dtype=torch.float64, requires_grad=True)
    old = torch.log_softmax(theta.detach(), 0)
    sampler = torch.log_softmax(theta.detach() + 0.1 * torch.randn(6), 0)
    advantages, mask = torch.randn(6), torch.ones(1, 1)

    def expected(measure, weigh, cap=100.0):
        total = torch.zeros(())
        for token in range(6):
            logp = torch.log_softmax(theta, 0)[token].view(1, 1)
            weights = (
                truncated_importance(old[token].view(1, 1), sampler[token].view(1, 1), mask, cap) if weigh else None
            )
            loss = grpo_loss(logp, old[token].view(1, 1), advantages[token : token + 1], mask, weights=weights)
            total = total + measure[token].exp() * loss
        return torch.autograd.grad(total, theta)[0]

    exact = expected(old, weigh=False)
    torch.testing.assert_close(expected(sampler, weigh=True), exact, atol=1e-6, rtol=1e-5)
    assert (expected(sampler, weigh=False) - exact).abs().max() > 1e-3
    capped = truncated_importance(torch.zeros(1, 3), torch.tensor([[-5.0, 1.0, -9.0]]), torch.tensor([[1, 1, 0]]), 2.0)
    torch.testing.assert_close(capped, torch.tensor([[2.0, math.exp(-1), 1.0]]))

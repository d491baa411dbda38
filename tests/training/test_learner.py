"""The update, against gradients made the long way, on a small random model."""

import pytest
import torch

from settings_lab import ScorerAndLearner
from skillsd import load_config
from skillsd.policy.loading import load_policy
from skillsd.training.scoring import Row, assign_advantages, imitate
from skillsd.training.teacher import Teacher
from skillsd.types import Trajectory


def a_batch():
    """Two groups of two; the second group's task has no skill, and its rewards do not differ."""
    generator = torch.Generator().manual_seed(1)

    def ids(count):
        return torch.randint(5, 90, (count,), generator=generator).tolist()

    rows = []
    for task, sample, reward in (("a", 0, 1.0), ("a", 1, 0.0), ("b", 0, 0.5), ("b", 1, 0.5)):
        completion = ids(6 + sample)
        mask = [1, 1, 0, 1, 1, 0, 1][: len(completion)]
        logps = [-3.0 - 0.1 * i for i in range(len(completion))]
        trajectory = Trajectory(task, 1, sample, "", ids(4), completion, mask, logps, reward=reward)
        rows.append(Row(trajectory, trajectory.prompt_ids, ids(9) if task == "a" else None))
    assign_advantages(rows, 1e-8)
    return rows


def learner_on(folder, *overrides):
    settings = [
        "loss.distill_weight=0", "loss.estimator=top_k", "loss.top_k=1000", "optim.max_grad_norm=1e9",
        "loss.clip_low=0.999", "loss.clip_high=1e9",
    ]  # fmt: skip
    config = load_config("sokoban", [f"model.path={folder}", *settings, *overrides])
    policy = load_policy(config.model)
    return ScorerAndLearner(policy.model, config)


def gradient(learner, rows):
    """What one update hands to the optimiser."""
    seen = []
    learner.optimizer.step = lambda: seen.extend(p.grad.clone() for p in learner.parameters)
    metrics = learner.update(rows, learner.score(rows, Teacher("dynamic", learner.model)), 1)
    return seen, metrics


def logits(model, view):
    """[action tokens, vocabulary] of one view, as log-probs, and the tokens: a plain forward."""
    ids = torch.tensor([view.prompt_ids + view.completion_ids])
    places = [len(view.prompt_ids) + i for i, action in enumerate(view.action_mask) if action]
    return model(ids).logits[0, [p - 1 for p in places]].log_softmax(-1), ids[0, places]


def extra_gradient(folder, rows, *overrides, move=0.0):
    """The gradient that ``overrides`` add, the learner whose it is, and its metrics."""
    plain, special = learner_on(folder), learner_on(folder, *overrides)
    for learner in (plain, special):
        noise = torch.Generator().manual_seed(2)
        for parameter in learner.parameters:
            parameter.data += move * torch.randn(parameter.shape, generator=noise)
    without, _ = gradient(plain, rows)
    with_it, metrics = gradient(special, rows)
    return [a - b for a, b in zip(with_it, without, strict=True)], special, metrics


def test_top_k_over_the_vocabulary_adds_the_exact_kl_from_student_to_teacher(llama_folder):
    rows = a_batch()
    found, learner, metrics = extra_gradient(llama_folder, rows, "loss.distill_weight=0.7", move=0.02)
    tokens = sum(row.trajectory.action_tokens for row in rows)
    total = torch.zeros(())
    for row in rows[:2]:
        student, teacher = logits(learner.model, row.student())[0], logits(learner.model, row.teacher())[0].detach()
        total = total + (student.exp() * (student - teacher)).sum() / tokens
    assert metrics["loss_distill"] == pytest.approx(float(total.detach()), rel=1e-3)
    assert metrics["loss_distill"] > 0.001
    expected = torch.autograd.grad(0.7 * total, learner.parameters)
    assert max(float(g.abs().max()) for g in expected) > 1e-4
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-2)


def test_favours_is_the_mean_gap_over_taught_tokens(llama_folder):
    rows, learner = a_batch(), learner_on(llama_folder)
    scores = learner.score(rows, Teacher("dynamic", learner.model))
    found = scores.favours([0, 1, 2])
    for row, value in zip(rows[:2], found, strict=False):
        logps, targets = logits(learner.model, row.teacher())
        mine = logps.gather(1, targets.unsqueeze(1)).mean().item()
        trajectory = row.trajectory
        sampled = [p for p, m in zip(trajectory.logps, trajectory.action_mask, strict=True) if m]
        assert value == pytest.approx(mine - sum(sampled) / len(sampled), rel=1e-4)
    assert found[2] == 0.0


def test_imitation_is_the_gradient_of_the_best_successs_likelihood(llama_folder):
    """Against a plain forward pass: as a share of the token mean, and of no other row."""
    model, found = learner_on(llama_folder, "method=grpo").model, []
    for weight in (0.0, 0.5):
        rows = a_batch()
        for row in rows:
            row.teacher_prompt_ids = None
            logps, targets = logits(model, row.student())
            mine = iter(logps.gather(1, targets.unsqueeze(1))[:, 0].tolist())
            trajectory = row.trajectory
            trajectory.logps = [next(mine) if action else 0.0 for action in trajectory.action_mask]
            trajectory.success = trajectory.sample == 0 or trajectory.task_id == "b"
        rows[3].trajectory.reward = 0.6  # better than the other success
        imitate(rows, weight)
        found.append(gradient(learner_on(llama_folder, "method=grpo"), rows)[0])
    total, tokens = torch.zeros(()), sum(row.trajectory.action_tokens for row in rows)
    for row in (rows[0], rows[3]):
        logps, targets = logits(model, row.student())
        total = total - 0.5 * logps.gather(1, targets.unsqueeze(1)).sum() / tokens
    for without, with_it, expected in zip(*found, torch.autograd.grad(total, list(model.parameters())), strict=True):
        torch.testing.assert_close(with_it - without, expected, atol=1e-5, rtol=1e-2)

"""Settings of the model and of the update, each tried on one small random model (see test_settings_have_effect.py)."""

import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from models_lab import save_model
from settings_lab import SKILL, flat, gradient, learner, request, rows, settings, trainer, updated
from skillsd import SkillSDError
from skillsd.config import ModelConfig
from skillsd.policy.engines.base import Request
from skillsd.policy.engines.transformers import TransformersEngine
from skillsd.policy.loading import Policy, load_policy
from skillsd.policy.packing import TokenRow
from skillsd.policy.scoring import ends_with_its_head, score_tokens
from skillsd.rollouts.playing import evaluate_model
from skillsd.skills.summarize import make_summarizer
from skillsd.training.hints import Hint
from skillsd.training.scoring import assign_advantages
from skillsd.training.teacher import Teacher

OPEN = ["loss.clip_low=0.999", "loss.clip_high=1e9", "loss.distill_weight=0"]


def moved(model, by=0.3):
    noise = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += by * torch.randn(parameter.shape, generator=noise)
    return model


def logps(model):
    with torch.no_grad():
        return score_tokens(model, [row.student() for row in rows()]).logps


# -- model ---------------------------------------------------------------------------------------------------


def the_model_is_the_one_in_its_folder(folder, tmp_path, monkeypatch):
    other = save_model(tmp_path / "other")
    moved(load_policy(ModelConfig(path=str(folder))).model).save_pretrained(other)
    found = [logps(load_policy(ModelConfig(path=str(path))).model) for path in (folder, other)]
    assert (found[0] - found[1]).abs().max() > 0.01


@contextmanager
def kept_for_backward(model):
    """Bytes that a forward pass inside keeps, the weights apart; the most of any one pass."""
    found, own, start = [0], {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            start[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        found[0] = max(found[0], sum(start.values()))
        return tensor

    hook = model.register_forward_pre_hook(lambda *_: start.clear())
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield found
    finally:
        hook.remove()


def bfloat16_computes_everywhere_and_keeps_less(folder, tmp_path, monkeypatch):
    kinds, sizes = {}, {}
    for dtype in ("float32", "bfloat16"):
        made = learner(
            folder, f"model.dtype={dtype}", "summarizer.answer_tokens=16", "summarizer.conversation_chars=400"
        )
        ends_with_its_head(made.model)
        seen = kinds[dtype] = {}
        layer = made.model.model.layers[0].mlp.up_proj
        part = ["score"]
        layer.register_forward_hook(lambda m, given, out, p=part, s=seen: s.setdefault(p[0], set()).add(out.dtype))
        batch = rows(4, 100)
        scores = made.score(batch, Teacher("dynamic", made.model))
        part[0] = "update"
        with kept_for_backward(made.model) as kept:
            made.update(batch, scores, 1)
        policy = load_policy(made.config.model)
        sizes[dtype] = kept[0], sum(p.numel() * p.element_size() for p in policy.model.parameters())
        mine = Policy(made.model, policy.tokenizer, policy.chat)
        part[0] = "summarise"
        make_summarizer("policy", made.config, policy=mine).summarize_all([request()])
        part[0] = "evaluate"
        with trainer(settings(folder), tmp_path / dtype) as other:
            evaluate_model(made.model, mine.chat, other.taskset, made.config, "test", limit=1)
        assert {p.dtype for p in made.parameters} == {torch.float32}
    for dtype, seen in kinds.items():
        assert seen == {part: {getattr(torch, dtype)} for part in ("score", "update", "summarise", "evaluate")}
    assert sizes["bfloat16"][0] < 0.8 * sizes["float32"][0]
    assert sizes["bfloat16"][1] == sizes["float32"][1] / 2


def an_update_keeps_less_for_the_backward_pass(folder, tmp_path, monkeypatch):
    found = []
    for on in ("false", "true"):
        made, batch = learner(folder, f"model.gradient_checkpointing={on}"), rows(4, 60)
        ends_with_its_head(made.model)
        scores = made.score(batch, Teacher("dynamic", made.model))
        with kept_for_backward(made.model) as kept:
            metrics = made.update(batch, scores, 1)
        found.append((kept[0], metrics["grad_norm"]))
    assert found[1][0] < 0.6 * found[0][0]
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-4)


def adapters_have_their_rank_scale_and_places(folder, tmp_path, monkeypatch):
    def adapted(**more):
        torch.manual_seed(0)
        return load_policy(ModelConfig(path=str(folder), lora_rank=2, **more), train=True).model

    def weight_of(model):
        torch.manual_seed(1)
        layer = model.model.layers[0].self_attn.q_proj
        layer.lora_B["default"].weight.data.normal_()
        return layer.get_delta_weight("default")

    one, two = weight_of(adapted(lora_alpha=2.0)), weight_of(adapted(lora_alpha=6.0))
    torch.testing.assert_close(two, 3 * one)
    assert one.abs().max() > 0
    sizes = []
    for rank in (2, 4):
        model = load_policy(ModelConfig(path=str(folder), lora_rank=rank), train=True).model
        sizes.append(sum(p.numel() for p in model.parameters() if p.requires_grad))
    assert sizes[1] == 2 * sizes[0]
    named = {n for n, p in adapted(lora_targets=["v_proj"]).named_parameters() if p.requires_grad}
    assert named
    assert all(".v_proj." in name for name in named)


# -- rollout and teacher -------------------------------------------------------------------------------------


def temperature_shapes_sampling_and_scoring_alike(folder, tmp_path, monkeypatch):
    policy = load_policy(ModelConfig(path=str(folder)))
    prompt, entropies = policy.chat.prompt("Which way?"), []
    for temperature in (0.5, 2.0):
        engine = TransformersEngine(policy.model, policy.chat, temperature=temperature, max_new_tokens=4)
        said = engine.generate([Request(i, prompt, np.random.default_rng(i)) for i in range(8)])
        entropies.append(sum(s.entropy for s in said) / sum(len(s.ids) for s in said))
        made = learner(folder, f"rollout.temperature={temperature}", "loss.estimator=top_k")
        again = [TokenRow(prompt, s.ids, [1] * len(s.ids)) for s in said]
        scored = [made.logps(made.model, again, 4), made.top(made.model, again, 4)[0]]
        for i, one in enumerate(said):
            for found in scored:
                assert found[i, : len(one.ids)].tolist() == pytest.approx(one.logps, abs=1e-4)
    assert entropies[1] > entropies[0] + 0.5


def teachers_have_their_weights(folder, tmp_path, monkeypatch):
    found = {}
    for name, given in (
        ("method", []), ("frozen", ["teacher.weights=frozen"]),
        ("slow", ["teacher.weights=ema", "teacher.ema_decay=0.9"]),
        ("quick", ["teacher.weights=ema", "teacher.ema_decay=0.5"]),
    ):  # fmt: skip
        with trainer(settings(folder, *given), tmp_path / name) as made:
            first = flat(made.model.parameters()).clone()
            moved(made.model)
            made.teacher.synchronize()
            with made.teacher.active() as model:
                way = flat(made.model.parameters()) - first
                found[name] = float(((flat(model.parameters()) - first) @ way) / (way @ way))
    assert found == pytest.approx({"method": 1.0, "frozen": 0.0, "slow": 0.1, "quick": 0.5}, abs=1e-3)


def a_longer_view_is_an_error(folder, tmp_path, monkeypatch):
    for most, fits in ((2000, True), (20, False)):
        with trainer(settings(folder, f"teacher.max_prompt_tokens={most}"), tmp_path / str(most)) as made:
            played = request().trajectory
            if fits:
                assert 20 < len(made.views.row(played, Hint(SKILL, 1)).teacher_prompt_ids) <= most
            else:
                with pytest.raises(SkillSDError, match=r"teacher\.max_prompt_tokens = 20"):
                    made.views.row(played, Hint(SKILL, 1))


# -- loss ----------------------------------------------------------------------------------------------------


def ratios_are_clipped_where_told(folder, tmp_path, monkeypatch):
    """Rows whose ratios lie on one side of 1 alone, with the advantage for which that side is clipped."""
    for side, setting, wide in ((-1.0, "loss.clip_low", "0.999"), (1.0, "loss.clip_high", "1e9")):
        made = learner(folder)
        batch = rows(2)
        old = made.logps(made.model, [row.student() for row in batch], 20)
        for row, values in zip(batch, old.tolist(), strict=True):
            actions = iter(values)
            row.trajectory.logps = [next(actions) - side * 0.5 if a else 0.0 for a in row.trajectory.action_mask]
            row.advantage = side
        free = gradient(folder, "loss.distill_weight=0", f"{setting}={wide}", batch=batch)
        cut = gradient(folder, "loss.distill_weight=0", f"{setting}=0.1", batch=batch)
        assert free.abs().max() > 1e-4
        assert cut.abs().max() == 0.0


def the_gradient_is_linear_in_lambda(folder, tmp_path, monkeypatch):
    none, one, three = (gradient(folder, f"loss.distill_weight={weight}") for weight in (0, 0.1, 0.3))
    torch.testing.assert_close(three - none, 3 * (one - none), atol=1e-5, rtol=1e-3)
    assert (one - none).abs().max() > 1e-4


def lambda_follows_its_schedule_in_the_update(folder, tmp_path, monkeypatch):
    for setting, wanted in (("distill_warmup=4", [0.025, 0.05, 0.1]), ("distill_until=4", [0.075, 0.05, 0.0])):
        made = learner(folder, "loss.distill_weight=0.1", f"loss.{setting}")
        found = [updated(made, rows(2), iteration)[1]["distill_weight"] for iteration in (1, 2, 4)]
        assert found == pytest.approx(wanted)


def every_estimator_has_a_gradient_of_its_own(folder, tmp_path, monkeypatch):
    names = ("iw_k3", "iw_k3_detached", "k1", "k2", "k3", "top_k")
    found = [gradient(folder, "method=opsd", "loss.distill_weight=1", f"loss.estimator={name}") for name in names]
    for i, one in enumerate(found):
        assert one.abs().max() > 1e-4
        assert all((one - other).abs().max() > 1e-4 for other in found[:i])


def so_many_tokens_are_compared_and_the_vocabulary_at_most(folder, tmp_path, monkeypatch):
    shown = {}
    for k in (3, 10**6):
        made = learner(folder, "loss.estimator=top_k", f"loss.top_k={k}")
        shown[k] = updated(made, rows(2))[0].top_ids.shape[-1]
    assert shown == {3: 3, 10**6: made.model.config.vocab_size}


def tokens_count_as_told_in_a_loss_and_in_an_advantage(folder, tmp_path, monkeypatch):
    """Also where distillation is an advantage (opd), not a loss."""
    batch = rows()
    for method in ("skill_sd", "opd"):
        given = [f"method={method}", "loss.distill_weight=0.5"]
        plain, _, steps = updated(learner(folder, *given, "optim.max_grad_norm=1e9"), batch)
        before = flat(steps[0])
        for setting in ("gate_beta=5", "token_share=0.25", "positive_only=true"):
            scores, _, steps = updated(learner(folder, *given, f"loss.{setting}", "optim.max_grad_norm=1e9"), batch)
            gap = (scores.teacher - scores.old)[scores.teacher_mask.bool()]
            weights = scores.weights[scores.teacher_mask.bool()]
            if setting.startswith("gate"):
                torch.testing.assert_close(weights, torch.sigmoid(5 * gap))
            elif setting.startswith("token"):
                assert int((weights > 0).sum()) == round(0.25 * len(gap))
                assert gap.abs()[weights > 0].min() >= gap.abs()[weights == 0].max()
            else:
                assert [bool(row.any()) for row in scores.weights] == [row.advantage > 0 for row in batch]
            assert (flat(steps[0]) - before).abs().max() > 1e-5, (method, setting)
        assert plain.weights.equal(plain.teacher_mask)


def advantages_are_damped_by_eps(folder, tmp_path, monkeypatch):
    batch, found = rows(2), []
    for eps in ("1e-8", "1"):
        with trainer(settings(folder, f"loss.advantage_eps={eps}"), tmp_path / eps) as made:
            monkeypatch.setattr("skillsd.training.trainer.assign_advantages", lambda rows, eps: found.append(eps) or {})
            made.scorer.score = lambda *_: 1 / 0
            with pytest.raises(ZeroDivisionError):
                made.step()
    assert found == [1e-8, 1.0]
    assign_advantages(batch, 1.0)
    deviation = math.sqrt(0.5)
    assert batch[1].advantage == pytest.approx(0.5 / (deviation + 1.0))


def importance_is_capped(folder, tmp_path, monkeypatch):
    batch, found = rows(), {}
    for row in batch:
        row.trajectory.logps = [-30.0 * action for action in row.trajectory.action_mask]
    for cap in (2.0, 5.0):
        made = learner(folder, "trainer.asynchronous=true", f"loss.tis_cap={cap}")
        found[cap] = float(made.score(batch, Teacher("dynamic", made.model)).importance.max())
    assert found == pytest.approx({2.0: 2.0, 5.0: 5.0})
    assert learner(folder).score(batch, Teacher("dynamic", made.model)).importance is None


# -- optim and trainer ---------------------------------------------------------------------------------------


def step_of(made, *arguments):
    before = flat(made.parameters).detach().clone()
    result = updated(made, *arguments)
    return before, flat(made.parameters).detach() - before, result


def the_first_step_is_as_long_as_the_rate_says(folder, tmp_path, monkeypatch):
    for rate in (1e-3, 1e-4):
        _, change, (_, metrics, steps) = step_of(learner(folder, f"optim.lr={rate}"))
        seen = flat(steps[0]).abs() > 1e-5  # elsewhere Adam's epsilon counts
        assert metrics["lr"] == rate
        assert change.abs()[seen].tolist() == pytest.approx([rate] * int(seen.sum()), rel=0.01)


def every_trained_weight_decays(folder, tmp_path, monkeypatch):
    """Norms and embeddings too, as torch's AdamW has it; here in a batch that has no gradient."""
    flat_rewards = rows(taught=False)
    for row in flat_rewards:
        row.advantage = 0.0
    for decay in (0.0, 0.5):
        before, change, _ = step_of(learner(folder, "optim.lr=0.1", f"optim.weight_decay={decay}"), flat_rewards)
        torch.testing.assert_close(change, -0.1 * decay * before)


def moments_follow_their_betas(folder, tmp_path, monkeypatch):
    for one, two in ((0.9, 0.999), (0.5, 0.9)):
        made = learner(folder, f"optim.beta1={one}", f"optim.beta2={two}")
        _, _, steps = updated(made)
        state = [made.adamw.state[p] for p in made.parameters]
        torch.testing.assert_close(flat([s["exp_avg"] for s in state]), (1 - one) * flat(steps[0]))
        torch.testing.assert_close(flat([s["exp_avg_sq"] for s in state]), (1 - two) * flat(steps[0]) ** 2)


def gradients_are_clipped_to_their_norm(folder, tmp_path, monkeypatch):
    _, metrics, steps = updated(learner(folder, "optim.max_grad_norm=1e9"))
    assert float(flat(steps[0]).norm()) == pytest.approx(metrics["grad_norm"], rel=1e-4)
    for most in (metrics["grad_norm"] / 2, metrics["grad_norm"] / 8):
        _, clipped, steps = updated(learner(folder, f"optim.max_grad_norm={most}"))
        assert float(flat(steps[0]).norm()) == pytest.approx(most, rel=1e-3)
        assert clipped["grad_norm"] == pytest.approx(metrics["grad_norm"], rel=1e-4)


def the_rate_follows_its_schedule_in_the_update(folder, tmp_path, monkeypatch):
    for setting, wanted in (("warmup_iterations=4", [0.25, 0.5, 1.0]), ("schedule=linear", [1.0, 0.75, 0.25])):
        made = learner(folder, "optim.lr=1e-3", f"optim.{setting}", "trainer.iterations=4")
        found = [updated(made, rows(2), iteration)[1]["lr"] / 1e-3 for iteration in (1, 2, 4)]
        assert found == pytest.approx(wanted)


def so_many_steps_are_taken_of_nearly_equal_parts(folder, tmp_path, monkeypatch):
    batch = rows(8)[:7]
    for asked, wanted in ((1, 1), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (99, 7)):
        made = learner(folder, f"optim.minibatches={asked}")
        taken, step = [], made._step
        made._step = lambda rows, scores, chunk, *more, step=step, taken=taken: (
            taken.append(chunk) or step(rows, scores, chunk, *more)
        )
        assert len(updated(made, batch)[2]) == len(taken) == wanted
        assert sorted(i for chunk in taken for i in chunk) == list(range(7))
        assert max(map(len, taken)) - min(map(len, taken)) <= 1


def no_forward_pass_has_more_padded_tokens(folder, tmp_path, monkeypatch):
    """As the model sees it: in the check of the sampler, the scores, the update, and summaries."""
    policy, peaks = load_policy(ModelConfig(path=str(folder))), {}
    most = max(len(row.teacher().prompt_ids + row.teacher().completion_ids) for row in rows())
    for budget in (3 * most, 10**6):
        made = learner(
            folder, f"optim.max_tokens_per_device={budget}", "loss.estimator=top_k",
            "summarizer.answer_tokens=16", "summarizer.conversation_chars=400",
        )  # fmt: skip
        ends_with_its_head(made.model)
        seen, batch = [], rows()
        made.model.register_forward_pre_hook(
            lambda m, a, given, s=seen: s.append(given["input_ids"].numel()), with_kwargs=True
        )
        scores = made.score(batch, Teacher("dynamic", made.model))
        made.update(batch, scores, 1)
        made.logps(made.model, [row.student() for row in batch], 20)
        peaks[budget] = max(seen)
        assert sum(seen) >= 3 * sum(len(row.trajectory.ids) for row in batch)
    assert 2 * most < peaks[3 * most] <= 3 * most
    assert peaks[10**6] > 3 * most
    longest = {}
    for budget in (10**6, 1200):
        config = settings(
            folder, f"optim.max_tokens_per_device={budget}", "summarizer.answer_tokens=16",
            "summarizer.conversation_chars=400",
        )  # fmt: skip
        summarizer, asked = make_summarizer("policy", config, policy=policy), []
        monkeypatch.setattr(TransformersEngine, "generate", lambda self, requests, a=asked: a.append(requests) or [])
        with pytest.raises(ValueError, match="zip"):
            summarizer.summarize_all([request(f"t{i}") for i in range(6)])
        longest[budget] = (max(len(r.ids) for r in asked[0]) + 16) * len(asked[0])
        monkeypatch.undo()
    assert longest[1200] < longest[10**6]
    assert longest[1200] <= max(1200, longest[10**6] // 6)


def gradients_are_told_apart_when_due(folder, tmp_path, monkeypatch):
    for every, wanted in ((0, [False, False, False]), (1, [True, True, True]), (2, [False, True, False])):
        made = learner(folder, "loss.distill_weight=0.1", f"trainer.grad_norms_every={every}")
        found = ["grad_cosine" in updated(made, rows(2), iteration)[1] for iteration in (1, 2, 3)]
        assert found == wanted

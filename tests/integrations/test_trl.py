"""TRL's GRPOTrainer with our loss in it, against our own learner on the same batch."""

import pytest
import torch

from settings_lab import ScorerAndLearner
from skillsd import UsageError, load_config
from skillsd.policy.chat import ChatFormat
from skillsd.policy.loading import load_policy
from skillsd.skills import Skill, SkillBank
from skillsd.skills.teacher_view import skill_view
from skillsd.training.scoring import Row
from skillsd.training.teacher import Teacher
from skillsd.types import Trajectory

pytest.importorskip("trl", reason="the extra trl is not installed")
pytest.importorskip("datasets", reason="the extra trl is not installed")

SKILL = Skill(success_analysis="Count on.", mistake_analysis="Do not stop.", golden_workflow="1 2 3")
PROMPTS = ["count up to three", "please: 1 2 3"]


def trainer_on(folder, tmp_path, skills, policy=None, **options):
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig

    from skillsd.integrations.trl import SkillSDTrainer

    settings = {
        "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 7, "loss_type": "dapo",
        "epsilon": 0.2, "epsilon_high": 0.28, "beta": 0.0, "report_to": "none", "use_cpu": True, "max_steps": 2,
        "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no", "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True, "mask_truncated_completions": False,
    }  # fmt: skip
    settings |= {name: options.pop(name) for name in list(options) if name in settings}
    rows = [{"prompt": [{"role": "user", "content": p}], "task_id": str(i)} for i, p in enumerate(PROMPTS)] * 4
    return SkillSDTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(folder),
        reward_funcs=lambda completions, **_: [float(len(str(c)) % 5) for c in completions],
        args=GRPOConfig(str(tmp_path / "trl"), **settings),
        train_dataset=Dataset.from_list(rows),
        skills=skills,
        **options,
    )


def only_first(prompt):
    return SKILL if prompt[-1]["content"] == PROMPTS[0] else None


@pytest.mark.parametrize("teacher", ["dynamic", "frozen"])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_its_gradient_is_our_learners(llama_folder, tmp_path, teacher, weight):
    trainer = trainer_on(llama_folder, tmp_path, only_first, distill_weight=weight, teacher=teacher)
    config = load_config("sokoban", [
        f"model.path={llama_folder}", f"loss.distill_weight={weight}", "optim.max_grad_norm=1e9",
        f"method={'skill_sd' if teacher == 'dynamic' else 'skill_sd_frozen'}",
    ])  # fmt: skip
    policy = load_policy(config.model)
    ours = Teacher(config.spec.teacher, policy.model)  # before the weights move, as the trainer's
    noise = torch.Generator().manual_seed(3)
    for a, b in zip(policy.model.parameters(), trainer.model.parameters(), strict=True):
        move = 0.05 * torch.randn(a.shape, generator=noise)
        a.data += move
        b.data += move

    chat = ChatFormat(policy.tokenizer)
    generator = torch.Generator().manual_seed(1)
    advantages = [0.9, -0.4, 1.2, -1.1]
    rows, padded, mask, old = [], torch.zeros(4, 7, dtype=torch.long), torch.zeros(4, 7), torch.zeros(4, 7)
    for i, length in enumerate((7, 5, 6, 3)):
        ids = torch.randint(5, 250, (length,), generator=generator).tolist()
        padded[i, :length], mask[i, :length] = torch.tensor(ids), 1
        prompt = PROMPTS[i // 2]
        view = chat.prompt(skill_view(SKILL, prompt)) if i < 2 else None
        plain = chat.prompt(prompt)
        with torch.no_grad():
            logits = policy.model(torch.tensor([plain + ids])).logits[0, len(plain) - 1 : -1].log_softmax(-1)
        exact = logits.gather(1, torch.tensor(ids).unsqueeze(1)).squeeze(1)
        old[i, :length] = exact + 0.4 * torch.randn(length, generator=generator)  # so that clips and rho matter
        trajectory = Trajectory(prompt, 1, i, prompt, plain, ids, [1] * length, old[i, :length].tolist())
        rows.append(Row(trajectory, plain, view, advantages[i]))
    learner = ScorerAndLearner(policy.model, config)
    expected = []
    learner.optimizer.step = lambda: expected.extend(p.grad.clone() for p in learner.parameters)
    learner.update(rows, learner.score(rows, ours), 1)

    width = max(len(row.student_prompt_ids) for row in rows)
    prompt_ids, prompt_mask = torch.zeros(4, width, dtype=torch.long), torch.zeros(4, width, dtype=torch.long)
    for i, row in enumerate(rows):
        n = len(row.student_prompt_ids)
        prompt_ids[i, -n:], prompt_mask[i, -n:] = torch.tensor(row.student_prompt_ids), 1
    inputs = {
        "prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "completion_ids": padded, "completion_mask": mask.long(),
        "advantages": torch.tensor(advantages), "num_items_in_batch": mask.sum(), "old_per_token_logps": old,
    }  # fmt: skip
    examples = [{"prompt": [{"role": "user", "content": PROMPTS[i // 2]}]} for i in range(4)]
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs |= trainer._score_by_teacher(examples, inputs)
    trainer.compute_loss(trainer.model, inputs).backward()
    found = [p.grad for p in trainer.model.parameters()]
    assert max(float(g.abs().max()) for g in expected) > 1e-2
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_it_trains_with_a_bank(llama_folder, tmp_path):
    bank = SkillBank(tmp_path / "skills.sqlite")
    bank.add("0", SKILL, 1.0)
    trainer = trainer_on(llama_folder, tmp_path, bank, distill_weight=0.1)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    logged = [entry for entry in trainer.state.log_history if "skillsd/taught" in entry]
    assert logged
    assert all(entry["skillsd/l_rms"] > 0 for entry in logged if entry["skillsd/taught"])
    assert bank.stats().retrievals == sum(entry["skillsd/taught"] > 0 for entry in logged) > 0


@pytest.mark.parametrize(
    "options", [{"teacher": "other"}, {"distill_weight": -1.0}, {"distill_weight": float("nan")}, {"loss_type": "grpo"}]
)
def test_what_does_not_fit_is_refused(llama_folder, tmp_path, options):
    with pytest.raises(UsageError):
        trainer_on(llama_folder, tmp_path, only_first, **options)

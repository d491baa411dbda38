"""The first batch of a run shows whether what samples is what is trained; and no view outgrows the model."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from architectures import CONFIGS
from models_lab import byte_tokenizer
from skillsd import SkillSDError, load_config, train
from skillsd.policy.engines.transformers import TransformersEngine

SMALL = [
    "trainer.iterations=1", "eval.tasks=1", "eval.panel_every=0", "rollout.tasks_per_iteration=2",
    "rollout.max_new_tokens=4", "rollout.max_turns=2",
]  # fmt: skip


@pytest.mark.parametrize("method", ["grpo", "teacher_frozen"])
def test_a_sampler_that_notes_other_log_probs_stops_the_run(method, tmp_path, monkeypatch):
    sample = TransformersEngine._sample

    def shifted(self, *arguments):
        tokens, logps, entropies = sample(self, *arguments)
        return tokens, logps - 0.5, entropies

    monkeypatch.setattr(TransformersEngine, "_sample", shifted)
    with pytest.raises(SkillSDError, match=r"differ by 0\.5 nats") as error:
        train(load_config("sokoban-smoke", [f"method={method}", *SMALL]), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_an_honest_sampler_passes(tmp_path):
    assert train(load_config("sokoban-smoke", SMALL), tmp_path / "run").iterations == 1


def test_an_episode_that_outgrows_the_model_behind_its_skill_has_no_teacher(tmp_path, monkeypatch):
    monkeypatch.setattr("skillsd.training.views.position_limit", lambda model: 120)
    told = []
    result = train(
        load_config("sokoban-smoke", [*SMALL, "trainer.iterations=3", "rollout.tasks_per_iteration=96"]),
        tmp_path / "run",
        listen=lambda kind, data: told.append(data.get("text", "")) if kind == "warning" else None,
    )
    assert result.iterations == 3
    assert sum("120 positions and has no teacher" in text for text in told) == 1


def test_what_an_architecture_means_for_the_run_is_said_before_it(tmp_path):
    torch.manual_seed(0)
    config = CONFIGS["gpt2"]()
    config.n_positions = 512
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt2")
    byte_tokenizer().save_pretrained(tmp_path / "gpt2")
    told = []
    settings = [*SMALL, f"model.path={tmp_path / 'gpt2'}", "env.options.variant=one_box", "method=grpo"]
    train(
        load_config("sokoban-smoke", settings), tmp_path / "run",
        listen=lambda kind, data: told.append(data.get("text", "")) if kind == "warning" else None,
    )  # fmt: skip
    assert "the model takes 512 tokens" in told[0]

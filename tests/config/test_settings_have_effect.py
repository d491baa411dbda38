"""Every setting does what it says: a table from each setting to the place that shows its effect.

A place is a check in ``settings_checks_*.py``, which tries two values or more on the smallest unit that reads the
setting, or the name of a test that does so already. A setting that is missing from the table fails.
"""

import re
from pathlib import Path

import pytest
import settings_checks_learning as learning
import settings_checks_rollouts as rollouts
import settings_checks_skills as skills

from models_lab import save_model
from settings_lab import settings, trainer
from skillsd import UsageError, load_config, train
from skillsd.config import Config
from skillsd.config.idle import idle, refuse_idle, without_idle

PLACES = {
    "method": "tests/training/test_trainer.py::test_every_method_runs_and_learns_from_what_it_should",
    "seed": rollouts.the_seed_reaches_every_generator,
    "env.name": "tests/envs/test_registry.py::test_a_module_of_ones_own_makes_its_task_set_with_the_options",
    "env.options": "tests/envs/test_sokoban.py::test_task_sets_are_made_by_name_and_mistakes_are_told",
    "env.train_split": rollouts.splits_and_their_tasks,
    "env.test_split": rollouts.splits_and_their_tasks,
    "env.train_tasks": rollouts.splits_and_their_tasks,
    "env.turn_timeout": rollouts.a_slow_call_of_any_kind_costs_its_episode,
    "env.episode_timeout": rollouts.an_episode_ends_in_time_whatever_is_slow,
    "model.path": learning.the_model_is_the_one_in_its_folder,
    "model.dtype": learning.bfloat16_computes_everywhere_and_keeps_less,
    "model.device": "tests/config/test_overrides.py::test_a_device_that_cannot_compute_is_bad_usage",
    "model.gradient_checkpointing": learning.an_update_keeps_less_for_the_backward_pass,
    "model.chat_template": "tests/policy/test_lora.py::test_a_model_without_a_chat_template_takes_the_given_one",
    "model.lora_rank": learning.adapters_have_their_rank_scale_and_places,
    "model.lora_alpha": learning.adapters_have_their_rank_scale_and_places,
    "model.lora_targets": learning.adapters_have_their_rank_scale_and_places,
    "rollout.tasks_per_iteration": rollouts.an_iteration_has_its_tasks_and_groups,
    "rollout.group_size": rollouts.an_iteration_has_its_tasks_and_groups,
    "rollout.temperature": learning.temperature_shapes_sampling_and_scoring_alike,
    "rollout.max_new_tokens": rollouts.turns_and_episodes_end_at_their_tokens,
    "rollout.max_tokens": rollouts.turns_and_episodes_end_at_their_tokens,
    "rollout.max_turns": rollouts.an_episode_has_at_most_its_turns,
    "rollout.batch_size": rollouts.no_more_episodes_are_in_flight,
    "rollout.engine": rollouts.the_server_generates_where_it_is_asked_for,
    "vllm.url": rollouts.the_server_generates_where_it_is_asked_for,
    "vllm.folder": rollouts.the_server_generates_where_it_is_asked_for,
    "vllm.python": rollouts.our_own_server_is_started_as_told,
    "vllm.args": rollouts.our_own_server_is_started_as_told,
    "vllm.cuda_visible_devices": rollouts.our_own_server_is_started_as_told,
    "vllm.startup_timeout": rollouts.a_server_is_waited_for_so_long,
    "vllm.request_timeout": rollouts.a_server_is_waited_for_so_long,
    "teacher.weights": learning.teachers_have_their_weights,
    "teacher.ema_decay": learning.teachers_have_their_weights,
    "teacher.max_prompt_tokens": learning.a_longer_view_is_an_error,
    "skills.summarizer": "tests/skills/test_summaries.py::test_a_users_own_summariser_is_used_and_no_other_thing",
    "skills.scope": skills.a_task_reads_the_skills_of_its_kind_where_that_is_wanted,
    "skills.capacity": skills.the_bank_is_kept_and_read_as_told,
    "skills.exploration": skills.the_bank_is_kept_and_read_as_told,
    "skills.credit": skills.the_bank_is_kept_and_read_as_told,
    "skills.shown": skills.the_teacher_is_shown_what_the_control_says,
    "skills.per_visit": skills.summaries_are_made_waited_for_and_tried_again_as_told,
    "skills.wait": skills.summaries_are_made_waited_for_and_tried_again_as_told,
    "skills.workers": skills.summaries_are_made_waited_for_and_tried_again_as_told,
    "skills.retries": skills.summaries_are_made_waited_for_and_tried_again_as_told,
    "summarizer.base_url": skills.a_server_is_asked_as_told,
    "summarizer.model": skills.a_server_is_asked_as_told,
    "summarizer.api_key_env": skills.a_server_is_asked_as_told,
    "summarizer.prompt": skills.both_summarisers_write_and_read_as_told,
    "summarizer.temperature": skills.both_summarisers_write_and_read_as_told,
    "summarizer.answer_tokens": skills.both_summarisers_write_and_read_as_told,
    "summarizer.conversation_chars": skills.both_summarisers_write_and_read_as_told,
    "summarizer.json_schema": skills.a_server_is_asked_as_told,
    "summarizer.extra": skills.a_server_is_asked_as_told,
    "summarizer.timeout": skills.a_call_may_take_so_long_and_is_tried_so_often,
    "summarizer.max_retries": skills.a_call_may_take_so_long_and_is_tried_so_often,
    "summarizer.max_calls": "tests/skills/test_summarizer_openai.py::test_the_budget_ends_the_calls",
    "summarizer.max_tokens": "tests/skills/test_summarizer_openai.py::test_the_budget_ends_the_calls",
    "summarizer.cache": skills.runs_share_a_cache,
    "loss.clip_low": learning.ratios_are_clipped_where_told,
    "loss.clip_high": learning.ratios_are_clipped_where_told,
    "loss.distill_weight": learning.the_gradient_is_linear_in_lambda,
    "loss.distill_warmup": learning.lambda_follows_its_schedule_in_the_update,
    "loss.distill_until": learning.lambda_follows_its_schedule_in_the_update,
    "loss.estimator": learning.every_estimator_has_a_gradient_of_its_own,
    "loss.top_k": learning.so_many_tokens_are_compared_and_the_vocabulary_at_most,
    "loss.gate_beta": learning.tokens_count_as_told_in_a_loss_and_in_an_advantage,
    "loss.token_share": learning.tokens_count_as_told_in_a_loss_and_in_an_advantage,
    "loss.positive_only": learning.tokens_count_as_told_in_a_loss_and_in_an_advantage,
    "loss.advantage_eps": learning.advantages_are_damped_by_eps,
    "loss.tis_cap": learning.importance_is_capped,
    "optim.lr": learning.the_first_step_is_as_long_as_the_rate_says,
    "optim.weight_decay": learning.every_trained_weight_decays,
    "optim.beta1": learning.moments_follow_their_betas,
    "optim.beta2": learning.moments_follow_their_betas,
    "optim.max_grad_norm": learning.gradients_are_clipped_to_their_norm,
    "optim.warmup_iterations": learning.the_rate_follows_its_schedule_in_the_update,
    "optim.schedule": learning.the_rate_follows_its_schedule_in_the_update,
    "optim.minibatches": learning.so_many_steps_are_taken_of_nearly_equal_parts,
    "optim.max_tokens_per_device": learning.no_forward_pass_has_more_padded_tokens,
    "trainer.iterations": skills.a_run_saves_and_measures_when_told,
    "trainer.checkpoint_every": skills.a_run_saves_and_measures_when_told,
    "trainer.keep_checkpoints": skills.so_many_checkpoints_are_kept,
    "trainer.grad_norms_every": learning.gradients_are_told_apart_when_due,
    "trainer.fsdp": "tests/distributed/test_parallel.py::test_weights_are_spread_and_gathered",
    "trainer.zero_stage": "tests/distributed/test_deepspeed.py::test_a_run_spread_over_two_processes_is_the_same",
    "trainer.asynchronous": "tests/training/test_asynchronous.py::test_the_second_batch_is_of_the_first_weights",
    "trainer.tensorboard": "tests/training/test_trainer.py::"
    "test_tensorboard_holds_every_number_once_also_after_a_crash",
    "eval.every": skills.a_run_saves_and_measures_when_told,
    "eval.tasks": skills.so_many_tasks_are_measured,
    "eval.panel_every": skills.a_run_saves_and_measures_when_told,
    "eval.panel_tasks": skills.so_many_tasks_are_measured,
}


def leaves(model=Config, prefix=""):
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_setting_has_a_place_that_shows_its_effect():
    assert [name for name in leaves() if name not in PLACES] == []
    assert [name for name in PLACES if name not in set(leaves())] == []


NAMED = sorted({place for place in PLACES.values() if isinstance(place, str)})


@pytest.mark.parametrize("place", NAMED)
def test_a_named_test_is_there(place):
    file, _, name = place.partition("::")
    assert re.search(rf"^def {name}\(", (Path(__file__).parents[2] / file).read_text("utf-8"), re.MULTILINE)


CHECKS = {place.__name__: place for place in PLACES.values() if callable(place)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("settings") / "model")


@pytest.mark.parametrize("name", CHECKS)
def test_a_setting_does_what_it_says(name, folder, tmp_path, monkeypatch):
    CHECKS[name](folder, tmp_path, monkeypatch)


IDLE = [
    (["model.lora_alpha=8"], "model.lora_rank"), (["model.lora_targets=q_proj"], "model.lora_rank"),
    (["vllm.python=python3"], "rollout.engine = vllm"), (["loss.tis_cap=3"], "trainer.asynchronous"),
    (["rollout.engine=vllm", "vllm.url=http://a", "vllm.folder=/b", 'vllm.args=["--x"]'], "no vllm.url"),
    (["skills.summarizer=policy", "summarizer.max_calls=3"], "skills.summarizer = openai"),
    (["skills.summarizer=policy", "summarizer.json_schema=false"], "skills.summarizer = openai"),
    (["teacher.ema_decay=0.5"], "teacher.weights = ema"), (["loss.top_k=3"], "loss.estimator = top_k"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "needed"), IDLE, ids=lambda value: str(value))
def test_what_nothing_reads_is_refused_before_the_run_begins(given, needed, tmp_path):
    config = load_config("sokoban-smoke", given)
    with pytest.raises(UsageError, match="has no effect here") as caught:
        train(config, tmp_path / "run")
    assert needed in str(caught.value)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "run").exists()
    assert idle(without_idle(config)) == {}


def test_what_is_read_is_not_refused(tmp_path):
    for given in (
        ["model.lora_alpha=8", "model.lora_rank=2"], ["loss.tis_cap=3", "trainer.asynchronous=true"],
        ["rollout.engine=vllm", "vllm.python=x"], ["teacher.ema_decay=0.5", "teacher.weights=ema"],
        ["loss.top_k=3", "loss.estimator=top_k"], ["method=grpo", "loss.top_k=3", "teacher.ema_decay=0.5"],
        ["skills.summarizer=policy", "summarizer.answer_tokens=99"], ["skills.summarizer=openai", "summarizer.model=m"],
    ):  # fmt: skip
        refuse_idle(load_config("sokoban-smoke", given))
    mine = tmp_path / "mine.toml"
    mine.write_text('rollout.engine = "vllm"\nvllm.python = "x"\n')
    refuse_idle(
        load_config(mine, ["rollout.engine=transformers"])
    )  # another engine leaves the server's settings behind


def test_what_is_read_elsewhere_or_spread_over_nobody_is_told(folder, tmp_path):
    told = []
    alone = ["trainer.fsdp=true", "trainer.grad_norms_every=0"]
    with trainer(settings(folder, "summarizer.model=m", *alone), tmp_path / "run", told):
        assert ["reads none of it" in told[0], "nothing is spread" in told[1], len(told)] == [True, True, 2]


def test_a_teacher_that_scores_nothing_gives_no_credit_by_separation():
    with pytest.raises(UsageError, match=r"skills\.credit = separation needs a teacher's scores"):
        load_config("sokoban-smoke", ["method=skill_augmented", "skills.credit=separation"])

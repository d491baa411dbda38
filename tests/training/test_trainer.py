"""Real runs of the trainer on the embedded model: what the student sees, every method, resume, trouble."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from runs_lab import bank_rows, config, numbers, weights
from skillsd import SkillSDError, UsageError, evaluate, train
from skillsd.envs import register
from skillsd.envs.sokoban.taskset import SokobanTasks
from skillsd.methods import METHODS
from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir
from skillsd.runs.health import CollapseAlarm
from skillsd.skills.teacher_view import skill_view
from skillsd.training.loop import Loop
from skillsd.training.trainer import Trainer


def test_the_student_never_sees_a_skill_and_the_teacher_does(tmp_path):
    """On a real run: student prompts are the plain prompt id for id; teacher rows are skill view + the same ids."""
    seen = []

    class Watching(Trainer):
        def score(self, rows, hints):
            seen.append((self.iteration, list(rows), dict(hints)))
            return super().score(rows, hints)

    run = RunDir(tmp_path / "run")
    settings = config()
    run.create(settings)
    trainer = Watching(settings, run, lambda kind, data: None)
    loop = Loop(trainer)
    loop.open(None)
    loop.iterate()
    tokenizer, chat = trainer.policy.tokenizer, trainer.chat
    stored = trainer.bank.skills()
    taught = 0
    for _, rows, hints in seen:
        for row in rows:
            trajectory = row.trajectory
            task = trainer.by_id[trajectory.task_id]
            plain = chat.prompt(trainer.taskset.make().reset(task))
            assert trajectory.prompt_ids == row.student_prompt_ids == plain
            assert trajectory.rollout_skill_id is None
            text = tokenizer.decode(trajectory.ids)
            assert "Advice from earlier attempts" not in text
            for skill in stored:
                assert skill.skill.golden_workflow not in text
            hint = hints.get(trajectory.task_id)
            if hint is None:
                assert row.teacher_prompt_ids is None
                continue
            taught += 1
            view = chat.prompt(skill_view(hint.skill, trajectory.prompt))
            teacher = row.teacher()
            assert teacher.prompt_ids + teacher.completion_ids == view + trajectory.completion_ids
            assert hint.skill.golden_workflow in tokenizer.decode(view)
            assert trajectory.teacher_skill_id == hint.id
    assert taught == 2 * 9  # all tasks were met before, from the second iteration on
    assert [row["teacher_rows_with_skill"] for row in numbers(run.path)] == [0.0, 1.0, 1.0]
    for iteration in (1, 2, 3):
        assert run.read_trajectories(iteration) == [row.trajectory for row in seen[iteration - 1][1]]
    loop.close()


def test_a_teacher_without_its_skill_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("skillsd.training.views.skill_view", lambda skill, prompt: prompt)
    with pytest.raises(SkillSDError, match="no teacher prompt holds one"):
        train(config(), tmp_path / "run")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_learns_from_what_it_should(tmp_path, method):
    before = load_file(_embedded() / "model.safetensors")
    result = train(config(f"method={method}", "trainer.iterations=2"), tmp_path / "run")
    assert result.iterations == 2
    rows, spec = numbers(tmp_path / "run"), METHODS[method]
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())
    distilled = spec.distill == "loss"
    if spec.privileged != "plain":  # it holds the student where it has not moved yet
        assert (rows[1]["loss_distill"] != 0.0) == distilled
        assert (rows[1]["l_rms"] != 0.0) == (spec.distill not in ("none", "imitation"))
    if spec.privileged in ("none", "plain"):
        assert rows[1]["bank_size"] == 0
    trajectories = RunDir(tmp_path / "run").read_trajectories(2)
    guided = spec.rollouts == "teacher" or spec.skill_in_student_prompt
    assert all((t.rollout_skill_id is not None) == guided for t in trajectories)
    taught = spec.distill in ("loss", "advantage") and spec.privileged != "plain"
    if taught or any(row["flat_groups"] < 1 for row in rows):
        assert any(not torch.equal(before[k], v) for k, v in weights(tmp_path / "run").items())


@pytest.mark.parametrize(
    "setting",
    ["loss.estimator=top_k", "loss.estimator=k2", "loss.gate_beta=5", "loss.token_share=0.1", "loss.distill_warmup=4",
     "skills.shown=shuffled", "skills.shown=foreign", "skills.shown=falsified", "skills.shown=empty",
     "skills.shown=random_text", "skills.summarizer=trajectory"],
)  # fmt: skip
def test_every_variant_runs_and_changes_the_update(tmp_path, whole_run, setting):
    train(config(setting, "trainer.iterations=2"), tmp_path / "run")
    rows, plain = numbers(tmp_path / "run"), numbers(whole_run)[:2]
    assert rows[1]["teacher_rows_with_skill"] == 1.0
    assert rows[1]["loss_distill"] != 0.0
    ours = rows[1]["distill_weight"] * rows[1]["loss_distill"]
    assert ours != pytest.approx(plain[1]["distill_weight"] * plain[1]["loss_distill"], rel=1e-6)
    if setting.startswith("loss"):  # the first iteration has no skill yet
        assert rows[0]["accuracy"] == plain[0]["accuracy"]


def test_without_a_skill_a_synchronised_teacher_is_grpo_and_a_frozen_one_a_leash(tmp_path):
    """The control ``none``: what is left is the reverse KL to the teacher's weights."""
    size = ["rollout.group_size=8", "rollout.max_turns=12", "eval.tasks=1"]
    for name, *settings in (
        ("grpo", "method=grpo"),
        ("dynamic", "skills.shown=none"),
        ("frozen", "skills.shown=none", "teacher.weights=frozen"),
        ("leash", "method=grpo_leash"),
    ):
        train(config(*settings, *size), tmp_path / name)
    dynamic, frozen = numbers(tmp_path / "dynamic"), numbers(tmp_path / "frozen")
    assert any(row["flat_groups"] < 1 for row in dynamic[:2]), "the student must move"
    assert all(row["tasks_with_skill"] == 1.0 and row["teacher_rows_with_skill"] == 0.0 for row in dynamic[1:])
    assert all(row["l_rms"] == pytest.approx(0, abs=1e-5) for row in dynamic)
    reference = weights(tmp_path / "grpo")
    for key, value in weights(tmp_path / "dynamic").items():
        assert torch.allclose(value, reference[key], atol=1e-5), key
    assert max(row["l_rms"] for row in frozen) > 1e-4
    leash = numbers(tmp_path / "leash")  # the same, from the first iteration on
    assert all(row["tasks_with_skill"] == 1.0 and row["teacher_rows_with_skill"] == 0.0 for row in leash)
    assert max(row["l_rms"] for row in leash) > 1e-4


def _embedded():
    from skillsd.policy.embedded import path

    return path()


def test_off_policy_rows_are_weighted_against_their_sampler(tmp_path):
    """Teacher-owned rollouts: mu is what the teacher recorded, GRPO's ratio is centred on the old student."""
    caught = []

    class Watching(Trainer):
        def step(self):
            score = self.scorer.score

            def spy(rows, teacher):
                scores = score(rows, teacher)
                caught.append((rows, scores))
                return scores

            self.scorer.score = spy
            try:
                return super().step()
            finally:
                self.scorer.score = score

    run = RunDir(tmp_path / "run")
    settings = config("method=teacher_dynamic", "trainer.iterations=2")
    run.create(settings)
    trainer = Watching(settings, run, lambda kind, data: None)
    loop = Loop(trainer)
    loop.open(None)
    loop.iterate()
    rows, scores = caught[1]
    assert any(row.student_prompt_ids != row.trajectory.prompt_ids for row in rows)
    chosen = scores.teacher_mask.bool()
    # A synchronised teacher re-scores its own samples exactly; the student's scores differ.
    torch.testing.assert_close(scores.sampler[chosen], scores.teacher[chosen], atol=1e-4, rtol=1e-4)
    assert (scores.old - scores.sampler)[chosen].abs().max() > 1e-2
    loop.close()


def test_micro_batches_change_nothing(tmp_path):
    for name, budget in (("one", 10**6), ("many", 700)):
        train(config(f"optim.max_tokens_per_device={budget}", "trainer.iterations=2"), tmp_path / name)
    one, many = numbers(tmp_path / "one")[0], numbers(tmp_path / "many")[0]
    for key in ("loss_policy", "loss_distill", "grad_norm", "reward"):
        assert one[key] == pytest.approx(many[key], rel=1e-3, abs=1e-5)


def test_a_repeated_run_is_the_same_run(whole_run, tmp_path):
    train(config("trainer.iterations=5"), tmp_path / "again")
    assert numbers(whole_run) == numbers(tmp_path / "again")
    assert bank_rows(whole_run / "skills.sqlite") == bank_rows(tmp_path / "again" / "skills.sqlite")


def test_checkpoints_load_with_transformers(whole_run):
    path = latest(RunDir(whole_run))
    model = AutoModelForCausalLM.from_pretrained(path)
    assert AutoTokenizer.from_pretrained(path).chat_template
    for name, value in load_file(path / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], value)
    assert len(list(RunDir(whole_run).checkpoints.glob("step-*"))) == 2


def test_runs_checkpoints_and_models_are_evaluated_and_a_run_as_saved(whole_run):
    by_run = evaluate(whole_run, limit=8)
    by_checkpoint = evaluate(latest(RunDir(whole_run)), env="sokoban", env_options={"variant": "one_box"}, limit=8)
    assert [row["task"] for row in by_checkpoint.per_task] == [row["task"] for row in by_run.per_task]
    saved = json.loads((whole_run / "results" / "after.json").read_text())
    assert saved["per_task"] == by_run.per_task
    several = evaluate("embedded", limit=4, samples=4)
    assert set(several.pass_at_k) == {1, 2, 4}
    assert several.pass_at_k[1] == pytest.approx(several.accuracy)


def test_wrong_runs_and_damaged_checkpoints_are_refused(whole_run, tmp_path):
    with pytest.raises(UsageError, match="already holds a run"):
        train(config(), whole_run)
    with pytest.raises(UsageError, match="holds no run"):
        train(config(), tmp_path / "nothing", resume=True)
    with pytest.raises(SkillSDError, match="no folder"):
        evaluate(tmp_path / "nothing")
    for name in ("optimizer.safetensors", "model.safetensors", "state.json", "skills.sqlite"):
        out = tmp_path / name
        shutil.copytree(whole_run, out)
        (latest(RunDir(out)) / name).write_bytes(b"garbage")
        with pytest.raises(SkillSDError) as error:
            train(config("trainer.iterations=6"), out, resume=True)
        assert "\n" not in str(error.value)


def test_a_nan_stops_the_run_and_loses_nothing(tmp_path, monkeypatch):
    from skillsd.training import learner

    out, original, calls = tmp_path / "run", learner.grpo_loss, []

    def poisoned(*arguments, **named):
        calls.append(1)
        return original(*arguments, **named) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(learner, "grpo_loss", poisoned)
    settings = config("optim.max_tokens_per_device=1000000", "trainer.iterations=5")
    with pytest.raises(SkillSDError, match=r"iteration \d: loss nan"):
        train(settings, out)
    assert all(torch.isfinite(value).all() for value in weights(out).values())
    monkeypatch.setattr(learner, "grpo_loss", original)
    assert train(settings, out, resume=True).iterations == 5


def test_too_little_memory_is_one_line_and_resumes_with_smaller_pieces(tmp_path, monkeypatch):
    from skillsd.training.learner import Learner

    out, original = tmp_path / "run", Learner.update

    def update(learner, rows, scores, iteration):
        if iteration == 2 and learner.config.optim.max_tokens_per_device > 1000:
            raise torch.OutOfMemoryError("CUDA out of memory.\nGPU 0 has ...")
        return original(learner, rows, scores, iteration)

    monkeypatch.setattr(Learner, "update", update)
    with pytest.raises(
        SkillSDError, match=r"iteration 2: the GPU has too little memory \(CUDA out of memory.\); --resume"
    ):
        train(config(), out)
    with pytest.raises(UsageError, match=r"optim\.max_tokens_per_device"):
        train(config("optim.max_tokens_per_device=1000", "optim.lr=1"), out, resume=True)
    smaller = config("optim.max_tokens_per_device=1000", "model.gradient_checkpointing=true")
    assert train(smaller, out, resume=True).iterations == 3


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    from skillsd.runs import checkpoint

    out, original, calls = tmp_path / "run", checkpoint.save_file, []

    def full(*arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return original(*arguments, **named)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(SkillSDError, match=r"No space left.*step-000001 is intact"):
        train(config(), out)
    assert latest(RunDir(out)).name == "step-000001"
    assert train(config(), out, resume=True).iterations == 3


def test_two_processes_cannot_train_in_one_folder(whole_run):
    with RunDir(whole_run).lock(), pytest.raises(UsageError, match="another process"):
        train(config(), whole_run, resume=True)


def test_an_environment_that_fails_for_every_episode_ends_the_run(tmp_path):
    class Broken(SokobanTasks):
        def make(self):
            raise_on_reset = super().make()
            raise_on_reset.reset = lambda task: 1 / 0
            return raise_on_reset

    register("broken", Broken)
    settings = config("env.name=broken")
    with pytest.raises(SkillSDError, match="every episode was dropped"):
        train(settings, tmp_path / "run")


def test_tensorboard_holds_every_number_once_also_after_a_crash(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from skillsd.runs import checkpoint

    out, save = tmp_path / "run", checkpoint.save

    def crash(*arguments, **keywords):
        if arguments[1]["iteration"] == 2:
            raise SkillSDError("after the line, before the checkpoint")
        return save(*arguments, **keywords)

    settings = config("trainer.tensorboard=true")
    monkeypatch.setattr(checkpoint, "save", crash)
    with pytest.raises(SkillSDError, match="after the line"):
        train(settings, out)
    monkeypatch.setattr(checkpoint, "save", save)
    train(settings, out, resume=True)
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    rows = RunDir(out).read_metrics()
    names = {name for row in rows for name, value in row.items() if value is not None} - {"iteration", "alarm"}
    assert set(events.Tags()["scalars"]) == names
    for name in names:
        expected = [(row["iteration"], pytest.approx(row[name], rel=1e-6)) for row in rows if row.get(name) is not None]
        assert [(event.step, event.value) for event in events.Scalars(name)] == expected


def test_tensorboard_without_its_package_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"skillsd\[tensorboard\]"):
        train(config("trainer.tensorboard=true"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_iteration_reports_every_metric(tmp_path):
    train(config("trainer.iterations=5", "trainer.grad_norms_every=5"), tmp_path / "run")
    last = RunDir(tmp_path / "run").read_metrics()[-1]
    assert set(last) >= {
        "reward", "accuracy", "advantage_std", "flat_groups", "loss_policy", "loss_distill", "grad_norm",
        "grad_norm_policy", "grad_norm_distill", "l_mean", "l_rms", "rho_min", "rho_max", "clip_fraction_low",
        "clip_fraction_high", "clamp_fraction_l", "clamp_fraction_rho", "entropy", "kl_old", "logp_gap_max",
        "valid_actions", "turns", "tokens", "bank_size", "retrievals", "summaries_pending", "seconds_rollout",
        "seconds_score", "seconds_update", "seconds_summarize", "seconds_checkpoint", "seconds",
        "tokens_per_second", "peak_memory_mib",
    }  # fmt: skip
    assert last["retrievals"] == 4 * 3  # all tasks, from the second iteration on


def test_a_falling_accuracy_raises_the_alarm_and_a_restored_one_agrees():
    alarm = CollapseAlarm()
    assert all(alarm.update(0.6, 1.0) is None for _ in range(5))
    assert alarm.at_best
    told = [alarm.update(0.0, 0.9) for _ in range(5)]
    assert told[0] is None
    assert "accuracy fell" in told[-1]
    again = CollapseAlarm(**json.loads(json.dumps(alarm.state())))
    assert again.update(0.0, 0.9) == alarm.update(0.0, 0.9)
    assert not alarm.at_best


def test_the_process_environment_is_not_needed(tmp_path):
    """A run from another folder, with relative paths and no home folder."""
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "OMP_NUM_THREADS")}
    command = [sys.executable, "-m", "skillsd", "presets", "--json"]
    out = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert "skill_sd" in json.loads(out.stdout)["methods"]


def test_a_teacher_without_room_is_refused_in_the_first_iteration(tmp_path):
    with pytest.raises(SkillSDError, match="= 8 leaves the teacher no room"):
        train(config("teacher.max_prompt_tokens=8"), tmp_path / "run")
    assert not numbers(tmp_path / "run")
    train(config("teacher.max_prompt_tokens=8", "method=grpo", "trainer.iterations=1"), tmp_path / "grpo")


@pytest.mark.parametrize("one", ["env.train_tasks=1", "rollout.tasks_per_iteration=1"])
def test_skills_of_other_tasks_need_other_tasks(tmp_path, one):
    with pytest.raises(UsageError, match="no other's skill to show"):
        train(config("skills.shown=shuffled", one), tmp_path / "run")
    assert not (tmp_path / "run").exists()

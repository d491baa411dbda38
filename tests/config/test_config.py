import pytest

from skillsd.config import Config, LossConfig, OptimConfig, load_config, presets
from skillsd.errors import UsageError
from skillsd.methods import METHODS


def test_defaults_are_the_papers():
    config = Config()
    assert (config.rollout.group_size, config.rollout.tasks_per_iteration) == (4, 16)
    assert (config.optim.lr, config.optim.weight_decay, config.loss.distill_weight) == (1e-6, 0.0, 0.001)
    assert (config.loss.clip_low, config.loss.clip_high) == (0.2, 0.28)


@pytest.mark.parametrize("name", presets())
def test_presets_load(name):
    assert load_config(name).method == {"office": "skill_sd_frozen"}.get(name, "skill_sd")
    assert presets()[name]


def test_overrides_change_a_preset_or_a_file(tmp_path):
    config = load_config(
        "sokoban-smoke",
        ["method=grpo", "optim.lr=1e-5", "env.options.variant=paper", 'model.path="x y"', "eval.every=2"],
    )
    assert (config.method, config.optim.lr, config.env.options["variant"]) == ("grpo", 1e-5, "paper")
    assert (config.model.path, config.eval.every) == ("x y", 2)
    path = tmp_path / "mine.toml"
    path.write_text('method = "opd"\n[optim]\nlr = 0.5\n', encoding="utf-8")
    assert load_config(path, ["seed=3"]).seed == 3


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["optim.lrr=1"], "optim.lrr"),
        (["optim.lr=fast"], "optim.lr"),
        (["optim.lr=-1"], "optim.lr"),
        (["rollout.group_size=1"], "rollout.group_size"),
        (["method=ppo"], "ppo"),
        (["seed"], "section.name=value"),
        (["=3"], "section.name=value"),
        (["method.x=3"], "method"),
        (["rollout.temperature=0"], "rollout.temperature"),
    ],
)
def test_bad_settings_are_one_line_that_names_them(overrides, named):
    with pytest.raises(UsageError, match=named) as error:
        load_config("sokoban-smoke", overrides)
    assert "\n" not in str(error.value)


def test_bad_files_and_unknown_presets_are_refused(tmp_path):
    for content, reason in ((b"method = ", "not valid TOML"), (b"\xff\xfe\x00", "cannot be read")):
        path = tmp_path / "bad.toml"
        path.write_bytes(content)
        with pytest.raises(UsageError, match=reason):
            load_config(path)
    with pytest.raises(UsageError, match="no preset or file"):
        load_config("nonsense")


def test_every_method_makes_sense():
    for method in METHODS.values():
        assert method.summary
        assert (method.teacher == "none") <= (method.distill in ("none", "imitation"))
        assert method.reward or method.distill != "none"


def test_the_teachers_weights_can_be_chosen_apart_from_the_method():
    config = load_config("sokoban-smoke", ["method=skill_sd_hindsight", "teacher.weights=frozen"])
    assert (config.spec.privileged, config.spec.teacher) == ("hindsight", "frozen")
    assert load_config("sokoban-smoke", ["method=skill_sd_hindsight"]).spec.teacher == "dynamic"
    with pytest.raises(UsageError, match="'grpo' has no teacher"):
        load_config("sokoban-smoke", ["method=grpo", "teacher.weights=frozen"])


def test_the_distillation_weight_warms_up_and_fades():
    loss = LossConfig(distill_weight=0.1)
    assert [loss.weight_at(i) for i in (1, 5, 1000)] == [0.1] * 3
    warm = LossConfig(distill_weight=0.1, distill_warmup=4)
    assert [warm.weight_at(i) for i in (1, 2, 4, 9)] == pytest.approx([0.025, 0.05, 0.1, 0.1])
    fading = LossConfig(distill_weight=0.1, distill_until=10)
    assert [fading.weight_at(i) for i in (1, 5, 10, 20)] == pytest.approx([0.09, 0.05, 0.0, 0.0])


def test_the_learning_rate_warms_up_and_falls_in_a_line():
    assert [OptimConfig(lr=0.1).lr_at(i, 10) for i in (1, 10)] == [0.1, 0.1]
    linear = OptimConfig(lr=0.1, schedule="linear")
    assert [linear.lr_at(i, 10) for i in (1, 6, 10, 11)] == pytest.approx([0.1, 0.05, 0.01, 0.0])
    both = OptimConfig(lr=0.1, schedule="linear", warmup_iterations=2)
    assert [both.lr_at(i, 10) for i in (1, 2, 3)] == pytest.approx([0.05, 0.09, 0.08])


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("skills.wait=1", "either true or false"),
        ('skills.wait="yes"', "either true or false"),
        ('trainer.fsdp="true"', "either true or false"),
        ("loss.positive_only=0.0", "either true or false"),
        ("loss.clip_low=1", "less than 1"),
        ("loss.clip_low=0", "greater than 0"),
        ("loss.clip_high=0", "greater than 0"),
        ("loss.distill_until=1", "from the first iteration on"),
        ("env.turn_timeout=1e-9", "greater than or equal to 0.001"),
        ('model.chat_template=""', "at least 1 character"),
        ("summarizer.extra.messages=[]", "'messages' is not more of the request"),
        ("summarizer.extra.stream=true", "'stream' is not more"),
        ('summarizer.prompt=""', "at least 1 character"),
        ("loss.advantage_eps=1e9", "less than or equal to 1"),
    ],
)
def test_what_would_have_no_effect_or_another_one_is_refused(setting, reason):
    with pytest.raises(UsageError, match=reason):
        load_config("sokoban", [setting])

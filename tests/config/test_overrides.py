"""Settings as text: what is no value, what belongs to a choice, and what a command does not use."""

import math

import pytest

from skillsd.analysis.compare.matrix import expand, load_matrix
from skillsd.cli import main
from skillsd.config import Config, ModelConfig, load_config, with_environment, with_overrides
from skillsd.config.overrides import only, override, toml_value
from skillsd.errors import UsageError
from skillsd.policy.loading import load_policy
from skillsd.training.warm_up import USED


def numbers_of(model=Config, prefix=""):
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from numbers_of(field.annotation, f"{prefix}{name}.")
        elif "float" in str(field.annotation) or "int" in str(field.annotation):
            yield f"{prefix}{name}", "float" in str(field.annotation)


def test_no_number_is_infinite_not_a_number_or_true():
    settings = dict(numbers_of())
    assert {"env.turn_timeout", "rollout.temperature", "summarizer.temperature"} <= set(settings)
    settings["trainer.zero_stage"] = False
    for setting, is_float in settings.items():
        wrong = ["true", "false", *(["inf", "-inf", "nan", "1e999", "Infinity"] if is_float else ["inf", "1.5"])]
        for value in wrong:
            with pytest.raises(UsageError, match=setting.replace(".", r"\.")):
                load_config("sokoban-demo", [f"{setting}={value}"])


def test_what_is_sent_as_json_is_json():
    for value in ("{top_p = nan}", "{a = [inf]}", "{a = 2026-01-01}"):
        with pytest.raises(UsageError, match=r"summarizer\.extra: goes to a server as JSON"):
            load_config("sokoban-demo", [f"summarizer.extra={value}"])
    with pytest.raises(UsageError, match="holds control"):
        load_config("sokoban-demo", ['summarizer.extra={a = "\\u0000"}'])


def test_times_end_where_the_systems_timers_do():
    for setting in ("env.turn_timeout", "env.episode_timeout", "vllm.request_timeout", "summarizer.timeout"):
        with pytest.raises(UsageError, match="less than or equal"):
            load_config("sokoban-demo", [f"{setting}=1e10"])
        assert load_config("sokoban-demo", [f"{setting}=1e7"])


@pytest.mark.parametrize(
    "given", ["model.path=x optim.lr=1", "model.path=x\nseed=2", "seed=1\nmethod='grpo'", "model.path=x,seed=2",
              "model.path=x --set seed=2", "seed=1 seed=2", "seed=1\n[env]\nname='x'"]
)  # fmt: skip
def test_two_settings_in_one_override_are_refused(given):
    with pytest.raises(UsageError, match="holds more than one setting"):
        load_config("sokoban-demo", [given])


def test_a_value_may_hold_what_looks_like_a_setting_when_it_is_in_quotes():
    assert toml_value('"a b=1"') == "a b=1"
    assert toml_value("/my dir/a=b") == "/my dir/a=b"
    assert toml_value("two words") == "two words"
    assert toml_value("{a = 1, b = [2]}") == {"a": 1, "b": [2]}
    assert load_config("sokoban-demo", ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    "given",
    ["seed=" + "9" * 5000, "seed=" + "[" * 5000, ".".join("a" * 20_000) + "=1", "model.path=" + "x" * 5000, "x" * 5000,
     "method=" + "y" * 5000, "env.options.x=" + "{a=" * 50 + "1" + "}" * 50, "seed=" + "9" * 30, "model.path=\x1b[31m",
     'model.path="\\u0000"', "model.path=\udcff", "model.path=", "env.name=", "\x1b[31m=1", "env." + "z" * 9000 + "=1"],
)  # fmt: skip
def test_what_nobody_can_have_meant_is_one_short_line(given):
    with pytest.raises(UsageError) as caught:
        load_config("sokoban-demo", [given])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_files_that_hold_no_settings_are_told_what_is_wrong(tmp_path):
    path = tmp_path / "my.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 3\r\n")
    assert load_config(path).seed == 3, "a byte order mark is no mistake"
    for content, told in (
        ("seed = 3".encode("utf-16"), "no UTF-8"), (b"a = " + b"[" * 9000, "too deep"), (b"#" * 1_000_001, "more than"),
        (b"seed = " + b"9" * 9000, "too long"), (b"seed = 1\nseed = 2", "not valid TOML"), (b"env = 3", "env: "),
        (b'a = "\\u0007"', "control characters"), (b"\x00", "not valid TOML"),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(UsageError, match=told) as caught:
            load_config(path)
        assert str(caught.value).isprintable()
    for name in (tmp_path, tmp_path / "none.toml", "x" * 5000, "/" + "y" * 300, "a\x00b"):
        with pytest.raises(UsageError, match="no preset or file"):
            load_config(name)
    with pytest.raises(UsageError, match="no such file"):
        load_matrix(tmp_path)


def test_what_belongs_to_a_choice_goes_with_it():
    other = load_config("appworld-practice", ["env.name=mine:Tasks"])
    assert (other.env.options, other.env.train_split, other.env.test_split) == ({}, "train", "test")
    assert other.env.train_tasks == 48, "how much is trained on is no property of the environment"
    same = load_config("appworld-practice", ["env.name=appworld"])
    assert same.env.options["prompt"] == "short"
    for order in (["env.name=mine:Tasks", "env.options.size=3"], ["env.options.size=3", "env.name=mine:Tasks"]):
        assert load_config("sokoban-demo", order).env.options == {"size": 3}
    assert load_config("sokoban-demo", ["env.name=mine:Tasks", "env.test_split=dev"]).env.test_split == "dev"


def test_templates_budgets_and_teachers_belong_to_what_they_were_chosen_for(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text(
        'method = "skill_sd_hindsight"\nteacher.weights = "frozen"\n'
        '[model]\npath = "a"\nchat_template = "chatml"\nlora_targets = ["q_proj"]\nlora_rank = 4\n'
        '[skills]\nsummarizer = "openai"\n[summarizer]\nbase_url = "http://a/v1"\nmodel = "m"\n'
    )
    assert load_config(path, ["optim.lr=1"]).model.chat_template == "chatml"
    other = load_config(path, ["model.path=b"])
    assert (other.model.chat_template, other.model.lora_targets, other.model.lora_rank) == (None, "all-linear", 4)
    assert load_config(path, ["model.path=b", "model.chat_template=chatml"]).model.chat_template == "chatml"
    assert load_config(path, ["skills.summarizer=policy"]).summarizer.base_url is None
    assert load_config(path, ["method=grpo"]).spec.teacher == "none"
    path.write_text('[summarizer]\nbase_url = "http://a/v1"\nmodel = "m"\n')
    assert load_config(path, ["skills.summarizer=openai"]).summarizer.model == "m", "rules has no settings to lose"


def test_a_comparison_that_changes_the_environment_leaves_the_presets_options_behind(tmp_path):
    path = tmp_path / "compare.toml"
    path.write_text(
        'preset = "sokoban-smoke"\nseeds = [0]\nsettings.env = { name = "mine:Tasks" }\nrows.grpo.method = "grpo"\n'
    )
    assert [cell.config.env.options for cell in expand(load_matrix(path))] == [{}, {}]
    path.write_text(path.read_text().replace("[0]", "[true]"))
    with pytest.raises(UsageError, match="seeds"):
        load_matrix(path)


def test_another_environment_leaves_options_and_split_behind_and_keeps_timeouts():
    run = load_config("appworld-practice", ["env.turn_timeout=7"])
    other = with_environment(run, "sokoban", {"variant": "one_box"}).env
    assert (other.options, other.test_split, other.turn_timeout) == ({"variant": "one_box"}, "test", 7.0)
    assert with_environment(run, "appworld", {"servers": 1}).env.test_split == "practice_test"
    assert with_overrides(run, ["skills.summarizer=trajectory"]).skills.summarizer == "trajectory"
    assert override({"a": {"b": 1}}, ["a.c=2"]) == {"a": {"b": 1, "c": 2}}


def test_a_setting_that_a_command_does_not_use_is_refused():
    only(["model.path=x", "model={path='y'}", "env.options.variant=one_box", "seed=1", "eval.tasks=3"], USED, "warm-up")
    for given in (
        "optim.lr=1",
        "optim={lr=1}",
        "optim={}",
        "loss.top_k=3",
        "method=grpo",
        "env.test_split=x",
        "nonsense=1",
    ):
        with pytest.raises(UsageError, match="warm-up does not use the setting"):
            only([given], USED, "warm-up")
    with pytest.raises(UsageError, match="use --lr"):
        only(["optim.lr=1"], USED, "warm-up", {"optim.lr": "--lr"})


def test_the_scale_of_numbers_is_one_that_can_be_computed_with():
    for value in ("1e-300", "1e300"):
        with pytest.raises(UsageError, match=r"rollout\.temperature"):
            load_config("sokoban-demo", [f"rollout.temperature={value}"])
    assert math.isclose(load_config("sokoban-demo", ["rollout.temperature=.5"]).rollout.temperature, 0.5)


@pytest.mark.parametrize(
    "words",
    [["x" * 5000], ["train", "x" * 5000], ["train", "sokoban-smoke", "--" + "x" * 5000], ["report", "x" * 5000],
     ["train", "sokoban-smoke", "--set", f"model.path={'x' * 3000}"], ["skills", "list", "x" * 5000],
     ["train", "sokoban-smoke", "--set", "x" * 5000], ["env", "check", "x" * 5000], ["play", "x" * 5000],
     ["compare", "x" * 5000, "--out", "o"], ["evaluate", "embedded", "--limit", "x" * 5000], ["evaluate", "x" * 5000],
     ["train", "sokoban-smoke", "--out", "x" * 5000], ["play", "sokoban", "--env-option", "x" * 5000]],
    ids=lambda words: " ".join(word[:12] for word in words),
)  # fmt: skip
def test_a_name_that_nothing_can_have_is_bad_usage_told_in_short(words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["skillsd", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert 0 < len(capsys.readouterr().err) < 700
    assert not list(tmp_path.iterdir())


def test_a_device_that_cannot_compute_is_bad_usage():
    for device in ("meta", "xla", "vulkan", "cuda:99", "nonsense", "cpu:x"):
        with pytest.raises(UsageError, match=r"model\.device: .* cannot be used") as caught:
            load_policy(ModelConfig(path="embedded", device=device))
        assert len(str(caught.value)) < 250

"""Damaged checkpoints, results and caches: told, and nothing good is lost."""

import json
import shutil

import pytest

from harms import a_folder, command, edit, flipped, sql
from skillsd import SkillSDError, train
from skillsd.analysis.compare.cell import load_cell, load_status
from skillsd.analysis.report import write_report
from skillsd.rollouts.results import EvalResult
from skillsd.runs.checkpoint import latest
from skillsd.runs.folder import RunDir
from skillsd.skills.summarize.store import SummaryStore

# -- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "skills.sqlite"])
@pytest.mark.parametrize(
    "harm", [lambda path: path.unlink(), edit(lambda b: b""), edit(lambda b: b[: len(b) // 2]), edit(flipped), a_folder]
)
def test_a_checkpoint_that_is_not_what_was_written_is_refused_and_nothing_lost(out, config, name, harm):
    step = latest(RunDir(out))
    harm(step / name)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(SkillSDError) as error:
        train(config("trainer.iterations=4"), out, resume=True)
    assert name in str(error.value)
    assert str(error.value).endswith("move this folder away to go on from the one before")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    shutil.move(step, out / "moved away")
    assert train(config("trainer.iterations=4"), out, resume=True).iterations == 4


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("harm", [lambda path: path.unlink(), edit(lambda b: b[: len(b) // 2]), edit(flipped)])
def test_a_damaged_checkpoint_is_not_evaluated(out, monkeypatch, capsys, name, harm):
    harm(latest(RunDir(out)) / name)
    for arguments in (["evaluate", out], ["evaluate", latest(RunDir(out))], ["explain", out]):
        assert command(monkeypatch, *arguments) == 1
        error = capsys.readouterr().err
        assert str(latest(RunDir(out))) in error
        assert "Traceback" not in error


@pytest.mark.parametrize(
    "harm",
    [
        *(edit(lambda b, text=text: text) for text in (b"[]", b"{}", b"null", b"")),
        edit(lambda b: b[: len(b) // 2]),
        edit(lambda b: b.replace(b'"hidden_size": 32', b'"hidden_size": "many"')),
        edit(lambda b: b.replace(b'"hidden_size": 32', b'"hidden_size": 64')),
        edit(lambda b: b.replace(b'"num_hidden_layers": 2', b'"num_hidden_layers": -1')),
    ],
)
def test_a_checkpoint_whose_config_is_none_is_one_line_for_every_command_and_nothing_lost(
    out, config, monkeypatch, capfd, harm
):
    harm(latest(RunDir(out)) / "config.json")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for arguments in (["evaluate", out], ["probe", out], ["explain", out]):
        assert command(monkeypatch, *arguments) == 1
        error = capfd.readouterr().err
        assert error.startswith("skillsd: model.path: ")
        assert error.count("\n") == 1
        assert "\x1b" not in error
    with pytest.raises(SkillSDError, match=r"corrupt or foreign checkpoint .*; move this folder away"):
        train(config("trainer.iterations=4"), out, resume=True)
    assert capfd.readouterr().err == ""
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert command(monkeypatch, "report", out) == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("iteration"), "state.json: iteration: Field required"),
        (lambda state: state.update(iteration=2), "state.json is of iteration 2"),
        (lambda state: state.update(alarm=[]), "state.json: alarm"),
        (lambda state: state.update(pending=["../2"]), "state.json: pending.0"),
        (lambda state: state.update(failed={"waiting": 3}), "state.json: failed.waiting"),
        (lambda state: state.update(ahead={}), "state.json: ahead.iteration"),
    ],
)
def test_a_state_that_is_none_is_refused_with_its_field(out, config, change, told):
    file = latest(RunDir(out)) / "state.json"
    state = json.loads(file.read_text())
    change(state)
    file.write_text(json.dumps(state))
    with pytest.raises(SkillSDError) as error:
        train(config("trainer.iterations=4"), out, resume=True)
    assert told in str(error.value)


def test_a_checkpoint_without_its_state_is_passed_over_and_told_and_the_one_before_is_kept(out, config):
    heard = []
    (latest(RunDir(out)) / "state.json").unlink()
    (out / "checkpoints" / "step-000009").write_text("a file")
    settings = config("trainer.keep_checkpoints=1", "trainer.iterations=4")
    result = train(settings, out, resume=True, listen=lambda kind, data: heard.append(data.get("text")))
    assert result.iterations == 4
    for name in ("step-000003", "step-000009"):
        assert f"{out / 'checkpoints' / name}: no checkpoint, as it has no state.json; passed over" in heard
    assert "iteration 3 had no checkpoint and will be done again" in heard
    assert [row["iteration"] for row in RunDir(out).read_metrics(pytest.fail)] == [1, 2, 3, 4]


def test_a_checkpoint_of_a_version_that_kept_no_sums_still_loads(out, config):
    file = latest(RunDir(out)) / "state.json"
    state = json.loads(file.read_text())
    del state["files"], state["alarm"]["at_best"]
    file.write_text(json.dumps(state))
    assert train(config("trainer.iterations=4"), out, resume=True).iterations == 4


# -- results and caches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b"null", b'{"split": "test"}', b"[" * 100_000, b"\0" * 20])
def test_a_damaged_result_is_told_and_the_rest_goes_on(out, config, content):
    file = out / "results" / "before.json"
    file.write_bytes(content)
    with pytest.raises(SkillSDError, match=r"before\.json: not the result of an evaluation"):
        EvalResult.load(file)
    for reader in (lambda warn: write_report(out, warn), lambda warn: train(config(), out, resume=True, listen=warn)):
        heard = []
        reader(lambda kind, data=None, heard=heard: heard.append(kind if data is None else data.get("text")))
        assert any("before.json" in str(text) and "\n" not in text for text in heard)


CELL = {
    "row": "grpo", "seed": 0, "method": "grpo", "overrides": {}, "curve": [], "episodes": 4, "iterations": 1,
    "seconds": {}, "versions": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "split",
    [
        {"task_ids": ["a", "b"], "success": [1], "completion": [1.0, 0.0]},
        {"task_ids": ["a", "a"], "success": [1, 0], "completion": [1.0, 0.0]},
        {"task_ids": ["a"], "success": [2], "completion": [1.0]},
        {"task_ids": ["a"], "success": [1], "completion": [float("nan")]},
    ],
)
def test_a_cell_that_cannot_be_is_refused(tmp_path, split):
    file = tmp_path / "cell.json"
    file.write_text(json.dumps(CELL | {"after": {"test": split}}))
    with pytest.raises(SkillSDError, match=r"cell\.json: not a finished cell") as error:
        load_cell(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"iteration": "x", "accuracy": 1}', b"\xff", b"[" * 100_000])
def test_a_status_that_is_being_written_or_damaged_is_none_yet(tmp_path, content):
    (tmp_path / "status.json").write_bytes(content)
    assert load_status(tmp_path / "status.json") is None
    assert load_status(tmp_path / "nowhere.json") is None


def test_a_budget_that_is_no_number_is_refused(tmp_path):
    SummaryStore(tmp_path / "cache.sqlite")
    sql("UPDATE spent SET calls = 'lots'")(tmp_path / "cache.sqlite")
    with pytest.raises(
        SkillSDError, match=r"cache\.sqlite cannot be used \(what was spent is no number\); .*move it away"
    ):
        SummaryStore(tmp_path / "cache.sqlite")

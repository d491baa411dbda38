"""Files of a run that came to harm: what is good is kept, what is not is told in a line with its place, or refused."""

import json
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from harms import a_folder, command, edit, flipped, sql
from skillsd import SkillSDError, UsageError, train
from skillsd.analysis.report import write_report
from skillsd.runs.checkpoint import latest
from skillsd.runs.episodes import read_trajectories
from skillsd.runs.folder import RunDir
from skillsd.skills import Skill, SkillBank

# -- metrics.jsonl -------------------------------------------------------------------------------------------------


def second(change):
    """``change`` the second of three lines."""

    def lines(data):
        one, two, three = data.splitlines(True)
        return one + change(two) + three

    return edit(lines)


@pytest.mark.parametrize(
    ("harm", "kept", "told"),
    [
        (second(lambda b: b[:40] + b"\xff" + b[41:]), [1, 3], "left out: line 2 (not UTF-8)"),
        (second(lambda b: b[:-20] + b"\n"), [1, 3], "left out: line 2 (not valid JSON)"),
        (second(lambda b: b"\0" * (len(b) - 1) + b"\n"), [1, 3], "left out: line 2 (empty bytes)"),
        (second(lambda b: b"[1, 2]\n"), [1, 3], "left out: line 2 (not a JSON object)"),
        (second(lambda b: b'{"reward": 1}\n'), [1, 3], "left out: line 2 (no iteration)"),
        (
            second(lambda b: b.replace(b'"iteration": 2', b'"iteration": "2"')),
            [1, 3],
            "left out: line 2 (no iteration)",
        ),
        (second(lambda b: b"[" * 100_000 + b"\n"), [1, 3], "left out: line 2 (not valid JSON)"),
        (second(lambda b: b'{"iteration": ' + b"9" * 5000 + b"}\n"), [1, 3], "left out: line 2 (not valid JSON)"),
        (
            second(lambda b: b.replace(b'"reward":', b'"reward": "high", "was":')),
            [1, 2, 3],
            "left out: 'reward' of line 2",
        ),
        (
            second(lambda b: b.replace(b'"reward":', b'"reward": 1' + b"0" * 400 + b', "was":')),
            [1, 2, 3],
            "'reward' of",
        ),
        (second(lambda b: b + b), [1, 2, 3], "left out: the first of two lines of iteration 2"),
        (edit(lambda b: b[:-30]), [1, 2], "left out: line 3 (cut off)"),
        (edit(lambda b: b[:-30] + b"\0" * 30), [1, 2], "left out: line 3 (cut off)"),
    ],
)
def test_a_bad_line_of_metrics_costs_itself_alone(out, config, harm, kept, told):
    run = RunDir(out)
    harm(run.metrics)
    data = run.metrics.read_bytes()
    for reader in (lambda warn: write_report(out, warn), lambda warn: train(config(), out, resume=True, listen=warn)):
        heard = []

        def warn(kind, row=None, heard=heard):
            heard.append(kind if row is None else row.get("text", ""))

        reader(warn)
        assert any(told in text and str(run.metrics) in text for text in heard), heard
        assert [row["iteration"] for row in run.read_metrics()] == kept
    assert (out / "metrics.damaged.jsonl").read_bytes() == data
    again = []
    write_report(out, again.append)
    assert all("left out" not in text for text in again)  # resume has put the file in order
    assert bool(again) == (kept == [1, 3])  # and what is gone for good is still said


@pytest.mark.parametrize(
    "harmless",
    [
        lambda b: b"\xef\xbb\xbf" + b.replace(b"\n", b"\r\n"),
        lambda b: b"".join(b.splitlines(True)[::-1]),
        lambda b: b.replace(b"\n", b"\n\n"),
        lambda b: b.removesuffix(b"\n"),
        lambda b: b.removesuffix(b"\n") + b"\0" * 100,
    ],
)
def test_what_an_editor_or_a_power_loss_adds_is_no_loss(out, config, whole, harmless):
    edit(harmless)(RunDir(out).metrics)
    assert RunDir(out).read_metrics(pytest.fail) == RunDir(whole).read_metrics()
    train(
        config(), out, resume=True, listen=lambda kind, data: pytest.fail(data["text"]) if kind == "warning" else None
    )
    assert RunDir(out).metrics.read_bytes() == RunDir(whole).metrics.read_bytes()


def test_a_line_that_a_power_loss_took_with_its_end_does_not_take_the_next(out):
    second(lambda b: b"\0" * len(b))(RunDir(out).metrics)
    heard = []
    assert [row["iteration"] for row in RunDir(out).read_metrics(heard.append)] == [1, 3]
    assert heard == [f"{out / 'metrics.jsonl'}: has no line for iteration 2"]


def test_not_measurable_reads_the_same_in_every_spelling(out):
    second(lambda b: b.replace(b'"reward":', b'"reward": NaN, "a": -Infinity, "b": 1e999, "c": null, "was":'))(
        RunDir(out).metrics
    )
    row = RunDir(out).read_metrics(pytest.fail)[1]
    assert [row[name] for name in ("reward", "a", "b", "c")] == [None] * 4


def test_lines_that_are_gone_are_told_and_so_is_what_is_done_again(out, config):
    heard = []
    RunDir(out).metrics.unlink()
    shutil.move(latest(RunDir(out)), out / "moved away")
    RunDir(out).append_metrics({"iteration": 3})
    train(config(), out, resume=True, listen=lambda kind, data: heard.append(data.get("text")))
    assert any(str(text).endswith("metrics.jsonl: has no line for 2 iterations (1 to 2)") for text in heard)
    assert "iteration 3 had no checkpoint and will be done again" in heard


# -- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda b: b"", "not whole"),
        (lambda b: b[: b.index(b"[optim]")], "not whole (optim is missing)"),
        (lambda b: b"\0" * len(b), "not valid TOML"),
        (lambda b: b[:100] + b"\xff" + b[101:], "cannot be read"),
        (lambda b: b.replace(b"\nlr = ", b"\nlr = -"), "optim.lr"),
    ],
)
def test_damaged_settings_are_refused_with_the_files_name(out, config, monkeypatch, capsys, harm, told):
    """Above all they never become other settings: what is missing would have its default."""
    edit(harm)(out / "config.toml")
    for arguments in (["report", out], ["evaluate", out], ["explain", out], ["skills", "try", out],
                      ["train", "sokoban-smoke", "--out", out, "--resume"]):  # fmt: skip
        assert command(monkeypatch, *arguments) == 2
        error = capsys.readouterr().err
        assert str(out / "config.toml") in error
        assert told in error
    with pytest.raises(UsageError, match=r"config\.toml"):
        train(config(), out, resume=True)


@pytest.mark.parametrize("harmless", [lambda b: b"\xef\xbb\xbf" + b, lambda b: b.replace(b"\n", b"\r\n")])
def test_settings_that_an_editor_saved_are_the_same(out, whole, harmless):
    edit(harmless)(out / "config.toml")
    assert RunDir(out).load_config() == RunDir(whole).load_config()


# -- episodes ------------------------------------------------------------------------------------------------------


def rewritten(change):
    def harm(path):
        table = pq.read_table(path)
        rows = table.to_pylist()
        change(rows)
        pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)

    return harm


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (edit(lambda b: b""), "0 bytes"),
        (edit(lambda b: b[: len(b) // 2]), "not a trajectory file"),
        (edit(lambda b: b[:4] + flipped(b[4:400]) + b[400:]), "not a trajectory file"),
        (a_folder, "directory"),
        (lambda path: pq.write_table(pq.read_table(path).drop(["reward"]), path), "no column reward"),
        (rewritten(lambda rows: rows[1].update(reward=None)), "row 2: reward is missing"),
        (rewritten(lambda rows: rows[1].update(reward=float("nan"))), "row 2: the reward"),
        (rewritten(lambda rows: rows[1].update(turns='[{"action": 1}]')), "row 2: turns"),
        (rewritten(lambda rows: rows[1].update(turns="[" * 100_000)), "row 2: turns"),
        (rewritten(lambda rows: rows[1].update(logps=[0.0])), "row 2: completion_ids, action_mask and logps"),
        (rewritten(lambda rows: rows[1].update(status="lost")), "row 2: action_mask or status"),
        (rewritten(lambda rows: rows[1].update(prompt_ids=[1, None])), "row 2: prompt_ids is missing"),
    ],
)
def test_damaged_episodes_are_told_and_the_rest_of_a_report_is_there(out, monkeypatch, capsys, harm, told):
    file = RunDir(out).trajectory_file(3)
    harm(file)
    with pytest.raises(SkillSDError) as error:
        read_trajectories(file)
    assert told in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    assert command(monkeypatch, "report", out) == 0
    heard = capsys.readouterr().err
    assert told in heard
    assert heard.count("\n") == 1
    page = (out / "report.html").read_text()
    assert "Damaged: " in page
    assert "Iteration 1, " in page
    assert command(monkeypatch, "skills", "try", out) == 1
    assert command(monkeypatch, "explain", out) == 1


def test_files_of_other_names_are_nobodys_episodes(out, monkeypatch):
    for name in ("notes.parquet", "00000²3.parquet", "١.parquet"):
        (out / "trajectories" / name).write_bytes(b"")
    assert RunDir(out).recorded() == [1, 2, 3]
    assert command(monkeypatch, "skills", "try", out, "--limit", "1") == 0
    RunDir(out).rewind(1)
    assert RunDir(out).recorded() == [1]
    assert len(list((out / "trajectories").iterdir())) == 4


def test_summaries_still_to_be_made_of_damaged_episodes_are_given_up_and_told(out, config):
    state = latest(RunDir(out)) / "state.json"
    tree, one = json.loads(state.read_text()), RunDir(out).read_trajectories(2)[0]
    state.write_text(json.dumps(tree | {"pending": [one.id]}))
    RunDir(out).trajectory_file(2).write_bytes(b"")
    heard = []
    result = train(
        config("trainer.iterations=4"), out, resume=True, listen=lambda kind, data: heard.append(data.get("text"))
    )
    assert result.iterations == 4
    assert any("000002.parquet" in str(text) and "is lost" in str(text) for text in heard)


# -- the bank ------------------------------------------------------------------------------------------------------


def skill(text):
    return Skill(success_analysis=text, mistake_analysis=text, golden_workflow=text)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE skills SET reward = 'high' WHERE id = 2", "skill 2 is corrupt (reward"),
        ("UPDATE skills SET reward = 9e999 WHERE id = 2", "skill 2 is corrupt (reward"),
        ("UPDATE skills SET credit_sum = x'00' WHERE id = 2", "skill 2 is corrupt (credit_sum"),
        ("UPDATE skills SET chosen = -1 WHERE id = 2", "skill 2 is corrupt (chosen"),
        ("UPDATE skills SET credits = 'two' WHERE id = 2", "skill 2 is corrupt (credits"),
        ("UPDATE skills SET iteration = 'last', trajectory_id = 'x' WHERE id = 2", "skill 2 is corrupt (iteration"),
        ("UPDATE skills SET skill = x'ff' WHERE id = 2", "skill 2 is corrupt (skill"),
        ("UPDATE skills SET skill = CAST(x'ff' AS TEXT) WHERE id = 2", "skill 2 is corrupt (skill"),
        ("UPDATE skills SET skill = '[]' WHERE id = 2", "skill 2 is corrupt (malformed skill"),
    ],
)
def test_a_damaged_row_of_the_bank_costs_itself_alone(tmp_path, statement, told, monkeypatch, capsys):
    bank = SkillBank(tmp_path / "skills.sqlite")
    for text in ("one", "two", "three"):
        bank.add("t", skill(text), 0.5)
    sql(statement)(bank.path)
    heard = []
    assert [s.id for s in bank.skills(warn=heard.append)] == [1, 3]
    assert len(heard) == 1
    assert told in heard[0]
    for use in (lambda: bank.retrieve("t"), lambda: bank.add("t", skill("four"), 1.0), bank.skills):
        with pytest.raises(SkillSDError, match="skill 2 is corrupt"):
            use()
    bank.close()
    assert command(monkeypatch, "skills", "list", tmp_path, "--json") == 0
    found = capsys.readouterr()
    assert [row["id"] for row in json.loads(found.out)] == [1, 3]
    assert told in found.err


def test_counts_that_are_none_are_told_with_their_task(tmp_path):
    bank = SkillBank(tmp_path / "skills.sqlite")
    bank.add("t", skill("one"), 0.5)
    bank.add("u", skill("one"), 0.5)
    sql("UPDATE tasks SET retrievals = 'many' WHERE task_id = 't'")(bank.path)
    for use in (lambda: bank.retrieve("t"), bank.stats, lambda: bank.stats("t")):
        with pytest.raises(SkillSDError, match=r"skills\.sqlite: the counts of task 't' are corrupt"):
            use()
    assert bank.retrieve("u") is not None
    bank.close()


def test_whoever_only_reads_a_bank_makes_none(tmp_path):
    with pytest.raises(SkillSDError, match="not a usable skill bank"):
        SkillBank(tmp_path / "skills.sqlite", create=False)
    assert not list(tmp_path.iterdir())
    (tmp_path / "skills.sqlite").write_bytes(b"")
    with pytest.raises(SkillSDError, match="the file is empty"):
        SkillBank(tmp_path / "skills.sqlite", create=False)
    assert (tmp_path / "skills.sqlite").stat().st_size == 0


@pytest.mark.parametrize(
    "harm", [edit(lambda b: b""), edit(lambda b: b[: len(b) // 2]), sql("PRAGMA user_version = 9")]
)
def test_a_report_of_a_run_whose_bank_is_lost_has_the_rest(out, harm):
    harm(out / "skills.sqlite")
    heard = []
    page = write_report(out, heard.append).read_text()
    assert len(heard) == 1
    assert "skills.sqlite" in heard[0]
    assert page.count('role="img"') >= 5


def test_the_journal_of_a_killed_process_does_not_reach_the_restored_bank(out, config, whole):
    """SQLite would roll back, into the restored file, what that process had begun in the lost one."""
    code = (
        "import os, sys, signal, sqlite3\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN')\n"
        "db.execute(\"UPDATE skills SET task_id = 'gone', skill = hex(randomblob(30000))\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(out / "skills.sqlite")])
    assert (out / "skills.sqlite-journal").stat().st_size
    train(config(), out, resume=True)
    ours, theirs = SkillBank(out / "skills.sqlite"), SkillBank(whole / "skills.sqlite")
    assert (ours.skills(), ours.stats()) == (theirs.skills(), theirs.stats())
    ours.close()
    theirs.close()

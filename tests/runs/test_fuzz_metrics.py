"""Arbitrary damage to ``metrics.jsonl``: every good line is kept, what is not is told, and nothing is raised."""

import json
import os

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from skillsd import SkillSDError
from skillsd.analysis.report import write_report
from skillsd.config import load_config
from skillsd.runs.folder import RunDir
from skillsd.runs.record import read_record

LONG = os.environ.get("SKILLSD_FUZZ") == "long"
fuzz = settings(
    max_examples=20_000 if LONG else 300, deadline=None, derandomize=not LONG, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip

numbers = st.floats(-1e29, 1e29) | st.integers(-(2**60), 2**60) | st.none()
good_rows = st.dictionaries(st.text(max_size=8), numbers, max_size=4).map(
    lambda row: {name: value for name, value in row.items() if name not in ("iteration", "alarm")}
)
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
odd_rows = st.dictionaries(st.sampled_from(["iteration", "reward", "alarm"]), anything)
odd_iterations = ("9" * 5000, "99999999999", "1e999", "true", "-1", "NaN", "[]")
#: Lines that nobody could read a row from, or at most an odd one.
bad_lines = st.one_of(
    st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"")),
    (anything | odd_rows).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(odd_iterations).map(lambda text: f'{{"iteration": {text}}}'.encode()),
    st.sampled_from([b"\0" * 30, b"[" * 5000, b"\xff\xfe", b"\xef\xbb\xbf"]),
)


@st.composite
def files(draw):
    """A metrics file: its good lines' rows by iteration, and its bytes with bad lines anywhere among them."""
    rows = draw(st.lists(good_rows, min_size=1, max_size=6))
    good = {1000 + i: {"iteration": 1000 + i, **row} for i, row in enumerate(rows)}
    lines = [json.dumps(row).encode() for row in good.values()]
    for line in draw(st.lists(bad_lines, max_size=5)):
        lines.insert(draw(st.integers(0, len(lines))), line)
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    tail = draw(st.sampled_from([b"", end, end + b'{"iteration": 77, "rew', end + b"\0" * 100]))
    return good, draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + end.join(lines) + tail


@fuzz
@given(files())
def test_every_good_line_is_kept(file):
    good, data = file
    record = read_record(data)
    kept = {row["iteration"]: row for row in record.rows}
    for iteration, row in good.items():
        assert kept[iteration] == row
    assert list(kept) == sorted(kept)
    assert len(record.rows) == len(record.lines)
    assert "\n" not in record.note


@fuzz
@given(files())
def test_what_was_read_once_reads_the_same_again(file):
    """As a resumed run writes it back."""
    record = read_record(file[1])
    again = read_record(b"".join(line + b"\n" for line in record.lines))
    assert again.rows == record.rows
    assert again.lines == record.lines
    assert not again.cut


@fuzz
@given(files(), st.data())
def test_bytes_that_flip_or_vanish_cost_their_own_lines_alone(file, data):
    good = file[0]
    lines = [json.dumps(row).encode() for row in good.values()]
    hurt = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.integers(0, len(lines[hurt]) - 1))
    byte = data.draw(st.binary(max_size=1).filter(lambda raw: raw != b"\n"))
    lines[hurt] = lines[hurt][:place] + byte + lines[hurt][place + 1 :]
    record = read_record(b"\n".join(lines) + b"\n")
    kept = {row["iteration"]: row for row in record.rows}
    for number, (iteration, row) in enumerate(good.items()):
        if number != hurt and not lines[hurt].startswith(b'{"iteration": %d' % iteration):  # or it takes the other's
            assert kept[iteration] == row


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    found = RunDir(tmp_path_factory.mktemp("fuzz") / "run")
    found.create(load_config("sokoban-smoke"))
    return found


@settings(fuzz, max_examples=1000 if LONG else 25)
@given(files(), st.integers(0, 1010))
def test_a_report_is_written_and_a_resume_keeps_the_rest(run, monkeypatch, file, iteration):
    monkeypatch.setattr("skillsd.analysis.report._chart", lambda metrics, *spec: None)
    data = file[1]
    for copy in run.path.glob("metrics.damaged*"):
        copy.unlink()
    run.metrics.write_bytes(data)
    told = []
    write_report(run.path, told.append)
    damaged = read_record(data)
    assert bool(told) == bool(damaged.faults)
    try:
        run.rewind(iteration, told.append)
    except SkillSDError as error:
        pytest.fail(str(error))
    kept = {row["iteration"] for row in run.read_metrics()}
    assert kept == {row["iteration"] for row in damaged.rows if row["iteration"] <= iteration}
    assert all("\n" not in text for text in told)
    if damaged.damaged:
        (copy,) = run.path.glob("metrics.damaged*")
        assert copy.read_bytes() == data


@settings(fuzz, max_examples=100 if LONG else 5)
@given(files())
def test_charts_are_drawn_of_whatever_was_kept(run, file):
    run.metrics.write_bytes(file[1].replace(b'""', b'"reward"'))
    assert write_report(run.path).stat().st_size > 1000

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skillsd.errors import SkillSDError
from skillsd.runs.episodes import read_trajectories, write_trajectories
from skillsd.types import Trajectory, Turn


def example(sample=0):
    return Trajectory(
        "task/ü",
        7,
        sample,
        "prompt 🎁",
        [1, 2],
        [3, 4, 5],
        [1, 0, 1],
        [-0.5, 0.0, -0.25],
        [Turn("go", "böard\n#", True, {"action": "up", "moved": None})],
        "done",
        0.5,
        True,
        1.0,
        0.7,
        None,
        12,
    )


def test_episodes_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "a" / "000007.parquet"
    batch = [example(), example(1)]
    write_trajectories(path, batch)
    assert read_trajectories(path) == batch
    assert batch[0].id == "000007/task/ü/0"
    assert (batch[0].ids, batch[0].action_tokens) == ([1, 2, 3, 4, 5], 2)
    assert batch[0].digest() == batch[1].digest() != Trajectory("t", 1, 0, "", [1]).digest()
    write_trajectories(path, [])
    assert read_trajectories(path) == []
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_foreign_and_corrupt_files_are_refused(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(SkillSDError, match="not a trajectory file"):
        read_trajectories(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(SkillSDError, match="not a trajectory file"):
        read_trajectories(path)
    with pytest.raises(SkillSDError, match="not a trajectory file"):
        read_trajectories(tmp_path / "missing.parquet")

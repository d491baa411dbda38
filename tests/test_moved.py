"""Scripts that were written for version 0.1 go on."""

import importlib
import subprocess
import sys
import warnings

import pytest

from skillsd import UsageError
from skillsd.moved import MOVED

SCRIPT = """
from skillsd.envs.base import Score, Step, Task
from skillsd.rollout import Job, rollout
from skillsd.skills.summarize.base import SummaryRequest
from skillsd.trajectory import Trajectory, Turn, read_trajectories
from skillsd.doctor import examine
import skillsd.types, skillsd.rollouts.rollout
assert Trajectory is skillsd.types.Trajectory and rollout is skillsd.rollouts.rollout.rollout
"""


@pytest.mark.parametrize("name", MOVED)
def test_an_old_name_leads_to_where_things_are_now(name):
    sys.modules.pop(f"skillsd.{name}", None)
    try:
        new = importlib.import_module(f"skillsd.{MOVED[name].split()[0]}")
    except UsageError as error:
        pytest.skip(str(error))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        old = importlib.import_module(f"skillsd.{name}")
    public = [n for n, value in vars(new).items() if getattr(value, "__module__", None) == new.__name__]
    assert all(getattr(old, n) is getattr(new, n) for n in public)
    assert any(f"skillsd.{name} is now skillsd." in str(w.message) for w in told)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = old.nothing_of_the_kind


@pytest.mark.parametrize(
    ("module", "name"),
    [("config", "toml_value"), ("policy.scoring", "micro_batches"), ("training", "train"), ("training", "RunResult"),
     ("integrations.seeds", "SeededTasks"), ("compare.worker", "run_cell"), ("compare.tables", "grid")],
)  # fmt: skip
def test_a_name_is_found_where_version_0_1_had_it(module, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert hasattr(importlib.import_module(f"skillsd.{module}"), name)


def test_a_script_of_version_0_1_runs():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("skillsd.nothing_of_the_kind")

"""Scripts that were written for version 0.1 go on."""

import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from skillsd import UsageError
from skillsd.moved import MOVED

#: A module of version 0.1 a line, with its public names; without the command line, the scripts that AppWorld's own
#: environment runs, and what the changelog says is gone.
NAMES = Path(__file__).parent / "stored" / "names_0_1.txt"
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


@pytest.mark.parametrize("line", NAMES.read_text("utf-8").splitlines(), ids=lambda line: line.split()[0])
def test_every_name_is_found_where_version_0_1_had_it(line):
    module, *names = line.split()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = importlib.import_module(module)
        except UsageError as error:
            pytest.skip(str(error))
        assert [name for name in names if not hasattr(found, name)] == []


def test_a_script_of_version_0_1_runs():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("skillsd.nothing_of_the_kind")

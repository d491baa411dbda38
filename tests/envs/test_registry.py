"""Task sets by name: the user's own, and every way to get the name or the options wrong."""

import subprocess
import sys

import pytest

from skillsd.envs import make_taskset
from skillsd.errors import UsageError

MODULE = """
class Tasks:
    name, max_turns = "mine", 3
    def __init__(self, size=1):
        self.size = size
    def tasks(self, split):
        return []
    def make(self):
        return None

class NotTasks:
    pass

number = 5
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_for_test.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "broken_for_test.py").write_text("def (", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_module_of_ones_own_makes_its_task_set_with_the_options(mine):
    taskset = make_taskset("mine_for_test:Tasks", size=4)
    assert (taskset.name, taskset.size) == ("mine", 4)


def test_the_current_folder_is_searched(mine):
    """An installed command has no current folder on its path (here: -P), yet `module:attribute` must work there."""
    code = "from skillsd.envs import make_taskset; print(make_taskset('mine_for_test:Tasks').name)"
    out = subprocess.run([sys.executable, "-P", "-c", code], cwd=mine, capture_output=True, text=True)
    assert out.stdout.strip() == "mine", out.stderr


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("chess", {}, "known: .*sokoban.*module:attribute"),
        ("sokoban", {"colour": "red"}, "colour.*; options: variant, levels, test_levels, max_turns$"),
        ("sokoban", {"levels": 5}, "options: variant"),
        ("sokoban", {"variant": []}, "options: variant"),
        ("mine_for_test:Tasks", {"length": 1}, "length.*; options: size$"),
        ("mine_for_test:Other", {}, "cannot be imported.*Other"),
        ("mine_for_test:number", {}, "not callable"),
        ("mine_for_test:NotTasks", {}, "no task set: it needs name"),
        ("broken_for_test:Tasks", {}, "cannot be imported"),
        ("no.such.module:Tasks", {}, "cannot be imported"),
        (":Tasks", {}, "cannot be imported"),
        (".mine_for_test:Tasks", {}, "cannot be imported"),
        ("mine_for_test:", {}, "cannot be imported"),
    ],
)
def test_mistakes_are_told_in_one_line(mine, name, options, reason):
    with pytest.raises(UsageError, match=reason) as caught:
        make_taskset(name, **options)
    assert "\n" not in str(caught.value)

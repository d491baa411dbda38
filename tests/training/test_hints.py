"""Where a teacher's skill comes from."""

import pytest

from skillsd import UsageError, load_config, train
from skillsd.envs import boundary, make_taskset
from skillsd.skills.bank import SkillBank
from skillsd.training.hints import Hint, as_shown, from_bank, from_reference, in_hindsight
from skillsd.types import Skill, Task, Trajectory, Turn


def skill(text):
    return Skill(success_analysis=text, mistake_analysis="None.", golden_workflow="Go.")


def attempt(task, sample, success, turns):
    moves = [Turn("go", "ok", True) for _ in range(turns)]
    return Trajectory(task, 1, sample, "prompt", [1], reward=float(success), success=success, turns=moves)


class Teller:
    name = "teller"

    def summarize(self, request):
        if request.trajectory.task_id == "broken":
            raise ValueError("no idea")
        return skill(f"{request.task.id}, sample {request.trajectory.sample}")


def test_hindsight_tells_of_the_shortest_success_of_each_group():
    trajectories = [
        attempt("a", 0, False, 1), attempt("a", 1, True, 5), attempt("a", 2, True, 3), attempt("b", 0, False, 2),
        attempt("broken", 0, True, 2),
    ]  # fmt: skip
    warnings = []
    tasks = {name: Task(name, {}) for name in ("a", "b", "broken")}
    hints = in_hindsight(trajectories, tasks, Teller(), warnings.append)
    assert hints == {"a": Hint(skill("a, sample 2"), None)}
    assert len(warnings) == 1
    assert "no idea" in warnings[0]


def test_bank_hints_carry_the_id_that_is_credited(tmp_path):
    bank = SkillBank(tmp_path / "skills.sqlite")
    number = bank.add("a", skill("known"), 1.0)
    assert from_bank([Task("a", {}), Task("b", {})], bank) == {"a": Hint(skill("known"), number)}
    bank.close()


def test_a_control_keeps_the_credit_with_the_task():
    hints = {"a": Hint(skill("for a"), 1), "b": Hint(skill("for b"), 2)}
    assert as_shown(hints, "shuffled", 0) == {"a": Hint(skill("for b"), 1), "b": Hint(skill("for a"), 2)}


@pytest.mark.parametrize("count", [0, 3])
def test_references_are_the_task_sets_own(count):
    taskset = make_taskset("sokoban", variant="one_box")
    tasks = taskset.tasks("test")[:count]
    assert from_reference(tasks, taskset) == {t.id: Hint(taskset.reference(t), None) for t in tasks}


def test_a_task_without_skills_reads_the_best_of_its_kind(tmp_path):
    bank = SkillBank(tmp_path / "bank.sqlite", exploration=0.0)
    first, second = bank.add("a", skill("for a"), 0.2), bank.add("b", skill("for b"), 0.9)
    bank.add("c", skill("of another kind"), 1.0)
    tasks, kinds = [Task(name, {}) for name in "abxyz"], {**dict.fromkeys("abxy", "mail"), "c": "notes", "z": "files"}
    found = from_bank(tasks[2:], bank, kinds)
    assert {task: hint.id for task, hint in found.items()} == {"x": second, "y": first}  # each is read once at first
    bank.credit(first, 0.1)
    bank.credit(second, 0.8)
    found = from_bank(tasks, bank, kinds)
    assert {task: hint.id for task, hint in found.items()} == {"a": first, "b": second, "x": second, "y": second}
    assert from_bank(tasks[2:], bank) == {}
    assert bank.stats("b").retrievals == 4
    bank.close()


def test_only_a_task_set_that_tells_kinds_has_them(tmp_path):
    office = make_taskset("office")
    kinds = boundary.groups(office, office.tasks("train"))
    assert set(kinds.values()) == {"mail", "calendar", "notes", "files", "payments"}
    with pytest.raises(UsageError, match=r"skills.scope = group: env 'sokoban' does not tell"):
        train(load_config("sokoban-smoke", ["skills.scope=group"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()

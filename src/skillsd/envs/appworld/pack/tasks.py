"""From scenarios to tasks on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import scenarios
import world
from stage import SCENARIOS, Scenario, Stage

_EVALUATION = Path(__file__).with_name("evaluation.py")
#: What any use of an app may change beside what was asked for.
_SIDE_EFFECTS: dict[str, Any] = {f"{app}.User": ["last_logged_in"] for app in world.APPS}


@dataclass(frozen=True)
class PackTask:
    """One variant of one scenario."""

    kind: Scenario
    variant: int
    id: str = field(init=False)
    made: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"{self.kind.name}_{self.variant + 1}")

    @property
    def split(self) -> str:
        """train, dev or test, all variants of a scenario in the same one; practice and practice_test divide them."""
        return f"{self.kind.split}_test" if self.variant >= self.kind.variants - self.kind.held_out else self.kind.split

    @property
    def reference(self) -> list[str]:
        """Blocks of code that solve it."""
        return list(self.made["reference"])

    @property
    def wrong(self) -> list[list[str]]:
        """Blocks of code that a careless agent might write."""
        return list(self.made["wrong"])

    def manifest(self) -> dict[str, Any]:
        """What pack.json says of it."""
        return {
            "scenario": self.kind.name, "split": self.split, "difficulty": self.kind.difficulty,
            "apps": list(self.kind.apps), "instruction": self.made["instruction"],
        }  # fmt: skip


def all_tasks() -> Iterator[PackTask]:
    """Every task of the pack, scenario by scenario."""
    assert scenarios  # importing them has registered them
    for kind in SCENARIOS.values():
        for variant in range(kind.variants):
            yield PackTask(kind, variant)


def write(task: PackTask, data: Path, apps: list[str]) -> None:
    """Set the stage of one task and write its folder."""
    from appworld.collections.models import ModelCollection
    from appworld.common.constants import DB_VERSION

    memory, folder = f":memory:task_input-{task.id}", data / "tasks" / task.id
    models = ModelCollection.load(to_db_home_path=memory, from_db_home_path=str(data / "base_dbs"), load_apps=apps)
    models.start_db_tracker()
    stage = Stage(task.kind.name, task.kind.apps, task.variant, models)
    task.kind.stage(stage)
    _supervisor(stage)
    models.save(str(folder / "dbs"), format="changes", app_names=apps)
    models.stop_db_tracker()
    models.close()
    task.made.update(instruction=stage.instruction, reference=stage.reference, wrong=stage.wrong)
    user, truth = stage.user, folder / "ground_truth"
    truth.mkdir()
    specs = {
        "instruction": stage.instruction, "datetime": world.CLOCK, "db_version": DB_VERSION,
        "supervisor": {
            "first_name": user.first, "last_name": user.last, "email": user.email, "phone_number": user.phone
        },
    }  # fmt: skip
    tests = _tests(stage)
    lines = sum(block.count("\n") + 1 for block in stage.reference)
    calls = set(re.findall(r"apis\.(\w+\.\w+)", "\n".join(stage.reference)))
    metadata = {
        "difficulty": task.kind.difficulty, "num_apps": len(task.kind.apps), "num_apis": len(calls),
        "num_solution_code_lines": lines, "mode": "minimal",
    }  # fmt: skip
    for path, value in (
        (folder / "specs.json", specs),
        (truth / "metadata.json", metadata),
        (truth / "public_data.json", {}),
        (
            truth / "private_data.json",
            _private(stage, len(tests) - 1),
        ),
        (truth / "answer.json", stage.answer),
        (truth / "test_data.json", [{"requirement": text, "label": "no_op_fail"} for text in tests]),
    ):
        path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", "utf-8")
    (truth / "evaluation.py").write_bytes(_EVALUATION.read_bytes())


def _supervisor(stage: Stage) -> None:
    """The user in the app that tells agents whom they work for, and the task itself."""
    user, app = stage.user, stage.models.supervisor
    main = app.Supervisor.create_save(
        first_name=user.first, last_name=user.last, email=user.email, phone_number=user.phone, birthday=user.birthday,
        sex=user.sex,
    )  # fmt: skip
    app.Task.create_save(supervisor_id=main.id, instruction=stage.instruction)
    for name in world.APPS:
        app.AccountPassword.create_save(supervisor_id=main.id, account_name=name, password=user.password(name))


def _private(stage: Stage, tests: int) -> dict[str, Any]:
    """What evaluation.py goes by; ``tests`` is how many there are beside the one for everything."""
    return {"expected": stage.expected, "side_effects": {**_SIDE_EFFECTS, **stage.side_effects}, "tests": tests}


def _tests(stage: Stage) -> list[str]:
    """The requirements of evaluation.py for this task, in its words."""
    texts = ["assert the task was completed with the right answer."]
    for name, expected in sorted(stage.expected.items()):
        texts += [f"assert addition {i} to {name} was made." for i in range(1, len(expected["added"]) + 1)]
        texts += [f"assert change {i} to {name} was made." for i in range(1, len(expected["updated"]) + 1)]
        texts += [f"assert removal {i} from {name} was made." for i in range(1, len(expected["removed"]) + 1)]
    return [*texts, "assert all of it was done and nothing else."]

"""From scenarios to tasks on disk."""

from __future__ import annotations

import json
import random
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import world

VARIANTS = 3
_EVALUATION = Path(__file__).with_name("evaluation.py")
#: What any use of an app may change beside what was asked for.
_SIDE_EFFECTS: dict[str, Any] = {f"{app}.User": ["last_logged_in"] for app in world.APPS}
_SCENARIOS: dict[str, Scenario] = {}


@dataclass(frozen=True)
class Scenario:
    """A kind of task; its variants differ in people, names and numbers."""

    name: str
    difficulty: int
    split: str
    apps: tuple[str, ...]
    stage: Callable[[Stage], None]
    variants: int = VARIANTS
    #: The last so many of the variants are in the split of that name with "_test" behind it.
    held_out: int = 0


def scenario(
    difficulty: int, split: str, *apps: str, variants: int = VARIANTS, held_out: int = 0
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Register the decorated function; its name, without underscores, is the scenario's."""

    def register(function: Callable[[Stage], None]) -> Callable[[Stage], None]:
        name = function.__name__.replace("_", "")
        assert name not in _SCENARIOS, name
        _SCENARIOS[name] = Scenario(name, difficulty, split, apps, function, variants, held_out)
        return function

    return register


class Stage:
    """One variant being set up: its user, the rows that it adds to the world, what is asked and what is expected."""

    def __init__(self, name: str, apps: tuple[str, ...], variant: int, models: Any) -> None:
        self.apps, self.variant, self.models = apps, variant, models
        self.rng = random.Random(f"{name} {variant}")
        self.user = self.rng.choice(world.people())
        self.friends = world.friends(self.user)
        self.instruction, self.answer = "", None
        self.expected: dict[str, dict[str, Any]] = {}
        #: Tables that may change besides: "added" (new rows), or the fields of old rows that may.
        self.side_effects: dict[str, Any] = {}
        self.reference: list[str] = []
        self.wrong: list[list[str]] = []

    def pick(self, *choices: Any) -> Any:
        """The choice of this variant: the first for the first, and so on."""
        return choices[self.variant % len(choices)]

    def add(self, model: str, **fields: Any) -> Any:
        """A row in the world, before the agent comes."""
        app, name = model.split(".")
        return self.models[app][name].create_save(**fields)

    def note(self, title: str, content: str, *tags: str, pinned: bool = False) -> int:
        """A note of the user's."""
        row = self.add(
            "simple_note.Note", user_id=self.user.id, title=title, content=content, tags=list(tags), pinned=pinned
        )
        return int(row.id)

    def project(self, name: str) -> int:
        """A todoist project of the user's."""
        project = self.add("todoist.Project", user_id=self.user.id, name=name, color="blue", is_inbox=False)
        self.add("todoist.ProjectCollaboratorLink", project_id=project.id, user_id=self.user.id)
        return int(project.id)

    def todo(self, project: int, title: str, **fields: Any) -> int:
        """A task in one of the user's projects, behind the others."""
        order = self.models.todoist.Task.count(project_id=project)
        given = {"priority": "medium", "order_index": order, **fields}
        return int(self.add("todoist.Task", project_id=project, user_id=self.user.id, title=title, **given).id)

    def file(self, path: str, content: str) -> int:
        """A file in the user's home folder (the folders on the way are made)."""
        folder, *_ = f"{self.user.home}{path}".rpartition("/")
        parts = folder.split("/")
        for depth in range(2, len(parts) + 1):
            place = "/".join(parts[:depth]) + "/"
            if not self.models.file_system.Directory.exists(user_id=self.user.id, path=place):
                self.add("file_system.Directory", user_id=self.user.id, path=place)
        row = self.add("file_system.File", user_id=self.user.id, path=f"{self.user.home}{path}", content=content)
        return int(row.id)

    def expect_added(self, model: str, **fields: Any) -> None:
        """The agent is to add a row with these fields."""
        self._expected(model)["added"].append(fields)

    @staticmethod
    def new(model: str, **fields: Any) -> dict[str, Any]:
        """Stands for the id of a row that the agent is to add as well."""
        return {"row": model, "fields": fields}

    def expect_updated(self, model: str, key: int, **fields: Any) -> None:
        """The agent is to change these fields of a row, and no others."""
        self._expected(model)["updated"][str(key)] = fields

    def expect_removed(self, model: str, key: int) -> None:
        """The agent is to remove a row."""
        self._expected(model)["removed"].append(key)

    def solve(self, body: str, answer: str | None = None, **values: Any) -> None:
        """The reference solution: ``body`` with <<name>> as the value's literal; ``answer`` is an expression."""
        self.reference = self._blocks(body, answer, values)

    def mistake(self, body: str, answer: str | None = None, **values: Any) -> None:
        """A plausible solution that is wrong."""
        self.wrong.append(self._blocks(body, answer, values))

    def _expected(self, model: str) -> dict[str, Any]:
        return self.expected.setdefault(model, {"added": [], "updated": {}, "removed": []})

    def _blocks(self, body: str, answer: str | None, values: dict[str, Any]) -> list[str]:
        login = ["passwords = {p['account_name']: p['password'] for p in apis.supervisor.show_account_passwords()}"]
        for app in self.apps:
            login.append(
                f"{app}_token = apis.{app}.login(username={self.user.login(app)!r}, "
                f"password=passwords[{app!r}])['access_token']"
            )
        filled = re.sub(r"<<(\w+)>>", lambda found: repr(values[found[1]]), textwrap.dedent(body).strip())
        done = f"apis.supervisor.complete_task({f'answer={answer}' if answer else ''})"
        return ["\n".join(login), f"{filled}\n{done}" if filled else done]


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
    import scenarios  # registers them

    assert scenarios
    for kind in _SCENARIOS.values():
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

"""What a scenario is, and the stage on which it sets up one of its variants."""

from __future__ import annotations

import random
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import world

VARIANTS = 3
SCENARIOS: dict[str, Scenario] = {}


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
        assert name not in SCENARIOS, name
        SCENARIOS[name] = Scenario(name, difficulty, split, apps, function, variants, held_out)
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

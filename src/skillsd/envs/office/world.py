"""The conventions of an office, drawn from the seed of its world, and what its tools are in every office."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from skillsd.seeding import derive_seed

Difficulty = Literal["easy", "middle", "hard"]
DIFFICULTIES: tuple[Difficulty, ...] = get_args(Difficulty)

#: What a person can log in by.
LOGINS = ("name", "email", "phone", "badge")
OPENINGS = ("open", "unlock", "start", "connect")
CONFIRMATIONS = ("confirm", "save", "submit", "release")
FINISHES = ("done", "finish", "report", "close")


@dataclass(frozen=True)
class Tool:
    """What a tool is in every office: its one ``operation``, what that needs (two slots, each with the names that it
    may have), and the forms that the second slot's value may be written in."""

    name: str
    operation: str
    slots: Mapping[str, tuple[str, ...]]
    forms: tuple[str, ...]


#: In a form, ``{v}`` is the plain value, as the person who asks says it.
TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("mail", "send", {"text": ("text", "body", "message", "content"),
                              "person": ("to", "recipient", "address", "receiver")},
             ("{v}", "@{v}", "{v}@office", "<{v}>")),
        Tool("calendar", "add", {"title": ("title", "event", "label", "what"),
                                 "day": ("day", "date", "when", "on")},
             ("{v}", "{v}.", "day {v}", "d{v}")),
        Tool("notes", "write", {"text": ("text", "body", "line", "content"),
                                "tag": ("tag", "topic", "folder", "heading")},
             ("{v}", "#{v}", "[{v}]", "{v}/")),
        Tool("files", "share", {"person": ("user", "person", "member", "partner"),
                                "file": ("file", "id", "number", "document")},
             ("{v}", "F{v}", "doc-{v}", "no.{v}")),
        Tool("payments", "pay", {"person": ("to", "payee", "account", "receiver"),
                                 "amount": ("amount", "sum", "value", "total")},
             ("{v}", "{v} EUR", "EUR {v}", "{v}.00")),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Custom:
    """How one tool wants to be called: each slot's name, the form of the formatted slot, what logs in, and what has to
    come before and after (None: nothing)."""

    names: Mapping[str, str]
    form: str
    login: str
    opening: str | None
    confirmation: str | None


@dataclass(frozen=True)
class World:
    """The conventions of one office. Where a difficulty leaves a convention out, it is the one that everybody expects:
    login by name, nothing to open or to confirm, values as they are said."""

    seed: int
    difficulty: Difficulty
    customs: Mapping[str, Custom]
    finish: str

    @classmethod
    def draw(cls, seed: int, difficulty: Difficulty) -> World:
        """The world of ``seed``. Easy: names and the end are its own (2 facts a task); middle: what logs in and the
        confirmation too (4); hard: the opening and the form of values too (6)."""
        rng = random.Random(derive_seed("office", seed))
        customs = {}
        for tool in TOOLS.values():
            custom = Custom(
                names={slot: rng.choice(names) for slot, names in tool.slots.items()},
                form=rng.choice(tool.forms[1:]),
                login=rng.choice(LOGINS[1:]),
                opening=rng.choice(OPENINGS),
                confirmation=rng.choice(CONFIRMATIONS),
            )
            if difficulty != "hard":
                custom = replace(custom, form="{v}", opening=None)
            if difficulty == "easy":
                custom = replace(custom, login="name", confirmation=None)
            customs[tool.name] = custom
        return cls(seed, difficulty, customs, rng.choice(FINISHES))

    def calls(self, tool: str, values: Mapping[str, str], identity: Mapping[str, str]) -> list[str]:
        """The calls that do the job ``values`` (by slot) in this world, for the person ``identity``, in order."""
        custom, operation = self.customs[tool], TOOLS[tool].operation
        arguments = {custom.names[slot]: self.written(tool, slot, value) for slot, value in values.items()}
        found = [call(tool, "login", {custom.login: identity[custom.login]})]
        if custom.opening:
            found.append(call(tool, custom.opening, {}))
        found.append(call(tool, operation, arguments))
        if custom.confirmation:
            found.append(call(tool, custom.confirmation, {}))
        return [*found, call("office", self.finish, {})]

    def written(self, tool: str, slot: str, value: str) -> str:
        """``value`` in the form that ``tool`` wants for ``slot``."""
        return self.customs[tool].form.format(v=value) if slot == formatted(tool) else value


def formatted(tool: str) -> str:
    """The slot of ``tool`` whose value has a form: the last one."""
    return list(TOOLS[tool].slots)[-1]


def call(tool: str, operation: str, arguments: Mapping[str, str]) -> str:
    """A call as text."""
    told = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
    return f"{tool}.{operation}({', '.join(told)})"

"""The facts of a world, read from what states them: a call that worked, an error, a skill; and made false."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping

from skillsd.envs.office.calls import Call, parse_call
from skillsd.envs.office.world import (
    CONFIRMATIONS,
    FINISHES,
    LOGINS,
    OPENINGS,
    TOOLS,
    World,
    call,
    formatted,
)

#: By what they are about: "login", "opening", "confirmation", "form", "finish", and a tool's slots (their names).
Facts = dict[str, str]

_CALL = re.compile(r"[a-z_]+\.[a-z_]+\([^()]*\)")
_LOGIN = re.compile(r"(\w+): one logs in by (\w+)")
_NAMES = re.compile(r"(\w+)(\.\w+: the arguments are )(\w+) and (\w+)")
_FORM = re.compile(r'(\w+)(\.\w+: )(\w+)( is written like )"([^"]*)"')


def facts(text: str, tool: str) -> Facts:
    """What ``text`` states about ``tool`` and about how a task ends."""
    found: Facts = {}
    for match in _CALL.finditer(text):
        if called := parse_call(match[0]):
            found |= _of_call(called, tool)
    for of, kind in _LOGIN.findall(text):
        if of == tool:
            found["login"] = kind
    for of, _, *names in _NAMES.findall(text):
        found |= {slot_of(tool, name): name for name in names} if of == tool else {}
    for of, *_, example in _FORM.findall(text):
        if of == tool:
            found["form"] = form_of(tool, example)
    return found


def _of_call(called: Call, tool: str) -> Facts:
    if called.tool == "office":
        return {"finish": called.operation} if called.operation in FINISHES else {}
    if called.tool != tool:
        return {}
    if called.operation == "login":
        return {"login": name for name in called.arguments}
    if called.operation in OPENINGS:
        return {"opening": called.operation}
    if called.operation in CONFIRMATIONS:
        return {"confirmation": called.operation}
    if called.operation != TOOLS[tool].operation:
        return {}
    found = {slot_of(tool, name): name for name in called.arguments}
    if form := called.arguments.get(found.get(formatted(tool), "")):
        found["form"] = form_of(tool, form)
    return found


def slot_of(tool: str, name: str) -> str:
    """The slot of ``tool`` that an argument ``name`` may stand for; "" if there is none."""
    return next((slot for slot, names in TOOLS[tool].slots.items() if name in names), "")


def form_of(tool: str, written: str) -> str:
    """The form in which a value is ``written``."""
    for form in sorted(TOOLS[tool].forms, key=len, reverse=True):
        before, after = form.split("{v}")
        if written.startswith(before) and written.endswith(after) and len(written) > len(before + after):
            return form
    return "{v}"


def differing(world: World, tool: str, rng: random.Random) -> World:
    """Another world of the same difficulty in which nothing of ``tool``, nor the end of a task, is as in ``world``."""
    while True:
        other = World.draw(rng.randrange(10**9), world.difficulty)
        mine, theirs = (dict(_flat(each, tool)) for each in (world, other))
        if all(theirs[about] != fact for about, fact in mine.items() if len(_choices(tool, about, world)) > 1):
            return other


def _flat(world: World, tool: str) -> list[tuple[str, str | None]]:
    custom = world.customs[tool]
    told = [("login", custom.login), ("opening", custom.opening), ("confirmation", custom.confirmation),
            ("form", custom.form), ("finish", world.finish)]  # fmt: skip
    return [*told, *custom.names.items()]


def _choices(tool: str, about: str, world: World) -> tuple[str | None, ...]:
    """What a fact may be in a world of this difficulty."""
    easy, hard = world.difficulty == "easy", world.difficulty == "hard"
    found: dict[str, tuple[str | None, ...]] = {
        "login": LOGINS[:1] if easy else LOGINS[1:],
        "opening": OPENINGS if hard else (None,),
        "confirmation": (None,) if easy else CONFIRMATIONS,
        "form": TOOLS[tool].forms[1:] if hard else ("{v}",),
        "finish": FINISHES,
        **TOOLS[tool].slots,
    }
    return found[about]


def falsified(text: str, identity: Mapping[str, str], rng: random.Random) -> str:
    """``text`` with every fact in it, of whatever tool, made another: the same one wherever it is stated."""
    other: dict[tuple[str, str], str] = {}

    def lie(tool: str, about: str, fact: str, choices: tuple[str, ...]) -> str:
        if (tool, about) not in other:
            other[tool, about] = rng.choice([choice for choice in choices if choice != fact])
        return other[tool, about]

    def name(tool: str, said: str) -> str:
        slot = slot_of(tool, said)
        return lie(tool, slot, said, TOOLS[tool].slots[slot]) if slot else said

    def written(tool: str, value: str) -> str:
        form = form_of(tool, value)
        before, after = form.split("{v}")
        plain = value[len(before) : len(value) - len(after)]
        return lie(tool, "form", form, TOOLS[tool].forms).format(v=plain)

    def of_call(match: re.Match[str]) -> str:
        called = parse_call(match[0])
        if called is None:
            return match[0]
        tool, operation = called.tool, called.operation
        if tool == "office" and operation in FINISHES:
            return call(tool, lie(tool, "finish", operation, FINISHES), {})
        if tool not in TOOLS:
            return match[0]
        if operation == "login":
            kinds = [lie(tool, "login", kind, LOGINS) for kind in called.arguments]
            return call(tool, operation, {kind: identity[kind] for kind in kinds})
        for about, choices in (("opening", OPENINGS), ("confirmation", CONFIRMATIONS)):
            if operation in choices:
                return call(tool, lie(tool, about, operation, choices), {})
        values = {
            name(tool, said): written(tool, value) if slot_of(tool, said) == formatted(tool) else value
            for said, value in called.arguments.items()
        }
        return call(tool, operation, values)

    text = _CALL.sub(of_call, text)
    text = _LOGIN.sub(lambda m: f"{m[1]}: one logs in by {lie(m[1], 'login', m[2], LOGINS)}", text)
    text = _NAMES.sub(lambda m: f"{m[1]}{m[2]}{name(m[1], m[3])} and {name(m[1], m[4])}", text)
    return _FORM.sub(lambda m: f"{m[1]}{m[2]}{name(m[1], m[3])}{m[4]}{json.dumps(written(m[1], m[5]))}", text)

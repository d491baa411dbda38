"""The facts of a world, read from what states them: a call that worked, an error, a skill; and made false."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import replace

from skillsd.envs.office.calls import Call, parse_call
from skillsd.envs.office.world import (
    CONFIRMATIONS,
    FINISHES,
    LOGINS,
    OPENINGS,
    TOOLS,
    Custom,
    World,
    call,
    formatted,
)
from skillsd.seeding import derive_seed

#: By what they are about: "login", "opening", "confirmation", "form", "finish", and a tool's slots (their names).
Facts = dict[str, str]

#: Customs of offices that have none of their own.
_EXPECTED = (None, "name", "{v}")

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
        return {"login": next(iter(called.arguments))} if called.arguments else {}
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


def another(world: World) -> World:
    """An office in which no custom is as in ``world``, but for those that every office of its difficulty has."""
    rng = random.Random(derive_seed("another office", world.seed))
    customs, drawn = dict[str, Custom](), world
    while len(customs) < len(TOOLS) or drawn.finish == world.finish:
        drawn = World.draw(rng.randrange(10**9), world.difficulty)
        customs |= {t: c for t, c in drawn.customs.items() if t not in customs and _differ(c, world.customs[t])}
    return replace(drawn, customs=customs)


def _differ(one: Custom, other: Custom) -> bool:
    """Whether the two have no fact in common that a difficulty leaves open."""
    pairs = [(one.names[slot], other.names[slot]) for slot in one.names]
    pairs += [(getattr(one, name), getattr(other, name)) for name in ("login", "opening", "confirmation", "form")]
    return all(a != b or b in _EXPECTED for a, b in pairs)


def falsified(text: str, identity: Mapping[str, str], seed: int) -> str:
    """``text`` with every fact in it, of whatever tool, made another: the same one wherever ``seed`` has it."""

    def lie(tool: str, about: str, fact: str, choices: tuple[str, ...]) -> str:
        rng = random.Random(derive_seed("false", seed, tool, about))
        return rng.choice([choice for choice in choices if choice != fact])

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

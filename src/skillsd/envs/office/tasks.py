"""What people ask for: one job for one tool, in their words. The same tasks in every world."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache

from skillsd.envs.office.world import TOOLS
from skillsd.seeding import derive_seed
from skillsd.types import Task

#: Tasks of a split. Those of ``warm_up`` are each in a world of its own.
SIZES = {"train": 64, "test": 64, "validation": 64, "extra": 96, "warm_up": 2000}
#: Worlds from here on are those of ``warm_up``.
WARM_UP_WORLDS = 1_000_000

FIRST = (  # noqa: SIM905
    "ada ben cleo dan eva finn gina hugo iris jan kira leo mia nils olga paul rosa sam tina uwe vera wim yara zoe"
).split()
LAST = "berg moser klein vogel wolf stein kurz lang roth beck".split()  # noqa: SIM905
TOPICS = (  # noqa: SIM905
    "milk paint garden travel books lunch music rent tools wood paper light water coffee bread tea plants windows"
).split()
WORDS = (  # noqa: SIM905
    "the train is late,the door is open,we meet at noon,the key is here,lunch is ready,the lift is broken,"
    "the guests are here,it rains again,the bill is paid,the lamp is new,please call back,the room is free,"
    "the printer is empty,bring the map,the plan has changed,the shop is closed"
).split(",")
EVENTS = (  # noqa: SIM905
    "dentist,team lunch,choir,budget talk,fire drill,yoga,visit,tax review,interview,board game,concert,training"
).split(",")

#: How each job is asked for.
ASKED: dict[str, tuple[str, ...]] = {
    "mail": ("Mail {person} this: {text}", "Please let {person} know by mail: {text}",
             "Send {person} a message that says: {text}"),
    "calendar": ("Put this on day {day} of the calendar: {title}", "On day {day} there is this event: {title}",
                 "Please enter for day {day}: {title}"),
    "notes": ("Note under {tag}: {text}", "Write this down with the tag {tag}: {text}",
              "Keep a note on {tag} that says: {text}"),
    "files": ("Share file {file} with {person}", "Give {person} access to file {file}",
              "Let {person} see file {file}"),
    "payments": ("Pay {person} {amount} euros", "Transfer {amount} euros to {person}",
                 "Please send {person} {amount} euros from the till"),
}  # fmt: skip


def draw_values(tool: str, rng: random.Random) -> dict[str, str]:
    """The values of a job, by slot, as a person says them."""
    drawn = {
        "person": rng.choice(FIRST),
        "text": rng.choice(WORDS),
        "title": rng.choice(EVENTS),
        "day": str(rng.randint(1, 28)),
        "tag": rng.choice(TOPICS),
        "file": str(rng.randint(10, 99)),
        "amount": str(rng.randint(2, 95)),
    }
    return {slot: drawn[slot] for slot in TOOLS[tool].slots}


def draw_identity(rng: random.Random) -> dict[str, str]:
    """Whom the agent works for: what each kind of login wants."""
    first, last = rng.choice(FIRST), rng.choice(LAST)
    return {
        "name": f"{first} {last}",
        "email": f"{first}.{last}@office",
        "phone": f"{rng.randint(10, 99)} {rng.randint(10, 99)}",
        "badge": f"B{rng.randint(10, 99)}",
    }


def ask(tool: str, values: Mapping[str, str], wording: int) -> str:
    """The request in one of its wordings."""
    return ASKED[tool][wording % len(ASKED[tool])].format_map(values)


@cache
def make_tasks(split: str) -> tuple[Task, ...]:
    """The tasks of ``split``, the same ones in every world. No job is in two splits; only ``warm_up`` has some twice.

    Raises :class:`KeyError` for an unknown split.
    """
    before = list(SIZES)[: list(SIZES).index(split)] if split in SIZES else []
    seen = {_job(task.data["tool"], task.data["values"]) for other in before for task in make_tasks(other)}
    rng, tasks = random.Random(derive_seed("office tasks", split)), list[Task]()
    while len(tasks) < SIZES[split]:
        tool = list(TOOLS)[len(tasks) % len(TOOLS)]
        values = draw_values(tool, rng)
        if (job := _job(tool, values)) in seen:
            continue
        if split != "warm_up":
            seen.add(job)
        data = {"tool": tool, "values": values, "identity": draw_identity(rng), "wording": rng.randrange(3)}
        if split == "warm_up":
            data["world"] = WARM_UP_WORLDS + len(tasks)
        tasks.append(Task(f"{split}-{len(tasks):03d}", data))
    return tuple(tasks)


def _job(tool: str, values: Mapping[str, str]) -> tuple[str, ...]:
    return (tool, *values.values())

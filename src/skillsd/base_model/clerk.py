"""Training episodes for the embedded office model: a careless clerk who does what it is told.

Under the plain prompt it guesses an office's customs, tries the same again after an error, and heeds some of what
errors tell. With a skill in front of it, it does what the skill states about the calls that it makes, true or false,
and guesses the rest as before. A skill that states nothing (empty, random words) changes nothing. Every episode is in a
world of its own: what is learned is to follow a stated fact, and no world's facts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from skillsd.envs.office.environment import MAX_TURNS, Office
from skillsd.envs.office.facts import Facts, facts
from skillsd.envs.office.rules import NOT_YET, tell
from skillsd.envs.office.tasks import SIZES, draw_identity, draw_values, make_tasks
from skillsd.envs.office.world import DIFFICULTIES, FINISHES, LOGINS, TOOLS, World, call, formatted
from skillsd.seeding import derive_seed
from skillsd.skills.controls import show
from skillsd.types import Skill, Task

#: How often each view is taught: no skill; the skill of an attempt at this task, at another for the same tool, for
#: another tool; of another world; and skills that state nothing.
VIEWS = {"plain": 0.3, "own": 0.25, "alike": 0.15, "other": 0.05, "foreign": 0.12, "senseless": 0.13}
#: How often a clerk heeds what an error tells of names of arguments, of the end, and of anything else: a trait of the
#: whole episode.
_HEEDED = {"names": 0.2, "finish": 0.2}
_OTHERS_HEEDED = 0.95
#: How likely it is to try the same again when it does not, ...
_STUBBORN = 0.9
#: ... to take an operation that failed, or that is not confirmed, for the end of the job, ...
_EAGER = 0.15
#: ... to write a value as it was said, without guessing a form, ...
_AS_SAID = 0.5
#: ... and to guess what it was told.
_SLIP = 0.02
#: Share of the lessons that are drills.
_DRILLS = 0.2
#: Worlds of lessons: behind those that tasks are played in.
_WORLDS = (10_000_000, 2_000_000_000)


def message(text: str) -> str:
    """What a clerk writes to make a call."""
    return f"```{text}```"


@dataclass
class Lesson:
    """One episode: (message, answer) by turn, whether each call worked, and whether each message is to be learned."""

    prompt: str
    skill: Skill | None = None
    turns: list[tuple[str, str]] = field(default_factory=list)
    worked: list[bool] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)

    def exchanges(self) -> list[tuple[str, str]]:
        """(message, answer) by turn."""
        return self.turns


class Clerk:
    """Chooses the next call of an episode. ``told``: what a skill states."""

    def __init__(self, rng: random.Random, task: Task, told: Facts) -> None:
        data: Any = task.data
        self.rng, self.told = rng, told
        self.tool, self.values, self.identity = data["tool"], data["values"], data["identity"]
        heeds = {about: rng.random() < chance for about, chance in _HEEDED.items()}
        others = rng.random() < _OTHERS_HEEDED
        self.heeds = {about: heeds.get("names" if about in self.values else about, others) for about in self._abouts()}
        self.eager = rng.random() < _EAGER
        self.heard: Facts = {}
        self.guesses: dict[str, str | None] = {}
        self.logged_in = self.opened = self.operated = self.waiting = self.ended = False

    def _abouts(self) -> tuple[str, ...]:
        return ("login", "opening", "confirmation", "form", "finish", *self.values)

    def hear(self, ok: bool, answer: str) -> None:
        """Take in the answer to a call, its own or not."""
        self.heard |= facts(answer, self.tool)
        if not answer.startswith(self.tool):
            return
        self.logged_in |= ok and answer.endswith("logged in.")
        self.opened |= ok and answer.endswith("ready.")
        self.waiting = ok and NOT_YET in answer
        self.operated |= ok and (answer.endswith("done.") or self.waiting)
        self.ended |= self.eager and answer.startswith(f"{self.tool}.")  # it has tried

    def next(self) -> str:
        """The next call."""
        if not self.logged_in:
            kind = self._fact("login") or LOGINS[0]
            return call(self.tool, "login", {kind: self.identity[kind]})
        if self.operated or (self.ended and not {*self.values} <= {*self.told}):
            confirmation = self._fact("confirmation") if self.waiting else None
            if confirmation and ("confirmation" in self.told or not self.eager):
                return call(self.tool, confirmation, {})
            return call("office", self._fact("finish") or FINISHES[0], {})
        if not self.opened and (opening := self._fact("opening")):
            return call(self.tool, opening, {})
        names = {slot: self._fact(slot) or slot for slot in self.values}
        form = self._fact("form") or "{v}"
        last = formatted(self.tool)
        values = {slot: form.format(v=value) if slot == last else value for slot, value in self.values.items()}
        return call(self.tool, TOOLS[self.tool].operation, {names[slot]: value for slot, value in values.items()})

    def _fact(self, about: str) -> str | None:
        if about in self.heard and self.heeds[about]:
            return self.heard[about]
        if about in self.told and self.rng.random() >= _SLIP:
            return self.told[about]
        if about not in self.guesses or self.rng.random() >= _STUBBORN:
            self.guesses[about] = self._guess(about)
        return self.guesses[about]

    def _guess(self, about: str) -> str | None:
        if about in ("opening", "confirmation"):
            return None  # nobody expects these
        choices = {"login": LOGINS, "form": TOOLS[self.tool].forms, "finish": FINISHES}.get(about)
        if about == "form" and self.rng.random() < _AS_SAID:
            return "{v}"
        return self.rng.choice(choices or TOOLS[self.tool].slots[about])


def play(rng: random.Random, task: Task, told: Facts, difficulty: Any, careless: float = 0.0) -> tuple[Lesson, Office]:
    """An episode of a clerk who was ``told``; a ``careless`` share of turns are those of one who was told nothing, and
    are not learned: they lead where a reader must know its way as well."""
    office = Office(0, difficulty, "short")
    lesson = Lesson(office.reset(task))
    reader, novice = Clerk(rng, task, told), Clerk(rng, task, {})
    while len(lesson.turns) < MAX_TURNS and not office.finished:
        learned = rng.random() >= careless
        text = message((reader if learned else novice).next())
        step = office.step(text)
        for clerk in (reader, novice):
            clerk.hear(step.info["ok"], step.observation)
        lesson.turns.append((text, step.observation))
        lesson.worked.append(step.info["ok"])
        lesson.learned.append(learned)
    return lesson, office


def skill_of(lesson: Lesson, success: bool) -> Skill:
    """What the rules summariser makes of an episode."""
    found = zip(lesson.turns, lesson.worked, strict=True)
    return tell([(said.strip("`"), ok, answer) for (said, answer), ok in found], success)


def lessons(seed: int, count: int) -> Iterator[Lesson]:
    """``count`` episodes of ``seed``; none does a job that a task set's task asks for.

    The first are drills: the skill tells everything, and nothing is guessed. From these copying is learned soonest.
    """
    rng = random.Random(derive_seed(seed, "clerk"))
    for number in range(count):
        if number < _DRILLS * count:
            yield _drill(rng)
            continue
        world = World.draw(rng.randrange(*_WORLDS), rng.choice(DIFFICULTIES))
        tool = rng.choice(list(TOOLS))
        task = _task(rng, tool, world)
        view = rng.choices(list(VIEWS), list(VIEWS.values()))[0]
        skill = None if view == "plain" else _skill(rng, view, task, world)
        told = facts(skill.text(), tool) if skill else {}
        careless = rng.choice((0.0, 0.0, 0.3, 0.6)) if skill else 0.0
        lesson, _ = play(rng, task, told, world.difficulty, careless)
        lesson.skill = skill
        yield lesson


def _drill(rng: random.Random) -> Lesson:
    world, tool = World.draw(rng.randrange(*_WORLDS), "hard"), rng.choice(list(TOOLS))
    task, other = _task(rng, tool, world), _task(rng, tool, world)
    source = rng.choice((task, other)).data
    calls = world.calls(tool, source["values"], source["identity"])
    lesson, _ = play(rng, task, facts(" ".join(calls), tool), world.difficulty)
    lesson.skill = tell([(text, True, "") for text in calls], True)
    return lesson


def _skill(rng: random.Random, view: str, task: Task, world: World) -> Skill:
    tool = str(task.data["tool"])
    if view == "foreign":
        world = World.draw(rng.randrange(*_WORLDS), world.difficulty)
    of = rng.choice([other for other in TOOLS if other != tool]) if view == "other" else tool
    source = {**task.data, "world": world.seed} if view in ("own", "senseless") else _task(rng, of, world).data
    truth = facts(" ".join(world.calls(of, source["values"], source["identity"])), of)
    share = rng.choice((0.0, 0.4, 0.8, 1.0))
    knows = {about: fact for about, fact in truth.items() if rng.random() < share}
    lesson, office = play(rng, Task("", source), knows, world.difficulty)
    skill = skill_of(lesson, office.score().success)
    if view == "senseless":
        shown = show(rng.choice(("empty", "random_text")), {"": skill}, rng.randrange(10**9))[""]
    elif view in ("own", "alike") and rng.random() < 0.15:
        shown = show(rng.choice(("no_mistake_analysis", "no_golden_workflow")), {"": skill}, 0)[""]
    else:
        shown = skill
    assert shown is not None
    return shown


def _task(rng: random.Random, tool: str, world: World) -> Task:
    while True:
        values = draw_values(tool, rng)
        if (tool, *values.values()) not in _held_out():
            break
    data = {"tool": tool, "values": values, "identity": draw_identity(rng), "wording": rng.randrange(3)}
    return Task("", {**data, "world": world.seed})


@cache
def _held_out() -> frozenset[tuple[str, ...]]:
    """Jobs of the splits that are trained on and tested on."""
    tasks = (task.data for split in SIZES if split != "warm_up" for task in make_tasks(split))
    return frozenset((data["tool"], *data["values"].values()) for data in tasks)

"""Training episodes for the embedded AppWorld model: a careless agent that reads what it is told.

Under the plain prompt it guesses: names of arguments, whether a call wants the token, whom a login goes by; it tries
the same again after an error, and often forgets to complete the task. With a skill in front of it, it does what the
skill tells about the calls that it makes, and goes on guessing about the others. What the apps answer is recorded on
the real engine, once for each form of a call (:func:`record`); the episodes themselves are then made without it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from skillsd.envs.appworld.environment import AppWorldTasks, prompt_template
from skillsd.envs.appworld.pack import practice, world
from skillsd.envs.appworld.pack.practice import Kind
from skillsd.envs.appworld.rules import AppWorldRules
from skillsd.errors import SkillSDError
from skillsd.seeding import derive_seed
from skillsd.types import Skill, SummaryRequest, Task, Trajectory, Turn

MAX_TURNS = 6
#: How often each view is taught: no skill, or the skill of an attempt at this task, at one like it, at another kind.
VIEWS = {"plain": 0.35, "own": 0.4, "alike": 0.1, "foreign": 0.15}

#: How likely the careless agent is to get the names of a call's arguments right ...
_NAMES = {"project": 0.6}
_OTHER_NAMES = 0.3
#: ... to give the token, to log in first, to log in to the phone by number, to complete the task ...
_TOKEN, _LOGIN, _NUMBER, _COMPLETE = 0.55, 0.9, 0.3, 0.55
#: ... and to try the same again after an error.
_STUBBORN = 0.6
#: What a reader still does carelessly.
_SLIP = 0.03

_DONE, _IDLE = "apis.supervisor.complete_task()", "print('done')"


@dataclass(frozen=True)
class Form:
    """One of the blocks that an agent may write; ``guessed``: with the wrong argument names or the wrong user name."""

    what: str
    guessed: bool = False
    token: bool = False

    def code(self, kind: Kind, values: dict[str, str]) -> str:
        """The block for ``kind`` with ``values``."""
        if self.what == "login":
            names = ("email", "phone_number")
            right = practice.username(kind.app)
            return practice.login(kind.app, names[names[0] == right] if self.guessed else right)
        if self.what == "call":
            return kind.call(values, guessed=self.guessed, token="token" if self.token else None)
        return _DONE if self.what == "complete" else _IDLE


LOGIN, COMPLETE, IDLE = Form("login"), Form("complete"), Form("idle")
CALLS = tuple(Form("call", guessed, token) for guessed in (False, True) for token in (False, True))
RIGHT = Form("call", False, True)
#: (kind, form, whether the agent is logged in) to what is answered, with {slots} for the values.
Answers = dict[tuple[str, Form, bool], str]


@dataclass
class Episode:
    """The turns of one episode as (form, code, observation), and whether each is to be learned."""

    kind: Kind
    values: dict[str, str]
    prompt: str
    skill: Skill | None = None
    turns: list[tuple[Form, str, str]] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)

    def exchanges(self) -> list[tuple[str, str]]:
        """(message, answer) by turn."""
        return [(message(code), answer) for _, code, answer in self.turns]

    @property
    def called(self) -> bool:
        """Whether the call was made as it should be."""
        return any(form == RIGHT and not _failed(text) for form, _, text in self.turns)

    @property
    def completed(self) -> bool:
        """Whether the agent declared the task complete."""
        return any(form == COMPLETE for form, _, _ in self.turns)


def message(code: str) -> str:
    """What an agent writes to have ``code`` run."""
    return f"```python\n{code}\n```"


def record(tasks: AppWorldTasks) -> Answers:
    """What the engine answers to every form of every kind. Raises :class:`SkillSDError` if the right ones fail."""
    found: Answers = {}
    for kind in practice.KINDS:
        task = next(t for t in tasks.tasks("practice") if t.data["scenario"] == f"practice{kind.name}")
        values = values_of(kind, task)
        calls = [form for form in CALLS if form != RIGHT]
        before = [(form, False) for form in (*calls, RIGHT, IDLE, Form("login", guessed=True))]
        after = [(LOGIN, False), *((form, True) for form in (*calls, IDLE, RIGHT, COMPLETE))]
        for script in (before, after):
            environment = tasks.make()
            try:
                environment.reset(task)
                for form, logged_in in script:
                    text = environment.step(message(form.code(kind, values))).observation
                    found[kind.name, form, logged_in] = _slotted(text, values)
            finally:
                environment.close()
        for form in (LOGIN, RIGHT):
            if _failed(found[kind.name, form, form == RIGHT]):
                raise SkillSDError(f"practice: {kind.app} did not accept {form.code(kind, values)!r}")
    return found


def values_of(kind: Kind, task: Task) -> dict[str, str]:
    """The values of a task of the pack, drawn again as the pack drew them."""
    name, number = task.id.rsplit("_", 1)
    variant = int(number) - 1
    friends = world.friends(random.Random(f"{name} {variant}").choice(world.people()))
    values = practice.draw(practice.generator(kind, variant), friends[variant % len(friends)][0])
    assert kind.ask(values, variant) == task.data["instruction"]
    return values


def _slotted(text: str, values: dict[str, str]) -> str:
    text = text.replace("{", "{{").replace("}", "}}").replace(f"~/{values['name']}.", "~/{name}.")
    for name in ("text", "title", "email", "phone", "time", "amount"):
        text = text.replace(values[name], f"{{{name}}}")
    return text


def _failed(observation: str) -> bool:
    return observation.startswith("Execution failed.")


class Agent:
    """Chooses the next form. ``known`` are the facts that it was told: it slips on those, and guesses the rest."""

    def __init__(self, rng: random.Random, kind: Kind, known: frozenset[str]) -> None:
        self.rng, self.kind, self.known = rng, kind, known
        self.last: Form | None = None

    def next(self, turns: Sequence[tuple[Form, str, str]]) -> Form:
        """The form of the next message after ``turns``."""
        done = [(form, not _failed(text)) for form, _, text in turns]
        if any(form.what == "call" and good for form, good in done):
            return COMPLETE if self._right("complete", _COMPLETE) else IDLE
        logged_in = any(form.what == "login" and good for form, good in done)
        tried = [form for form, _ in done if form.what == ("call" if logged_in else "login")]
        if logged_in or (not turns and not self._right("token", _LOGIN)):
            form = Form("call", not self._right("names", _NAMES.get(self.kind.name, _OTHER_NAMES)),
                        self._right("token", _TOKEN))  # fmt: skip
        else:
            number = self.kind.app != "phone" or self._right("login", _NUMBER)
            form = Form("login", guessed=not number)
        fact = {"call": {"names", "token"}, "login": {"login"}}[form.what]
        if tried and not fact & self.known and self.rng.random() < _STUBBORN:
            return tried[-1]
        return form

    def _right(self, fact: str, chance: float) -> bool:
        return self.rng.random() < (1 - _SLIP if fact in self.known else chance)


def play(
    rng: random.Random, kind: Kind, values: dict[str, str], prompt: str, answers: Answers, known: frozenset[str],
    careless: float = 0.0,
) -> Episode:  # fmt: skip
    """An episode of an agent that knows ``known``; a ``careless`` share of turns are those of one that knows nothing,
    and are not learned: they lead where a reader must know its way as well."""
    episode, logged_in = Episode(kind, values, prompt), False
    reader, novice = Agent(rng, kind, known), Agent(rng, kind, frozenset())
    while len(episode.turns) < MAX_TURNS and not episode.completed:
        learned = rng.random() >= careless
        form = (reader if learned else novice).next(episode.turns)
        text = answers[kind.name, form, logged_in and form.what != "login"].format_map(values)
        logged_in |= form == LOGIN
        episode.turns.append((form, form.code(kind, values), text))
        episode.learned.append(learned)
    return episode


def told(source: Episode, kind: Kind) -> frozenset[str]:
    """The facts about a task of ``kind`` that the skill of ``source`` tells, by what the rules summariser writes."""
    facts = {"complete"}
    if source.kind.app == kind.app and any(form.what == "login" for form, _, _ in source.turns):
        facts.add("login")
    if source.kind.name == kind.name:
        if source.called:
            return frozenset({*facts, "names", "token"})
        errors = [text for form, _, text in source.turns if form.what == "call" and _failed(text)]
        if errors and "field required" in errors[-1]:
            facts.add("names")
        if errors and "not authorized" in errors[-1]:
            facts.add("token")
    return frozenset(facts)


def skill_of(source: Episode) -> Skill:
    """What the rules summariser makes of ``source``."""
    turns = [Turn(message(code), text, True, {"action": code}) for _, code, text in source.turns]
    success = source.called and source.completed
    reward = (source.called + source.completed) / 3 + success / 3
    trajectory = Trajectory("", 0, 0, source.prompt, [], turns=turns, reward=reward, success=success)
    return AppWorldRules().summarize(SummaryRequest(trajectory, Task("", {})))


def lessons(seed: int, count: int, answers: Answers, excluded: frozenset[str]) -> Iterator[Episode]:
    """``count`` episodes of ``seed``; none with an instruction in ``excluded`` (the pack's own)."""
    rng, people = random.Random(derive_seed(seed, "practice")), world.people()
    template = prompt_template("short")

    def stage(kind: Kind) -> tuple[dict[str, str], str]:
        while True:
            user, friend = rng.sample(people, 2)
            values = practice.draw(rng, friend)
            instruction = kind.ask(values, rng.randrange(2))
            if instruction not in excluded:
                profile: dict[str, Any] = {"email": user.email, "phone_number": user.phone}
                return values, template.render(instruction=instruction, user=profile).strip()

    for _ in range(count):
        kind = rng.choice(practice.KINDS)
        values, prompt = stage(kind)
        view = rng.choices(list(VIEWS), list(VIEWS.values()))[0]
        if view == "plain":
            yield play(rng, kind, values, prompt, answers, frozenset())
            continue
        of, on = kind, (values, prompt)
        if view != "own":
            of = kind if view == "alike" else rng.choice([k for k in practice.KINDS if k != kind])
            on = stage(of)
        facts = [fact for fact in ("login", "names", "token", "complete") if rng.random() < 0.5]
        source = play(rng, of, *on, answers, frozenset(facts))
        episode = play(rng, kind, values, prompt, answers, told(source, kind), rng.choice((0.0, 0.3, 0.6)))
        episode.skill = skill_of(source)
        yield episode

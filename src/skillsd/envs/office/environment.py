"""The office as a task set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from skillsd.envs.office.calls import Call, parse_call, prompt
from skillsd.envs.office.facts import another, falsified, form_of
from skillsd.envs.office.rules import OfficeRules, tell_solution
from skillsd.envs.office.tasks import SIZES, WARM_UP_WORLDS, make_tasks
from skillsd.envs.office.world import DIFFICULTIES, TOOLS, Custom, Difficulty, World, formatted
from skillsd.errors import SkillSDError, UsageError
from skillsd.types import Score, Skill, Step, Task

MAX_TURNS = 8
Prompt = Literal["full", "short"]
INVALID = "No call was made: write one call in triple backticks."
#: A value that no task has, to show a form by.
_EXAMPLES = {"person": "max", "day": "31", "tag": "cats", "file": "0", "amount": "1"}


class Office:
    """One job at a time. A wrong call changes nothing, costs a turn, and is answered with one fact about the call."""

    def __init__(self, seed: int, difficulty: Difficulty, prompt: Prompt = "full") -> None:
        self.seed, self.difficulty, self.prompt = seed, difficulty, prompt
        self.task: Task | None = None

    def reset(self, task: Task) -> str:
        """What the tools are, who the agent is and what is asked for."""
        data: Any = task.data
        self.task, self.world = task, World.draw(data.get("world", self.seed), self.difficulty)
        self.logged_in, self.opened = set[str](), set[str]()
        self.waiting: dict[str, dict[str, str]] = {}  # by tool: what is not confirmed yet
        self.effects: list[tuple[str, dict[str, str]]] = []
        self.finished = False
        return prompt(data["tool"], data["values"], data["identity"], data["wording"], self.prompt == "short")

    def step(self, action: str) -> Step:
        """Make the first call in ``action``. ``info`` holds the call, and whether the tool did what it says."""
        called = parse_call(action)
        if called is None:
            return Step(INVALID, False, {"valid": False, "action": None, "ok": False})
        ok, answer = self._answer(called)
        if called.more:
            answer += " The other calls were not made: one call a message."
        return Step(
            answer, self.finished, {"valid": called.tool in (*TOOLS, "office"), "action": str(called), "ok": ok}
        )

    def score(self) -> Score:
        """Reward and completion: half for exactly what was asked for, half for ending after it; success: both."""
        data = self._task().data
        done = self.effects == [(data["tool"], dict(data["values"]))]
        share = (done + (done and self.finished)) / 2
        return Score(share, share == 1, share)

    def close(self) -> None:
        """Forget the job."""
        self.task = None

    def _task(self) -> Task:
        if self.task is None:
            raise SkillSDError("reset the environment before using it")
        return self.task

    def _answer(self, called: Call) -> tuple[bool, str]:
        identity = self._task().data["identity"]
        name, operation, arguments = called.tool, called.operation, dict(called.arguments)
        if name == "office":
            if operation != self.world.finish:
                return False, f'office has no "{operation}": the end is office.{self.world.finish}().'
            self.finished = True
            return True, "office: thank you."
        if name not in TOOLS:
            return False, f'There is no tool "{name}". Tools: {", ".join(TOOLS)}, office.'
        custom, tool = self.world.customs[name], TOOLS[name]
        if operation == "login":
            if list(arguments) != [custom.login]:
                return False, f"{name}: one logs in by {custom.login}."
            if arguments[custom.login] != identity[custom.login]:
                return False, f"{name}: nobody here has this {custom.login}."
            self.logged_in.add(name)
            return True, f"{name}: logged in."
        if operation not in (tool.operation, custom.opening, custom.confirmation):
            return False, f'{name} has no "{operation}".'
        if name not in self.logged_in:
            return False, f"{name}: log in first."
        if operation == custom.opening:
            self.opened.add(name)
            return True, f"{name}: ready."
        if operation == custom.confirmation:
            if name not in self.waiting:
                return False, f"{name}: nothing waits for this."
            self.effects.append((name, self.waiting.pop(name)))
            return True, f"{name}: done."
        return self._operate(name, custom, arguments)

    def _operate(self, name: str, custom: Custom, arguments: dict[str, str]) -> tuple[bool, str]:
        tool = TOOLS[name]
        if custom.opening and name not in self.opened:
            return False, f"{name}: first comes {name}.{custom.opening}()."
        if set(arguments) != set(custom.names.values()):
            return False, f"{name}.{tool.operation}: the arguments are {' and '.join(custom.names.values())}."
        values = {slot: arguments[argument] for slot, argument in custom.names.items()}
        slot = formatted(name)
        before, after = custom.form.split("{v}")
        written = values[slot]
        if form_of(name, written) != custom.form:
            example = custom.form.format(v=_EXAMPLES[slot])
            return False, f'{name}.{tool.operation}: {custom.names[slot]} is written like "{example}".'
        values[slot] = written[len(before) : len(written) - len(after)]
        if custom.confirmation:
            self.waiting[name] = values
            return True, f"{name}: kept, but not done before {name}.{custom.confirmation}()."
        self.effects.append((name, values))
        return True, f"{name}: done."


class OfficeTasks:
    """Tasks of an office whose conventions come from ``world`` (a whole number); they hold in all of its splits.

    ``difficulty``: "easy", "middle" or "hard": some 2, 4 or 6 facts a task that only experience can tell. Splits:
    ``train``, ``test`` and ``validation`` of 64 tasks, ``extra`` of 96; ``warm_up``: 2,000, each in a world of its own,
    from which one learns how calls are made and nothing about this office. ``prompt``: "full" says what tools there are
    and how to call them, "short" leaves that to a model that was made for these tasks.
    Raises :class:`UsageError` for a wrong option.
    """

    name = "office"
    max_turns = MAX_TURNS
    warm_up_split = "warm_up"

    def __init__(self, world: int = 0, difficulty: Difficulty = "middle", prompt: Prompt = "full") -> None:
        if isinstance(world, bool) or not isinstance(world, int) or not 0 <= world < WARM_UP_WORLDS:
            raise UsageError(f"office: world must be a whole number from 0 to {WARM_UP_WORLDS - 1}, not {world!r}")
        if difficulty not in DIFFICULTIES:
            raise UsageError(f"office: unknown difficulty {difficulty!r}; choose one of {', '.join(DIFFICULTIES)}")
        if prompt not in get_args(Prompt):
            raise UsageError(f"office: unknown prompt {prompt!r}; choose one of {', '.join(get_args(Prompt))}")
        self.seed, self.difficulty, self.prompt = world, difficulty, prompt

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of ``split``. Raises :class:`UsageError` for an unknown one."""
        if split not in SIZES:
            raise UsageError(f"office: no split {split!r}; splits: {', '.join(SIZES)}")
        return make_tasks(split)

    def make(self) -> Office:
        """A new environment."""
        return Office(self.seed, self.difficulty, self.prompt)

    def group(self, task: Task) -> str:
        """Its tool: what an office wants of a tool holds for all that is done with it."""
        return str(task.data["tool"])

    def rules(self) -> OfficeRules:
        """What tells the skill of an episode: it reads the calls and their answers."""
        return OfficeRules()

    def demonstrate(self, task: Task) -> list[str]:
        """The messages of a solution without a detour."""
        return [f"```{text}```" for text in self._solution(task)]

    def reference(self, task: Task) -> Skill:
        """The world's facts about the task, told as the rules summariser tells any success."""
        return tell_solution(self._solution(task))

    def foreign(self, task: Task) -> Skill:
        """What a success at ``task`` would tell in an office that shares no custom with this one."""
        return tell_solution(self._calls(task, another(self._world(task))))

    def falsified(self, task: Task, skill: Skill) -> Skill:
        """``skill`` with every fact in it altered, the same ones in the same way in all skills of this office."""
        identity: Any = task.data["identity"]
        texts = {name: falsified(text, identity, self._world(task).seed) for name, text in skill.model_dump().items()}
        return Skill(**texts)

    def verdicts(self, task: Task, actions: Sequence[str]) -> list[bool | None]:
        """Whether each message makes a call that the solution has, where it has it, for the first time."""
        environment, found = self.make(), list[bool | None]()
        environment.reset(task)
        missing = [parse_call(message) for message in self.demonstrate(task)]
        for action in actions:
            called = parse_call(action)
            works = environment.step(action).info["ok"] and called in (missing[:-1] or missing)
            if works:
                missing.remove(called)
            found.append(works)
        return found

    def _solution(self, task: Task) -> list[str]:
        return self._calls(task, self._world(task))

    def _calls(self, task: Task, world: World) -> list[str]:
        data: Any = task.data
        return world.calls(data["tool"], data["values"], data["identity"])

    def _world(self, task: Task) -> World:
        return World.draw(task.data.get("world", self.seed), self.difficulty)

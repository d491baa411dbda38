"""AppWorld as a task set: the official data of a user, or a task pack of our own, on the real engine."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from skillsd.envs.appworld.guard import Refused, check
from skillsd.envs.appworld.install import data_root, find_engine, home, is_installed, require_confinement
from skillsd.envs.appworld.rules import AppWorldRules
from skillsd.envs.appworld.servers import START, Pool, Server, ServerLost
from skillsd.errors import SkillSDError, UsageError
from skillsd.system.files import read_text
from skillsd.types import Score, Skill, Step, Task

#: Seconds that the evaluator may take.
_JUDGE = 60.0
_FENCE = "```"
_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
#: What Python draws under the part of a line that failed: many tokens that tell nothing.
_UNDERLINE = re.compile(r"\n[ ~^]*\^[ ~^]*(?=\n)")
_PROMPTS = Path(__file__).with_name("prompts")


class AppWorldTasks:
    """Tasks of a data root, by the names of its data sets (splits).

    ``data``: ``pack`` (our own tasks), ``official`` (what ``skillsd appworld setup`` fetched), or a folder with
    ``data/`` in it. ``servers``: episodes at a time; each holds one engine process of some 400 MiB. ``timeout``:
    seconds that one block may run. ``max_output``: characters of its output that the agent sees. ``prompt``: ``agent``,
    ``short``, or a Jinja file of your own. ``keep``: a folder for the databases that each task's last episode left, as
    AppWorld's own evaluator reads them. ``allow_unconfined``: run agents' code also where the system does not keep it
    from files, the network and other processes. Raises :class:`UsageError` for a wrong option, a system that cannot,
    an engine that is not installed, and data that are missing or half-built.
    """

    name = "appworld"

    def __init__(
        self,
        data: str = "pack",
        max_turns: int = 40,
        servers: int = 4,
        timeout: float = 30.0,
        max_output: int = 4000,
        prompt: str = "agent",
        keep: str | None = None,
        allow_unconfined: bool = False,
    ) -> None:
        for option, value in (("max_turns", max_turns), ("servers", servers), ("max_output", max_output)):
            if not (isinstance(value, int) and value >= 1):
                raise UsageError(f"appworld: {option} must be a whole number from 1 on, not {value!r}")
        if not timeout > 0:
            raise UsageError(f"appworld: timeout must be more than 0 seconds, not {timeout!r}")
        self.max_turns, self.timeout, self.max_output = max_turns, float(timeout), max_output
        self.root, self.max_episodes = data_root(data), servers
        self.template, self.keep = prompt_template(prompt), Path(keep).expanduser().absolute() if keep else None
        self._opening = threading.Lock()
        if allow_unconfined not in (True, False):
            raise UsageError(f"appworld: allow_unconfined must be true or false, not {allow_unconfined!r}")
        if not allow_unconfined and is_installed():
            require_confinement(find_engine())

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of ``split``, in the order of its file. Raises :class:`UsageError` for an unknown one."""
        folder = self.root / "data" / "datasets"
        file = folder / f"{split}.txt"
        if not file.is_file():
            known = ", ".join(sorted(path.stem for path in folder.glob("*.txt")))
            hint = "" if split in ("train", "dev", "test") else " (`skillsd appworld setup` renews an older pack)"
            raise UsageError(
                f"appworld: no split {split!r}; splits: {known}{hint if self.root == home() / 'pack' else ''}"
            )
        return [self._task(line.strip()) for line in file.read_text("utf-8").splitlines() if line.strip()]

    def make(self) -> AppWorldEnvironment:
        """A new environment; it takes a server when an episode begins."""
        return AppWorldEnvironment(self)

    @cached_property
    def _pool(self) -> Pool:
        return Pool(find_engine(), self.root, self.max_episodes)

    @property
    def pool(self) -> Pool:
        """The engine's processes, started when they are first needed."""
        with self._opening:
            return self._pool

    def rules(self) -> AppWorldRules:
        """What tells the skill of an episode: it reads the agent's code and what it was answered."""
        return AppWorldRules()

    def reference(self, task: Task) -> Skill:
        """The pack's own solution as a skill. Raises :class:`SkillSDError` for tasks that come without one."""
        return Skill(
            success_analysis="This code solves the task.",
            mistake_analysis="Anything that the task does not ask for is a mistake.",
            golden_workflow=" ".join(self.demonstrate(task)).replace("\n", " ")[:4000],
        )

    def demonstrate(self, task: Task) -> list[str]:
        """The messages of the pack's own solution. Raises :class:`SkillSDError` for tasks that come without one."""
        blocks = self._solutions.get(task.id, {}).get("reference")
        if not blocks:
            raise SkillSDError(f"appworld: task {task.id} comes without a solution")
        return [f"{_FENCE}python\n{block.strip()}\n{_FENCE}" for block in blocks]

    @cached_property
    def _solutions(self) -> dict[str, Any]:
        file = self.root / "solutions.json"
        return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}

    def _task(self, name: str) -> Task:
        file = self.root / "data" / "tasks" / name / "specs.json"
        try:
            instruction = str(json.loads(file.read_text("utf-8"))["instruction"])
            return Task(name, {"instruction": instruction, "scenario": name.partition("_")[0]})
        except (OSError, ValueError, KeyError, TypeError):
            raise SkillSDError(f"appworld: {file} is missing or unreadable: build or fetch the data again") from None


class AppWorldEnvironment:
    """One world at a time. Code that reaches out of it is not run, and its episode scores 0 however it ends."""

    def __init__(self, tasks: AppWorldTasks) -> None:
        self.tasks, self.pool = tasks, tasks.pool
        self.server: Server | None = None
        self.task: Task | None = None
        self.name = ""
        self.forfeited = False

    def reset(self, task: Task) -> str:
        """Begin ``task`` in a fresh world; the prompt. Raises :class:`SkillSDError` if no server can be had."""
        self.close()
        self.task, self.name, self.forfeited = task, self.pool.name(), False
        begun = self._begin({"task_id": task.id, "name": self.name, "timeout": max(1, int(self.tasks.timeout))})
        user = begun["user"]
        return self.tasks.template.render(instruction=begun["instruction"], user=user).strip()

    def step(self, action: str) -> Step:
        """Run the message's one block of Python; the observation is what it printed, or how it failed."""
        server = self._server()
        blocks = _BLOCK.findall(action)
        if len(blocks) != 1 or action.count(_FENCE) != 2:
            text = f"Nothing was run: write exactly one block of Python, between {_FENCE}python and {_FENCE}."
            return Step(text, False, {"valid": False, "action": None})
        code = blocks[0].encode("utf-8", "replace").decode("utf-8")
        try:
            check(code)
        except SyntaxError as error:
            return Step(_failed(f"Syntax error: {error}"), False, {"valid": False, "action": code})
        except Refused as error:
            self.forfeited |= error.offence
            events = ["refused"] if error.offence else []
            return Step(_failed(f"Refused, {error}"), False, {"valid": False, "action": code, "events": events})
        try:
            # The engine has a time limit of its own, which code can swallow; ours it cannot.
            answer = server.post("/run", {"code": code, "limit": self.tasks.max_output}, self.tasks.timeout + 5)
        except ServerLost as error:
            self.forfeited = True
            return Step(_failed(str(error)), True, {"valid": True, "action": code, "events": ["killed"]})
        return self._answer(code, answer)

    def score(self) -> Score:
        """Reward and completion: the share of the task's tests that pass; success: all do."""
        if self.task is None:
            raise SkillSDError("reset the environment before using it")
        if self.forfeited:
            return Score(0.0, False, 0.0)
        found = self.pool.judge(self.task.id, self.name, _JUDGE)
        share = found["passed"] / max(1, found["tests"])
        return Score(share, bool(found["success"]), share)

    def close(self) -> None:
        """Give the server back and remove what the episode left."""
        server, self.server = self.server, None
        if server is not None:
            try:
                if server.alive:
                    server.post("/end", {}, START)
            except ServerLost:
                pass  # it is replaced
            finally:
                self.pool.give(server)
                self.pool.forget(self.name, self.tasks.keep)

    def _begin(self, body: dict[str, Any]) -> dict[str, Any]:
        """A world on a server, on another one if the first fails."""
        for attempt in (1, 2):
            self.server = self.pool.take()
            try:
                return self.server.post("/start", body, START)
            except ServerLost:
                self.pool.give(self.server)
                self.server = None
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def _answer(self, code: str, answer: dict[str, Any]) -> Step:
        text, cut = str(answer["output"]).rstrip(), int(answer["length"]) - self.tasks.max_output
        if cut > 0:
            text += f"\n[{cut} more characters were cut: print less at a time]"
        failed = text.startswith("Execution failed.")
        if failed:
            text = _UNDERLINE.sub("", text)
        events = ["error"] if failed else []
        if answer["refused"]:
            self.forfeited, events = True, [*events, "refused"]
        if failed and "MemoryError" in text[-200:]:
            self.forfeited, events = True, ["killed"]
        completed = bool(answer["completed"])
        info = {"valid": True, "action": code, "completed": completed, "events": events}
        return Step(text, completed or self.forfeited, info)

    def _server(self) -> Server:
        if self.server is None or not self.server.alive:
            raise SkillSDError("reset the environment before using it")
        return self.server


def _failed(reason: str) -> str:
    return f"Execution failed. {reason}"


def prompt_template(name: str) -> jinja2.Template:
    """A prompt of ours by name, or a Jinja file. Raises :class:`UsageError` if it is neither."""
    ours = _PROMPTS / f"{name}.md"
    try:
        text = read_text(ours if ours.is_file() else name)
        return jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(text)
    except (UsageError, jinja2.TemplateError) as error:
        raise UsageError(
            f"appworld: prompt {name!r} is neither agent, short nor a readable Jinja file ({error})"
        ) from None

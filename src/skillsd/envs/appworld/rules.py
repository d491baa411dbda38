"""A summariser that needs no LLM: it reads an AppWorld trajectory and reports what really happened.

Facts come from the agent's own code and from what it was answered: which calls failed and why, what was different when
they worked, which documentation was read too late, and whether the task was completed. It knows no solution and no API.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from skillsd.types import MAX_FIELD_CHARS, Skill, SummaryRequest, Trajectory, Turn

#: Calls that a workflow may name, and mistakes: more would over-constrain the reader (arXiv:2604.10674).
MAX_STEPS = 12
MAX_MISTAKES = 5
#: Characters of an error message, and of an argument.
_LONGEST = 160
_LONGEST_ARGUMENT = 60
#: Arguments whose values are never told: they are secret, or new in every episode.
_SECRET = {"access_token", "password", "code", "verification_code", "token"}

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
_FRAME = re.compile(r'File "<python-input>", line (\d+)')
_STATUS = re.compile(r"Response status code is (\d+):\s*(.*)", re.DOTALL)
_COMPLETE = "supervisor.complete_task"


@dataclass(frozen=True)
class Call:
    """One ``apis.APP.API(...)``; ``arguments`` are name to source text, ``error`` is one line or None."""

    name: str
    arguments: dict[str, str]
    turn: int
    repeated: bool = False
    error: str | None = None

    @property
    def documentation(self) -> str | None:
        """``APP.API`` if this call asked for that API's documentation."""
        if self.name != "api_docs.show_api_doc":
            return None
        app, api = (self.arguments.get(key, "").strip("'\"") for key in ("app_name", "api_name"))
        return f"{app}.{api}"

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={_value(key, text)}' for key, text in self.arguments.items())})"


@dataclass
class Attempt:
    """What was read out of one trajectory. ``errors`` are those of the code itself, not of a call."""

    calls: list[Call] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    unread: int = 0

    @property
    def worked(self) -> list[Call]:
        """The calls that were answered without an error."""
        return [call for call in self.calls if call.error is None]


class AppWorldRules:
    """Summarises AppWorld trajectories by rules."""

    name = "rules"

    def summarize(self, request: SummaryRequest) -> Skill:
        """Tell what worked, what failed and what fixed it, in three texts."""
        trajectory = request.trajectory
        attempt = read(trajectory.turns)
        texts = (_success(trajectory, attempt), _mistakes(trajectory, attempt), _workflow(trajectory, attempt))
        analysis, mistakes, workflow = (text[:MAX_FIELD_CHARS] for text in texts)
        return Skill(success_analysis=analysis, mistake_analysis=mistakes, golden_workflow=workflow)


def read(turns: Sequence[Turn]) -> Attempt:
    """The calls of ``turns`` in order, each with its outcome; calls behind the one that failed never ran."""
    attempt = Attempt()
    for number, turn in enumerate(turns):
        code = _code(turn)
        try:
            tree = ast.parse(code or "")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            code = None
        if code is None or not turn.valid:
            attempt.unread += 1
            continue
        error, line = _error(turn.observation)
        found = list(_calls(tree, number))
        if error is None:
            attempt.calls += [call for _, call in found]
            continue
        reached = [(at, call) for at, call in found if line is None or at <= line]
        blamed = [call for at, call in reached if at == line]
        attempt.calls += [call for at, call in reached if at != line]
        # Of several calls on one line it is not known which failed; a response with a status code is some call's.
        if len(blamed) == 1 and error.startswith(("status ", "No ", "Unexpected parameter")):
            call = blamed[0]
            attempt.calls.append(Call(call.name, call.arguments, number, call.repeated, error))
        else:
            attempt.errors.append(error)
    return attempt


def _code(turn: Turn) -> str | None:
    action = turn.info.get("action")
    if isinstance(action, str):
        return action
    block = _BLOCK.search(turn.action)
    return block[1] if block else None


def _error(observation: str) -> tuple[str | None, int | None]:
    """What went wrong, in one line, and in which line of the block; (None, None) if nothing did."""
    if not observation.startswith("Execution failed."):
        return None, None
    frames = _FRAME.findall(observation)
    status = _STATUS.search(observation)
    if status:
        message = status[2].strip()
        with suppress(ValueError, KeyError, TypeError):  # not JSON, or of another form
            message = json.loads(message)["message"]
        text = f"status {status[1]}, {message}"
    else:
        text = observation.rstrip().splitlines()[-1].removeprefix("Exception: ")
    return _short(" ".join(text.split()), _LONGEST), int(frames[0]) if frames else None


def _calls(tree: ast.AST, turn: int) -> Iterator[tuple[int, Call]]:
    """(line, call) for every ``apis.app.api(...)`` in the code, in the order of the lines."""
    inside = {
        id(node)
        for loop in ast.walk(tree)
        if isinstance(loop, (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp))
        for node in ast.walk(loop)
        if isinstance(node, ast.Call)
    }
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for node in sorted(nodes, key=lambda n: (n.lineno, n.end_lineno or 0, n.end_col_offset or 0)):
        api = node.func
        if not (isinstance(api, ast.Attribute) and isinstance(api.value, ast.Attribute)):
            continue
        root = api.value.value
        if isinstance(root, ast.Name) and root.id == "apis":
            arguments = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
            yield node.lineno, Call(f"{api.value.attr}.{api.attr}", arguments, turn, id(node) in inside)


def _value(name: str, text: str) -> str:
    return "..." if name in _SECRET else _short(text, _LONGEST_ARGUMENT)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _success(trajectory: Trajectory, attempt: Attempt) -> str:
    names = list(dict.fromkeys(c.name for c in attempt.worked if not c.name.startswith(("api_docs.", "supervisor."))))
    used = f" It used {_list(names[:MAX_STEPS])}." if names else " No call of an app worked."
    turns = f"{len(trajectory.turns)} turn" + "s" * (len(trajectory.turns) != 1)
    if trajectory.success:
        return f"The task was solved in {turns}.{used}"
    return f"After {turns} {trajectory.reward:.0%} of what the task asks for was right.{used}"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _mistakes(trajectory: Trajectory, attempt: Attempt) -> str:
    parts = []
    for name in dict.fromkeys(call.name for call in attempt.calls if call.error):
        parts.append(_failure(name, attempt))
    for error in dict.fromkeys(attempt.errors):
        count = attempt.errors.count(error)
        parts.append(f"The code failed{_times(count)}: {_sentence(error)}")
    parts = parts[:MAX_MISTAKES]
    if attempt.unread:
        parts.append(f"{attempt.unread} of {len(trajectory.turns)} messages held no single block of Python that ran.")
    if not any(call.name == _COMPLETE for call in attempt.worked):
        parts.append(f"{_COMPLETE} was never called, so the task was not completed.")
    elif not trajectory.success:
        parts.append("The task was declared complete although not everything was right.")
    return " ".join(parts) or "No call failed."


def _failure(name: str, attempt: Attempt) -> str:
    """One API that failed: how often, why, what was different when it worked, and when its documentation was read."""
    of_it = [call for call in attempt.calls if call.name == name]
    failed = [call for call in of_it if call.error]
    first, last = failed[0], failed[-1]
    text = f"{name} failed{_times(len(failed))}: {_sentence(last.error or '')}"
    fixed = next((call for call in of_it if call.error is None and call.turn > last.turn), None)
    read_at = [call.turn for call in attempt.worked if call.documentation == name]
    if fixed is not None:
        text += f" It worked {_difference(last, fixed)}."
    if not read_at:
        text += " Its documentation was never read."
    elif read_at[0] >= first.turn:
        text += " Its documentation was read only afterwards."
    return text


def _difference(failed: Call, fixed: Call) -> str:
    """What the call that worked did otherwise than the one that failed."""
    extra = [key for key in fixed.arguments if key not in failed.arguments]
    gone = [key for key in failed.arguments if key not in fixed.arguments]
    changed = [k for k, text in fixed.arguments.items() if k in failed.arguments and failed.arguments[k] != text]
    parts = [f"with {_list(extra)}"] if extra else []
    parts += [f"without {_list(gone)}"] if gone else []
    if changed and not parts:
        parts = [f"with {_list([f'{key}={_value(key, fixed.arguments[key])}' for key in changed])}"]
    return " and ".join(parts) or "later with the same arguments"


def _times(count: int) -> str:
    return f" {count} times" if count > 1 else ""


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _workflow(trajectory: Trajectory, attempt: Attempt) -> str:
    """The calls that worked, in order, each once; what was read about the APIs is not repeated."""
    steps: dict[str, Call] = {}
    for call in attempt.worked:
        if not call.name.startswith("api_docs.") and call.name != _COMPLETE:
            steps[str(call)] = steps.get(str(call), call)
    lines = [f"{text}, in a loop" if call.repeated else text for text, call in steps.items()]
    if trajectory.success:
        end = next((str(call) for call in reversed(attempt.worked) if call.name == _COMPLETE), None)
        lines = [*lines[: MAX_STEPS - 1], *([end] if end else [])]
        return "; then ".join(lines) or "Nothing had to be called."
    mastered = {call.name for call in attempt.worked}
    failing = list(dict.fromkeys(c.name for c in attempt.calls if c.name not in mastered))
    advice = [f"Read the documentation of {_list(failing[:3])} first."] if failing else []
    if lines:
        advice.append(f"These calls worked: {'; then '.join(lines[:MAX_STEPS])}.")
    advice.append(f"Check every part of the task, then finish with {_COMPLETE}.")
    return " ".join(advice)

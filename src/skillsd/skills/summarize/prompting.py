"""What an LLM summariser is asked, and how its answer becomes a skill."""

from __future__ import annotations

import json
from importlib import resources
from string import Template

from skillsd.errors import SkillSDError, UsageError
from skillsd.skills.summarize.completion import mend, parse
from skillsd.skills.summarize.thoughts import holders, objects
from skillsd.system.files import read_text
from skillsd.types import Skill, Trajectory

PLACEHOLDERS = ("conversation", "result", "steps", "completion")
FIELDS = tuple(Skill.model_fields)
#: Characters of an answer that are looked at; three fields of the greatest length fit.
MAX_ANSWER = 100_000
#: Characters from which on a text that the question holds too is no coincidence.
_REPEATED = 40
_RESULTS = {"done": "failure", "turn_limit": "failure, out of turns", "token_limit": "failure, out of tokens"}


class Prompt:
    """A text file with placeholders (``$conversation``, ``$result``, ``$steps``, ``$completion``); ``$$`` is a dollar.

    ``path`` None is the shipped one. Raises :class:`UsageError` for a file that cannot be read or does not fit.
    """

    def __init__(self, path: str | None = None) -> None:
        where = f"summarizer.prompt: {path}"
        try:
            text = read_text(path) if path else (resources.files(__package__) / "prompt.md").read_text("utf-8")
        except UsageError as error:
            raise UsageError(f"{where}: cannot be read ({error})") from None
        self._template = Template(text)
        if not self._template.is_valid():
            raise UsageError(f"{where}: a $ that begins no placeholder; write $$ for a dollar sign")
        names = self._template.get_identifiers()
        known = ", ".join(f"${name}" for name in PLACEHOLDERS)
        for name in names:
            if name not in PLACEHOLDERS:
                raise UsageError(f"{where}: unknown placeholder ${name}; there are {known} ($$ is a dollar sign)")
        if "conversation" not in names:
            raise UsageError(f"{where}: holds no $conversation; without it the summariser sees nothing")

    def render(self, trajectory: Trajectory, limit: int) -> str:
        """The user message about ``trajectory``; a conversation of more than ``limit`` characters is shortened."""
        text = self._template.substitute(
            conversation=conversation(trajectory, limit),
            result="success" if trajectory.success else _RESULTS[trajectory.status],
            steps=len(trajectory.turns),
            completion=f"{trajectory.completion:.0%}".replace("%", " %"),
        )
        return text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates cannot be sent


def conversation(trajectory: Trajectory, limit: int) -> str:
    """Every message with its speaker. What exceeds ``limit`` characters is cut from the middle, with a note."""
    messages = [f"[Task]\n{trajectory.prompt}"]
    for number, turn in enumerate(trajectory.turns, 1):
        messages += [f"[Agent, step {number}]\n{turn.action}", f"[Environment]\n{turn.observation}"]
    messages = [_shorten(message, limit // 4) for message in messages]
    first, last, room = 0, len(messages), limit
    if sum(map(len, messages)) > limit:
        while (room := room - len(messages[first])) >= limit // 2:
            first += 1
        room = limit - sum(map(len, messages[:first]))
        while (room := room - len(messages[last - 1])) >= 0:
            last -= 1
        left_out = messages[first:last]
        note = f"[{len(left_out)} messages, {sum(map(len, left_out))} characters, were left out here]"
        messages[first:last] = [note]
    return "\n\n".join(messages)


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters were left out here]\n{text[-half:]}"


def read_skill(answer: str, question: str = "", cut: bool = False, trusting: bool = False) -> Skill:
    """The skill in an LLM's answer: the last whole JSON object with the three fields that stands in no thought.

    Fences, text before or behind, raw line breaks in strings, further keys, objects around it, halves of characters,
    and lists of sentences are forgiven; half an answer, or one that repeats ``question`` as small models do, is not. Of
    one that was ``cut`` off by the limit of tokens, an object with words on both sides may be a draft, and does not
    count. If one is ``trusting``, an object in a tag whose name says nothing counts as well, where no other does.

    Raises :class:`SkillSDError` with one line that says what is wrong.
    """
    text = mend(answer).strip()
    if len(text) > MAX_ANSWER:
        raise SkillSDError(f"the answer has {len(text)} characters")
    while isinstance(inner := parse(text), str) and inner != text:  # encoded once more than it should be
        text = mend(inner).strip()
    found, refused = objects(text, cut), None
    if trusting and not cut and not any(True for one in found or () for _ in holders(one.tree, FIELDS)):
        found = objects(text, trusting=True) or found
    reason = "the answer holds no whole JSON object"
    if found is None:
        found, reason = [], "the answer is a thought that never ends"
    elif cut and found and not found[-1].finished(text):
        found, reason = [], "the answer ends in the middle"
    for tree in reversed([tree for one in found if not one.rejected for tree in holders(one.tree, FIELDS)]):
        try:
            return Skill.parse({name: _words(name, tree[name], question) for name in FIELDS})
        except SkillSDError as error:
            refused = refused or error
    if refused:
        raise refused
    if found and found[-1].rejected:
        reason = "the answer's JSON object is introduced as a draft or a bad example"
    elif found:
        lacking = [name for name in FIELDS if name not in found[-1].tree]
        reason = f"the answer's JSON object lacks {', '.join(lacking)}"
    raise SkillSDError(f"{reason}: {json.dumps(text[:60])}")


def _words(name: str, value: object, question: str) -> object:
    """Sentences in a list joined; a placeholder such as ``...`` is no text, nor is a piece of the question."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    if isinstance(value, str):
        value = mend(value)
    if isinstance(value, str) and not any(map(str.isalnum, value)):
        raise SkillSDError(f"the answer's {name} holds no words")
    if isinstance(value, str) and len(value) >= _REPEATED and value in question:
        raise SkillSDError(f"the answer's {name} only repeats the question: {json.dumps(value[:60])}")
    return value

"""The words that everything here speaks. Imports neither torch nor transformers, so that environments run anywhere."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from skillsd.errors import SkillSDError

#: One to five sentences fit easily; a runaway summary does not.
MAX_FIELD_CHARS = 4000

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_FIELD_CHARS)]
#: Why an episode ended.
Status = Literal["done", "turn_limit", "token_limit"]


@dataclass(frozen=True)
class Task:
    """One task: a stable ``id`` (the key of its skills in the bank) and JSON-able ``data``."""

    id: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """What the environment answers to one action.

    ``info`` may hold ``valid`` (bool: did the text contain a legal action), ``action`` (str: the action as understood)
    and ``events`` (names of what is worth counting); they are recorded and counted, anything else is carried along.
    """

    observation: str
    done: bool
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """The outcome of an episode. ``reward`` trains, ``success`` is accuracy, ``completion`` is in [0, 1]."""

    reward: float
    success: bool
    completion: float


class Skill(BaseModel):
    """Exactly three texts, one to five sentences each; missing, extra, empty or huge fields are refused.

    ``success_analysis``: the strategy that led, or would lead, to success.
    ``mistake_analysis``: root causes of failure or waste.
    ``golden_workflow``: the ideal process from start to finish.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    success_analysis: Text
    mistake_analysis: Text
    golden_workflow: Text

    @classmethod
    def parse(cls, raw: str | dict[str, object]) -> Skill:
        """A skill from JSON text or a dict. Raises :class:`SkillSDError` with one clear line."""
        try:
            return cls.model_validate_json(raw) if isinstance(raw, str) else cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "skill"
            raise SkillSDError(f"malformed skill: {where}: {first['msg']}") from None

    def text(self) -> str:
        """The skill as people and teachers read it: three labelled paragraphs."""
        return (
            f"What works: {self.success_analysis}\n"
            f"What to avoid: {self.mistake_analysis}\n"
            f"Workflow: {self.golden_workflow}"
        )

    def normalized(self) -> str:
        """Lower-case, single-spaced text: the key for near-duplicate tests."""
        return re.sub(r"\s+", " ", self.text()).strip().lower()


@dataclass
class Turn:
    """One exchange: the assistant's text, the user message that answered it, and the step's info."""

    action: str
    observation: str
    valid: bool
    info: dict[str, Any] = field(default_factory=dict)


@dataclass
class Trajectory:
    """One episode under one prompt; token ids are appended to, never rebuilt.

    ``prompt_ids`` are what the policy was shown first, ``completion_ids`` all that follows: its own tokens
    (``action_mask`` 1) and the environment's (``action_mask`` 0). ``logps`` are the natural-log
    probabilities under the sampling distribution, 0.0 where the mask is 0. The three lists of the
    completion have equal length.
    """

    task_id: str
    iteration: int
    sample: int
    prompt: str
    prompt_ids: list[int]
    completion_ids: list[int] = field(default_factory=list)
    action_mask: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    status: Status = "turn_limit"
    reward: float = 0.0
    success: bool = False
    completion: float = 0.0
    #: Mean entropy (nats) of the sampling distribution over action tokens.
    entropy: float = 0.0
    #: The skill in the *rollout* prompt: None wherever the student acts under the plain prompt.
    rollout_skill_id: int | None = None
    #: The skill retrieved for the teacher's view of this task in this iteration.
    teacher_skill_id: int | None = None

    @property
    def id(self) -> str:
        """Unique within a run and the same in every run of the same seed."""
        return f"{self.iteration:06d}/{self.task_id}/{self.sample}"

    @property
    def ids(self) -> list[int]:
        """Prompt and completion, exactly as the policy saw them."""
        return self.prompt_ids + self.completion_ids

    @property
    def action_tokens(self) -> int:
        """Number of tokens that the policy wrote."""
        return sum(self.action_mask)

    def digest(self) -> str:
        """SHA-256 over the token ids: the key for caches of anything derived from this trajectory."""
        return hashlib.sha256(json.dumps([self.prompt_ids, self.completion_ids]).encode()).hexdigest()


@dataclass(frozen=True)
class SummaryRequest:
    """A finished trajectory and its task, both to be read only.

    Of the trajectory a summary is made of ``prompt`` (the first user message), ``turns`` (each with ``action``,
    ``observation``, ``valid`` and ``info``), ``success``, ``reward``, ``completion`` in [0, 1], and ``status`` (why it
    ended). Of the task, ``id`` and ``data`` are as the task set made them.
    """

    trajectory: Trajectory
    task: Task


@runtime_checkable
class Summarizer(Protocol):
    """May be slow and may raise: it runs in the background, and a failure is counted, never fatal."""

    name: str

    def summarize(self, request: SummaryRequest) -> Skill:
        """The skill that this trajectory teaches."""
        ...


@dataclass(frozen=True)
class Hint:
    """The skill that a task's teacher reads in this iteration (None: the control without one).

    ``id`` is None if it is not the bank's.
    """

    skill: Skill | None
    id: int | None


#: By task id; a task for which nothing is known has none.
Hints = dict[str, Hint]

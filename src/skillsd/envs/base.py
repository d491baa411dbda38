"""What an environment is. Imports neither torch nor transformers, so that it runs anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from skillsd.types import Score, Skill, Step, Summarizer, Task

if TYPE_CHECKING:
    from rich.text import Text


@runtime_checkable
class Environment(Protocol):
    """One world at a time. Any method may raise: the episode is then dropped and counted.

    The calls of one environment never overlap, but come from changing threads, and slow environments are called side
    by side: what several of them share has to be safe for that.
    """

    def reset(self, task: Task) -> str:
        """Start ``task``; return the user message that opens the episode (the plain task prompt)."""
        ...

    def step(self, action: str) -> Step:
        """Take the assistant's whole message; return the next user message."""
        ...

    def score(self) -> Score:
        """Score the episode as it stands. Valid at any time after ``reset``; a rollout asks once, at the end."""
        ...

    def close(self) -> None:
        """Release what the environment holds. Called exactly once, also after an error."""
        ...


@runtime_checkable
class TaskSet(Protocol):
    """A named collection of tasks, and the factory of environments that run them.

    It may say in ``max_episodes`` how many of its environments can be in use at a time.
    """

    name: str
    #: Longest episode in turns (assistant messages).
    max_turns: int

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of ``split``, in a fixed order. Raises :class:`UsageError` for an unknown split."""
        ...

    def make(self) -> Environment:
        """A fresh environment, independent of every other one."""
        ...


@runtime_checkable
class HasReference(Protocol):
    """A task set that knows a solution: needed by ``opsd`` and by the teacher-strength panel."""

    def reference(self, task: Task) -> Skill:
        """The privileged solution of ``task``, told as a skill."""
        ...


@runtime_checkable
class HasFalseSkills(Protocol):
    """A task set that can tell what is not so: needed by ``skills.shown = foreign`` and ``falsified``."""

    def foreign(self, task: Task) -> Skill:
        """What a success at ``task`` would tell where none of its facts hold."""
        ...

    def falsified(self, task: Task, skill: Skill) -> Skill:
        """``skill`` with every fact that it states altered."""
        ...


@runtime_checkable
class HasGroups(Protocol):
    """A task set that knows which of its tasks are of a kind, so that one's skill may be of use to the other."""

    def group(self, task: Task) -> str:
        """The name of its kind."""
        ...


@runtime_checkable
class HasRules(Protocol):
    """A task set that can tell what an episode teaches without an LLM: ``skills.summarizer = rules``, the default."""

    def rules(self) -> Summarizer:
        """The summariser that knows these tasks."""
        ...


@runtime_checkable
class HasDemonstrations(Protocol):
    """A task set that can show how it is done: needed by ``skillsd warm-up``.

    It may name the split that is best learnt from as ``warm_up_split`` (default: the one that is trained on).
    """

    def demonstrate(self, task: Task) -> Sequence[str]:
        """The assistant messages of an episode that solves ``task``."""
        ...


@runtime_checkable
class HasVerdicts(Protocol):
    """A task set that can tell good actions from bad ones: ``skillsd probe`` then measures whether the teacher can."""

    def verdicts(self, task: Task, actions: Sequence[str]) -> list[bool | None]:
        """For each assistant message of an episode whether it was one of the best actions there; None: no saying."""
        ...


@runtime_checkable
class HasRender(Protocol):
    """A task set whose observations are worth drawing in the report."""

    def render_html(self, observation: str) -> str:
        """An HTML fragment (already escaped) that shows ``observation``."""
        ...


@runtime_checkable
class HasRenderText(Protocol):
    """A task set whose observations look better drawn than printed when a person plays (``skillsd play``)."""

    def render_text(self, observation: str) -> Text | str:
        """What a terminal shows for ``observation``."""
        ...


@runtime_checkable
class HasKeys(Protocol):
    """A task set whose actions are few enough for single keys in ``skillsd play``; others are played by the line."""

    #: What a key stands for, as an assistant message: a letter other than u, r, n and q, or an arrow: ↑ ↓ ← →
    play_keys: Mapping[str, str]

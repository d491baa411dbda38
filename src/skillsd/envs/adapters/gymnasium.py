"""Gymnasium environments that speak text: Text or Discrete spaces, or a text rendering as the observation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from skillsd.envs.adapters.seeds import SeededTasks, positive, score_of
from skillsd.envs.base import Environment
from skillsd.errors import UsageError
from skillsd.types import Score, Step, Task

try:
    import gymnasium
    from gymnasium.spaces import Discrete, Text
except ImportError:
    raise UsageError("env 'gymnasium' needs Gymnasium: pip install 'skillsd[gymnasium]'") from None

#: Renderings for terminals mark a place with colours; here it is put in brackets.
_MARKED = re.compile(r"(?:\x1b\[[0-9;]+m)+([^\x1b]*)\x1b\[0m")
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class GymnasiumTasks(SeededTasks):
    """``id`` with a seed a task. ``actions`` and ``observations`` name the values of Discrete spaces, in their order;
    ``make`` goes to :func:`gymnasium.make` (with ``render_mode = "ansi"`` the rendering is the observation); ``prompt``
    stands in front of the first observation. The reward is the return; an episode is solved from ``success_reward`` on.
    Raises :class:`UsageError` for an unknown environment or one that does not speak text.
    """

    def __init__(
        self,
        id: str,
        actions: Sequence[str] = (),
        observations: Sequence[str] = (),
        prompt: str = "",
        make: Mapping[str, Any] | None = None,
        train_tasks: int = 64,
        test_tasks: int = 64,
        max_turns: int = 40,
        success_reward: float = 1.0,
    ) -> None:
        super().__init__(f"gymnasium-{id}", train_tasks, test_tasks, max_turns)
        self.id, self.prompt, self.options = id, prompt, dict(make or {})
        self.success_reward = positive(success_reward)
        world = self._world()
        self.rendered = world.render_mode == "ansi"
        self.actions = _names("action", world.action_space, actions)
        self.observations = None if self.rendered else _names("observation", world.observation_space, observations)
        world.close()

    def make(self) -> Environment:
        """A fresh environment."""
        return _Gym(self, self._world())

    def _world(self) -> Any:
        try:
            return gymnasium.make(self.id, **self.options)
        except Exception as error:  # of Gymnasium, of the environment's module, or of its constructor
            raise UsageError(f"gymnasium cannot make {self.id!r}: {' '.join(str(error).split())[:200]}") from None


def _names(what: str, space: Any, names: Sequence[str]) -> dict[int, str] | None:
    """The name of each value of a Discrete space; None for Text."""
    if isinstance(space, Text):
        return None
    if not isinstance(space, Discrete):
        raise UsageError(f"its {what} space is {type(space).__name__}: only Text and Discrete are text; wrap it")
    names = list(names) or [str(int(space.start) + i) for i in range(int(space.n))]
    if len(names) != space.n or len({str(name).casefold() for name in names}) != len(names):
        raise UsageError(f"{what}s must be {space.n} different names, not {len(names)}")
    return {int(space.start) + i: str(name) for i, name in enumerate(names)}


class _Gym:
    """An action that the environment's action space does not hold makes no step, costs a turn, and is counted."""

    def __init__(self, tasks: GymnasiumTasks, world: Any) -> None:
        self.tasks, self.world = tasks, world
        self.values = {name.casefold(): value for value, name in (tasks.actions or {}).items()}
        self.total, self.done, self.last = 0.0, False, ""

    def reset(self, task: Task) -> str:
        observation, _ = self.world.reset(seed=int(task.data["seed"]))
        self.total, self.done = 0.0, False
        self.last = self._text(observation)
        lines = [self.tasks.prompt, f"Answer with one of: {', '.join(self.tasks.actions.values())}."
                 if self.tasks.actions else "", self.last]  # fmt: skip
        return "\n".join(line for line in lines if line) or "Begin."

    def step(self, action: str) -> Step:
        if self.done:
            return Step(self.last, True, {"valid": False})
        chosen: Any = action.strip()
        if self.tasks.actions is not None:
            chosen = self.values.get(chosen.strip("`*\"'. \n").casefold())
        if chosen is None or not self.world.action_space.contains(chosen):
            return Step(f"That is no action.\n{self.last}", False, {"valid": False})
        observation, reward, terminated, truncated, _ = self.world.step(chosen)
        self.total += float(reward)
        self.done = bool(terminated or truncated)
        self.last = self._text(observation)
        return Step(self.last, self.done, {"valid": True, "action": action.strip()[:200]})

    def score(self) -> Score:
        return score_of(self.total, self.tasks.success_reward)

    def close(self) -> None:
        self.world.close()

    def _text(self, observation: Any) -> str:
        if self.tasks.rendered:
            return _ESCAPE.sub("", _MARKED.sub(r"[\1]", str(self.world.render()))).strip("\n")
        return str(observation) if self.tasks.observations is None else self.tasks.observations[int(observation)]

"""TextArena's games for one player."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from skillsd.envs.adapters.seeds import SeededTasks, positive, score_of
from skillsd.envs.base import Environment
from skillsd.errors import UsageError
from skillsd.types import Score, Step, Task

try:
    import textarena
    from textarena.envs.registration import ENV_REGISTRY
except ImportError:
    raise UsageError("env 'textarena' needs TextArena: pip install 'skillsd[textarena]'") from None

T = TypeVar("T")
#: The games draw from Python's global generator: one call at a time, each game with a state of its own.
_GLOBAL_RANDOM = threading.Lock()


class TextArenaTasks(SeededTasks):
    """``game`` (such as ``GuessTheNumber-v0``) with a seed a task; ``make`` goes to the game. The reward is the game's;
    an episode is solved from ``success_reward`` on. Raises :class:`UsageError` for an unknown game.
    """

    def __init__(
        self,
        game: str,
        make: Mapping[str, Any] | None = None,
        train_tasks: int = 64,
        test_tasks: int = 64,
        max_turns: int = 40,
        success_reward: float = 1.0,
    ) -> None:
        super().__init__(f"textarena-{game}", train_tasks, test_tasks, max_turns)
        if game not in ENV_REGISTRY:
            raise UsageError(f"TextArena has no game {game!r}; `python -c 'import textarena as t; "
                             "t.pprint_registry_detailed()'` lists them")  # fmt: skip
        self.game, self.options, self.success_reward = game, dict(make or {}), positive(success_reward)
        try:
            self._world()
        except Exception as error:  # a missing word list, a wrong option
            raise UsageError(f"TextArena cannot make {game!r}: {' '.join(str(error).split())[:200]}") from None

    def make(self) -> Environment:
        """A fresh game."""
        return _Game(self, self._world())

    def _world(self) -> Any:
        """The game without the wrappers that repeat the conversation: ours holds it already."""
        raw = f"{self.game}-raw"
        world = textarena.make(raw if raw in ENV_REGISTRY else self.game, **self.options)
        return textarena.wrappers.ActionFormattingWrapper(world)


class _Game:
    def __init__(self, tasks: TextArenaTasks, world: Any) -> None:
        self.tasks, self.world = tasks, world
        self.state: Any = None
        self.reward, self.done, self.last = 0.0, False, ""

    def reset(self, task: Task) -> str:
        self.state = random.Random(int(task.data["seed"])).getstate()
        self.reward, self.done = 0.0, False
        self._alone(lambda: self.world.reset(num_players=1))
        return self._observe()[0] or "Begin."

    def step(self, action: str) -> Step:
        if self.done:
            return Step(self.last, True, {"valid": False})
        done, _ = self._alone(lambda: self.world.step(action=action))
        self.last, refused = self._observe()
        if done:
            rewards, infos = self.world.close()
            self.done, self.reward = True, float((rewards or {}).get(0, 0.0))
            refused = refused or bool(infos[0].get("invalid_move"))
            self.last = "\n".join(t for t in (self.last, str(infos[0].get("reason") or "")) if t)
        return Step(self.last, self.done, {"valid": not refused})

    def score(self) -> Score:
        return score_of(self.reward, self.tasks.success_reward)

    def close(self) -> None:
        self.done = True

    def _observe(self) -> tuple[str, bool]:
        """What the game said since, without the player's own words, and whether it refused a move."""
        _, messages = self.world.get_observation()
        said = [(text, kind) for sender, text, kind in messages if sender == textarena.GAME_ID]
        refused = any(kind == textarena.ObservationType.GAME_ADMIN for _, kind in said)
        return "\n".join(str(text).strip() for text, _ in said), refused

    def _alone(self, call: Callable[[], T]) -> T:
        with _GLOBAL_RANDOM:
            before = random.getstate()
            random.setstate(self.state)
            try:
                return call()
            finally:
                self.state = random.getstate()
                random.setstate(before)

"""OpenEnv: environments behind a server (``openenv`` on PyPI), a session an episode."""

from __future__ import annotations

import json
from typing import Any

from skillsd.envs.adapters.seeds import SeededTasks, positive, score_of
from skillsd.envs.base import Environment
from skillsd.errors import UsageError
from skillsd.types import Score, Step, Task

try:
    from openenv.core.generic_client import GenericEnvClient
except ImportError:
    raise UsageError("env 'openenv' needs OpenEnv: pip install 'skillsd[openenv]'") from None


class OpenEnvTasks(SeededTasks):
    """The environment served at ``url``, reset with a seed a task. The assistant's message goes into the action's
    field ``action``; the observation's field ``observation`` comes back (default: all of it as JSON). The reward is the
    sum over steps; an episode is solved from ``success_reward`` on. Raises :class:`UsageError` if no server answers.
    """

    def __init__(
        self,
        url: str,
        action: str = "message",
        observation: str = "",
        prompt: str = "",
        train_tasks: int = 64,
        test_tasks: int = 64,
        max_turns: int = 40,
        success_reward: float = 1.0,
        timeout: float = 30.0,
    ) -> None:
        super().__init__("openenv", train_tasks, test_tasks, max_turns)
        self.url, self.action, self.observation, self.prompt = url, action, observation, prompt
        self.success_reward, self.timeout = positive(success_reward), timeout
        try:
            client = self.client()
            client.connect()
            client.close()
        except Exception as error:  # whatever the socket, the URL or the server has to say
            told = " ".join(str(error).split())[:200]
            raise UsageError(f"no OpenEnv server answers at {url!r} ({told}): start it, or correct url") from None

    def client(self) -> Any:
        """A session with the server, not connected yet."""
        return GenericEnvClient(
            base_url=self.url, connect_timeout_s=self.timeout, message_timeout_s=self.timeout
        ).sync()

    def make(self) -> Environment:
        """A session of its own."""
        return _Session(self)


class _Session:
    """A message that the server refuses as an action makes no step, costs a turn, and is counted."""

    def __init__(self, tasks: OpenEnvTasks) -> None:
        self.tasks = tasks
        self.client: Any = None
        self.total, self.done, self.last = 0.0, False, ""

    def reset(self, task: Task) -> str:
        if self.client is None:
            self.client = self.tasks.client()
            self.client.connect()
        result = self.client.reset(seed=int(task.data["seed"]))
        self.total, self.done = 0.0, bool(result.done)
        self.last = self._text(result.observation)
        return "\n".join(text for text in (self.tasks.prompt, self.last) if text) or "Begin."

    def step(self, action: str) -> Step:
        if self.done:
            return Step(self.last, True, {"valid": False})
        text = action.encode("utf-8", "replace").decode("utf-8")
        try:
            result = self.client.step({self.tasks.action: text})
        except RuntimeError as error:  # the server's answer to a bad action; a lost server is a ConnectionError
            return Step(" ".join(str(error).split())[:500], False, {"valid": False})
        self.total += float(result.reward or 0.0)
        self.done = bool(result.done)
        self.last = self._text(result.observation)
        return Step(self.last, self.done, {"valid": True})

    def score(self) -> Score:
        return score_of(self.total, self.tasks.success_reward)

    def close(self) -> None:
        if self.client is not None:
            self.client.close()

    def _text(self, observation: Any) -> str:
        field = self.tasks.observation
        if not field:
            return json.dumps(observation, ensure_ascii=False, default=str)
        if field not in observation:
            raise UsageError(f"the observation has no field {field!r}; it has: {', '.join(observation)}")
        return str(observation[field])

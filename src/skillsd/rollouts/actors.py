"""What generates: the transformers engine in this process, or a vLLM server that is kept up to date."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedModel

from skillsd.config import Config
from skillsd.distributed.fsdp import whole
from skillsd.distributed.processes import Processes
from skillsd.policy.engines.base import Engine
from skillsd.policy.engines.transformers import TransformersEngine
from skillsd.policy.engines.vllm import VLLMClient, VLLMEngine, VLLMFeeder, VLLMRemote, VLLMServer
from skillsd.policy.loading import Policy, precision
from skillsd.policy.lora import plain_weights


class Teaches(Protocol):
    """A teacher, as a player: whose weights it has, and the model with them."""

    @property
    def kind(self) -> str:
        """``dynamic``: the student's own."""
        ...

    def active(self) -> AbstractContextManager[PreTrainedModel]:
        """The model that plays, inside this context."""
        ...


@dataclass
class Actors:
    """The student and its teacher as players. ``folder`` has the server's log and what it reads."""

    config: Config
    policy: Policy
    teacher: Teaches
    processes: Processes
    folder: Path
    server: VLLMClient | None = None
    #: Updates behind the weights that the server has.
    served: int | None = None
    #: A copy of the student that plays while the student is updated.
    apart: PreTrainedModel | None = None

    @contextmanager
    def engine(self, version: int, temperature: float, *, teacher: bool = False) -> Iterator[Engine]:
        """An engine for the student (or its ``teacher``) after ``version`` updates, inside this context.

        A teacher with weights of its own never goes to the server, which has the student's.
        """
        limit, chat = self.config.rollout.max_new_tokens, self.policy.chat
        if self.config.rollout.engine == "vllm" and (not teacher or self.teacher.kind == "dynamic"):
            yield VLLMEngine(self._server(version), chat, temperature=temperature, max_new_tokens=limit)
            return
        who = self.teacher.active() if teacher else nullcontext(self.policy.model)
        with who as model, whole(model), self._here(model, temperature) as player:
            yield player

    def engine_apart(self, version: int, temperature: float) -> AbstractContextManager[Engine]:
        """An engine with the student's weights of this moment, which later updates do not reach.

        Its context may be entered on another thread.
        """
        limit, chat = self.config.rollout.max_new_tokens, self.policy.chat
        if self.config.rollout.engine == "vllm":
            return nullcontext(VLLMEngine(self._server(version), chat, temperature=temperature, max_new_tokens=limit))
        if self.apart is None:
            self.apart = copy.deepcopy(self.policy.model).requires_grad_(False)
        self.apart.load_state_dict(self.policy.model.state_dict())
        return self._here(self.apart, temperature)

    @contextmanager
    def _here(self, model: PreTrainedModel, temperature: float) -> Iterator[Engine]:
        """``model`` as a player in this process."""
        limit = self.config.rollout.max_new_tokens
        with precision(self.config.model, model):  # autocast belongs to a thread
            yield TransformersEngine(model, self.policy.chat, temperature=temperature, max_new_tokens=limit)

    def close(self) -> None:
        """Stop the server, if there is one."""
        if self.server:
            self.server.close()

    def _server(self, version: int) -> VLLMClient:
        """The server, with the student's present weights; it is started when first needed."""
        if self.server is None or self.served != version:
            with whole(self.policy.model):
                weights = plain_weights(self.policy.model)
            if self.server is None:
                self.server = self._open(weights)
            elif isinstance(self.server, VLLMFeeder):
                self.server.load(weights)
            self.served = self.processes.from_main(lambda: version)  # nobody goes on before it is done
        return self.server

    def _open(self, weights: dict[str, Tensor]) -> VLLMClient:
        """The one server of the run: the main process starts and feeds it, the others are told where it is."""
        settings, rollouts, dtype = self.config.vllm, self.config.rollout, self.config.model.dtype
        own: VLLMFeeder | None = None
        if self.processes.main:
            own = (
                VLLMRemote(settings, rollouts, self.policy, weights, dtype)
                if settings.url
                else VLLMServer(settings, rollouts, self.policy, weights, dtype, self.folder)
            )
        where = self.processes.from_main(lambda: own.where if own else "")
        return own or VLLMClient(settings, where, rollouts.batch_size)

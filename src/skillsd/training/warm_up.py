"""A warm start: imitate demonstrations until the model earns its first rewards.

Where every episode of a group fails, GRPO has no gradient and no trajectory is worth a skill. Demonstrations are played
in the real environment, so that the model learns on exactly the tokens that it will act on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from skillsd.config import Config
from skillsd.distributed.fsdp import finite
from skillsd.envs import boundary, make_taskset
from skillsd.envs.answers import task_of
from skillsd.envs.base import HasDemonstrations
from skillsd.errors import SkillSDError, UsageError
from skillsd.policy.chat import ChatFormat
from skillsd.policy.engines.base import Generation, Request
from skillsd.policy.loading import load_policy, precision
from skillsd.policy.packing import TokenRow, micro_batches
from skillsd.policy.scoring import score_tokens
from skillsd.policy.selfcheck import is_dense
from skillsd.rollouts.playing import evaluate_model
from skillsd.rollouts.rollout import Job, rollout
from skillsd.seeding import derive_seed, permutation
from skillsd.system.files import locked, put_in_place, write_atomic
from skillsd.system.interrupt import on_interrupt
from skillsd.training.surroundings import left_alone
from skillsd.types import Task

#: The settings that count here.
USED = (
    "seed", "model", "env.name", "env.options", "env.train_split", "env.turn_timeout", "env.episode_timeout",
    "eval.tasks", "rollout.max_new_tokens", "rollout.max_tokens", "rollout.max_turns", "rollout.batch_size",
    "optim.max_tokens_per_device", "optim.max_grad_norm",
)  # fmt: skip
#: Told after every step: step, steps, loss (nats a token), and, where measured, accuracy.
Report = Callable[[int, int, float, float | None], None]


@dataclass
class WarmUp:
    """How a warm-up went. ``curve``: (demonstrations seen, greedy accuracy)."""

    out: str
    demonstrations: int = 0
    loss: float = float("nan")
    curve: list[tuple[int, float]] = field(default_factory=list)
    interrupted: bool = False


class Reciter:
    """An engine that says what it was told to: the messages of each episode, by its number."""

    lockstep = False
    max_length: int | None = None

    def __init__(self, chat: ChatFormat, messages: Sequence[Sequence[str]]) -> None:
        self.chat = chat
        self.left = [list(reversed(texts)) for texts in messages]

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """The next message of each episode; the end of the turn alone where there is none left."""
        return [self._say(self.left[int(request.episode)]) for request in requests]  # type: ignore[call-overload]

    def _say(self, left: list[str]) -> Generation:
        ids = [*(self.chat.message(left.pop()) if left else []), self.chat.end_id]
        return Generation(ids, [0.0] * len(ids), 0.0, True)

    def release(self, episodes: Sequence[Hashable]) -> None:
        """Nothing is held."""


def warm_up(
    config: Config,
    out: str | Path,
    *,
    split: str | None = None,
    demonstrations: int = 2000,
    batch: int = 16,
    lr: float = 1e-4,
    until: float = 0.15,
    measure_every: int = 10,
    report: Report | None = None,
) -> WarmUp:
    """Train ``config``'s model on ``demonstrations`` of ``split`` and save it to the folder ``out``, a ``model.path``.

    It ends early once the greedy accuracy on the first ``eval.tasks`` (default 64) training tasks reaches ``until``,
    measured every ``measure_every`` steps of ``batch`` demonstrations. ``split`` (default: the task set's own
    ``warm_up`` if it has one, else the training split) is gone through in shuffled epochs. After ctrl-C what was learnt
    so far is saved. Raises :class:`UsageError` for a task set without demonstrations and :class:`SkillSDError` if one
    of them fails or the loss is not finite.
    """
    if not 0 < until <= 1:
        raise UsageError(f"--until {until:g}: the accuracy to stop at is above 0 and at most 1")
    if not lr > 0:
        raise UsageError(f"--lr {lr:g}: nothing is learnt at such a rate")
    out = Path(out)
    folder = out.resolve()
    with locked(folder.with_name(f".{folder.name}.lock"), f"{out}: another process is warming up into it"):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{out} is not empty: choose another --out")
        with left_alone():
            return _warm_up(
                config, out, split, demonstrations, min(batch, demonstrations), lr, until, measure_every, report
            )


def _warm_up(
    config: Config,
    out: Path,
    split: str | None,
    demonstrations: int,
    batch: int,
    lr: float,
    until: float,
    measure_every: int,
    report: Report | None,
) -> WarmUp:
    taskset = make_taskset(config.env.name, **config.env.options)
    if not isinstance(taskset, HasDemonstrations):
        raise UsageError(f"{config.env.name}: has no demonstrations to warm up on (a method demonstrate(task))")
    tasks = boundary.lazily(taskset, split or str(getattr(taskset, "warm_up_split", config.env.train_split)))
    torch.manual_seed(derive_seed(config.seed, "model"))
    policy = load_policy(config.model, train=True)
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    result, steps = WarmUp(str(out)), demonstrations // batch

    def stop() -> None:
        result.interrupted = True

    def accuracy() -> float:
        limit = config.eval.tasks or 64
        found = evaluate_model(policy.model, policy.chat, taskset, config, config.env.train_split, limit=limit)
        result.curve.append((result.demonstrations, found.accuracy))
        return found.accuracy

    with on_interrupt(stop):
        for step in range(1, steps + 1):
            chosen = [_nth(tasks, config.seed, (step - 1) * batch + i) for i in range(batch)]
            rows = demonstrate(taskset, policy.chat, chosen, config)
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, step / 10)
            result.loss = _imitate(policy.model, rows, config, parameters, optimizer)
            result.demonstrations += batch
            due = step % measure_every == 0 or step == steps
            measured = accuracy() if due and not result.interrupted else None
            if report:
                report(step, steps, result.loss, measured)
            if result.interrupted or (measured is not None and measured >= until):
                break
        recipe = {"config": config.model_dump(mode="json"), "lr": lr, "batch": batch}
        _save(out, policy.model, policy.tokenizer, recipe, result)
    return result


def demonstrate(taskset: Any, chat: ChatFormat, tasks: Sequence[Task], config: Config) -> list[TokenRow]:
    """Play the demonstration of each task. Raises :class:`SkillSDError` if one does not succeed."""
    messages = [boundary.demonstration(taskset, task) for task in tasks]
    jobs = [Job(task, 0, 0) for task in tasks]
    batch = rollout(
        Reciter(chat, messages),
        chat,
        taskset,
        jobs,
        iteration=0,
        max_turns=max(map(len, messages)),
        max_tokens=config.rollout.max_tokens,
        turn_timeout=config.env.turn_timeout,
        episode_timeout=config.env.episode_timeout,
        batch_size=config.rollout.batch_size,
    )
    if batch.dropped:
        raise SkillSDError(f"the demonstration of {batch.dropped[0].job.task.id} broke off: {batch.dropped[0].reason}")
    for trajectory in batch.trajectories:
        if not trajectory.success:
            raise SkillSDError(
                f"the demonstration of {trajectory.task_id} does not succeed ({trajectory.status}, "
                f"{len(trajectory.ids)} tokens; rollout.max_tokens is {config.rollout.max_tokens})"
            )
    return [TokenRow(t.prompt_ids, t.completion_ids, t.action_mask) for t in batch.trajectories]


def _imitate(
    model: Any, rows: Sequence[TokenRow], config: Config, parameters: list[torch.nn.Parameter], optimizer: Any
) -> float:
    """One step on the mean negative log-likelihood (nats a token) of what was said."""
    tokens, loss = sum(sum(row.action_mask) for row in rows), 0.0
    for index in micro_batches(rows, config.optim.max_tokens_per_device, shared=is_dense(model)):
        with precision(config.model, model):
            part = -score_tokens(model, [rows[i] for i in index]).logps.sum() / tokens
        part.backward()
        loss += float(part.detach())
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.optim.max_grad_norm))
    if not (torch.isfinite(torch.tensor(loss + norm))):
        raise SkillSDError(f"warm-up: loss {loss:g}, gradient norm {norm:g}; lower --lr")
    optimizer.step()
    if not finite(parameters):
        raise SkillSDError("warm-up: the update made weights that are not finite; lower --lr")
    optimizer.zero_grad()
    return loss


def _nth(tasks: Sequence[Task], seed: int, number: int) -> Task:
    epoch, place = divmod(number, len(tasks))
    return task_of(tasks[_order(len(tasks), seed, epoch)[place]])


def _order(count: int, seed: int, epoch: int) -> list[int]:
    return permutation(count, seed, "warm-up", epoch)


def _save(out: Path, model: Any, tokenizer: Any, recipe: dict[str, Any], result: WarmUp) -> None:
    out = out.resolve()
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_atomic(temporary / "warm_up.json", json.dumps({**recipe, **asdict(result)}, indent=1).encode())
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SkillSDError(f"{out}: could not be written ({error})") from None
    try:
        if out.exists():
            out.rmdir()
        put_in_place(temporary, out)
    except OSError as error:  # somebody has put something there meanwhile
        raise SkillSDError(f"{out}: could not be written ({error}); the model is in {temporary}") from None

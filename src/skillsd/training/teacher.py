"""Whose weights teach: the student's own (dynamic), its first (frozen), or their moving average (arXiv:2604.10674)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from transformers import PreTrainedModel

from skillsd.policy import lora

Kind = Literal["none", "dynamic", "frozen", "ema"]


class Teacher:
    """Whoever scores (or samples) under the teacher's view.

    A dynamic teacher is the student itself: its scores are taken before the update, so no second copy of the
    weights is needed. A frozen one is the student too, with its adapter switched off, where only an adapter is trained.
    The others hold a copy that gradients never reach.
    """

    def __init__(self, kind: Kind, student: PreTrainedModel, decay: float = 0.0) -> None:
        self.kind, self.student, self.decay = kind, student, decay
        self.copy: PreTrainedModel | None = None
        if kind == "ema" or (kind == "frozen" and not lora.has_adapter(student)):
            self.copy = copy.deepcopy(student).requires_grad_(False)

    @contextmanager
    def active(self) -> Iterator[PreTrainedModel]:
        """The model that scores, or samples, under the skill; inside this context alone it is the teacher."""
        if self.kind == "frozen" and self.copy is None:
            with lora.switched_off(self.student) as model:
                yield model
        else:
            yield self.student if self.copy is None else self.copy

    @torch.no_grad()
    def synchronize(self) -> None:
        """Called at the start of every iteration: teacher <- theta, theta_0, or their average."""
        if self.kind != "ema" or self.copy is None:
            return
        for mine, theirs in zip(self.copy.parameters(), self.student.parameters(), strict=True):
            mine.lerp_(theirs.to(mine.dtype), 1 - self.decay)

"""Whose weights teach: the student's own (dynamic), its first (frozen), or their moving average (PAPER section 2)."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from transformers import PreTrainedModel

Kind = Literal["none", "dynamic", "frozen", "ema"]


class Teacher:
    """``model`` scores (or samples) under the teacher's view.

    A dynamic teacher is the student itself: its scores are taken before the update, so no second copy of the
    weights is needed. The others hold a copy that gradients never reach.
    """

    def __init__(
        self, kind: Literal["none", "dynamic", "frozen", "ema"], student: PreTrainedModel, decay: float
    ) -> None:
        self.kind, self.student, self.decay = kind, student, decay
        self.copy: PreTrainedModel | None = None
        if kind in ("frozen", "ema"):
            self.copy = copy.deepcopy(student).requires_grad_(False)

    @property
    def model(self) -> PreTrainedModel:
        """The model that scores, or samples, under the skill."""
        return self.student if self.copy is None else self.copy

    @torch.no_grad()
    def synchronize(self) -> None:
        """Called at the start of every iteration: teacher <- theta, theta_0, or their average."""
        if self.kind != "ema" or self.copy is None:
            return
        for mine, theirs in zip(self.copy.parameters(), self.student.parameters(), strict=True):
            mine.lerp_(theirs.to(mine.dtype), 1 - self.decay)

"""What a run sets for the whole process is put back, however it ends."""

import os
import random
import signal
import warnings

import numpy as np
import pytest
import torch

from runs_lab import config
from skillsd import train
from skillsd.envs.boundary import _depth
from skillsd.training.warm_up import warm_up


def surroundings():
    return {
        "torch": [getattr(torch, name)() for name in (
            "is_grad_enabled", "is_inference_mode_enabled", "get_default_dtype", "get_num_threads",
            "are_deterministic_algorithms_enabled", "get_float32_matmul_precision", "is_anomaly_enabled",
        )],
        "autocast": [(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in ("cpu", "cuda")],
        "depth": _depth(torch),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "randomness": (torch.random.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()),
        "signals": [signal.getsignal(number) for number in (2, 1, 10, 14, 15, 24)],
        "warnings": list(warnings.filters),
        "folder": os.getcwd(),
    }  # fmt: skip


def hard(kind, data):
    """A listener that does not behave, and ends the run in its second iteration."""
    torch.set_num_threads(3)
    torch.set_grad_enabled(kind != "warning")
    if kind == "iteration" and data["iteration"] == 2:
        torch.autocast("cpu", torch.bfloat16).__enter__()
        raise RuntimeError("enough")


def fails(*arguments, **named):
    raise KeyboardInterrupt


@pytest.mark.parametrize("settings", [[], ["model.dtype=bfloat16", "model.lora_rank=2"]])
def test_everything_is_as_before(tmp_path, settings, monkeypatch):
    before = surroundings()
    train(config(*settings, "trainer.iterations=1"), tmp_path / "run")
    assert surroundings() == before
    with pytest.raises(RuntimeError, match="enough"):
        train(config(*settings), tmp_path / "failed", listen=hard)
    assert surroundings() == before
    monkeypatch.setattr(torch.Tensor, "backward", fails)
    with pytest.raises(KeyboardInterrupt):
        train(config(*settings), tmp_path / "stopped", evaluate=False)
    assert surroundings() == before


def test_a_warm_up_leaves_everything_as_before(tmp_path):
    before = surroundings()
    warm_up(config("eval.tasks=1"), tmp_path / "warm", demonstrations=2, batch=2)
    assert surroundings() == before

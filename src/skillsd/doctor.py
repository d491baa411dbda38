"""Is this machine set up, and does a model's chat template fit?"""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from skillsd.config import ModelConfig
from skillsd.envs.appworld.install import state
from skillsd.errors import SkillSDError
from skillsd.policy.loading import load_policy
from skillsd.run_dir import versions


def _appworld() -> str:
    found = state()
    if "pack" not in found:
        return "not set up (skillsd appworld setup)"
    there = [name for name in ("pack", "official") if found[name].startswith("there")]
    return f"engine {found['engine']}, data: {', '.join(there) or 'none'}"


def examine(model: str) -> dict[str, Any]:
    """Facts about versions, devices, threads, memory and the chat template of ``model``; ``ok`` sums up."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    findings: dict[str, Any] = {
        **versions(),
        "system": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "memory_gib": round(pages / 2**30, 1),
        "appworld": _appworld(),
    }
    try:
        policy = load_policy(ModelConfig(path=model))
    except SkillSDError as error:
        return {**findings, "model": str(error), "ok": False}
    parameters = sum(p.numel() for p in policy.model.parameters())
    return {
        **findings,
        "model": f"{type(policy.model).__name__}, {parameters / 1e6:.1f} M parameters",
        "chat_template": "fits: keeps its prefix, has a generation prompt, turns end with one token",
        "stop_tokens": policy.tokenizer.convert_ids_to_tokens(sorted(policy.chat.stop_ids)),
        "ok": True,
    }

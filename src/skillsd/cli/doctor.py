"""Is this machine set up, and does a model's chat template fit?"""

from __future__ import annotations

import json
import os
import platform
from typing import Annotated, Any

import typer
from rich.table import Table

from skillsd.cli.common import Json
from skillsd.errors import SkillSDError
from skillsd.system.terminal import Screen


def doctor(
    model: Annotated[str, typer.Argument(help="Also check this model, its tokenizer and chat template.")] = "embedded",
    chat_template: Annotated[
        str | None, typer.Option(help="Try this in place of the model's own template: chatml, or a Jinja file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine, and whether a model can be trained: its chat template, and its log-probs in a batch.

    Example: skillsd doctor ./my-model --chat-template chatml
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    findings = examine(model, chat_template)
    if as_json:
        print(json.dumps(findings))
    else:
        table = Table(box=None, show_header=False)
        for name, value in findings.items():
            table.add_row(name, str(value))
        Screen().print(table)
    if not findings["ok"]:
        raise typer.Exit(1)


def _appworld() -> str:
    from skillsd.envs.appworld.status import state

    found = state()
    if "pack" not in found:
        return "not set up (skillsd appworld setup)"
    there = [name for name in ("pack", "official") if found[name].startswith("there")]
    return f"engine {found['engine']}, data: {', '.join(there) or 'none'}"


def examine(model: str, chat_template: str | None = None) -> dict[str, Any]:
    """Facts about versions, devices, threads, memory, and how ``model`` is played; ``ok`` sums up.

    ``chat_template`` is tried in place of the model's own, as ``model.chat_template`` would be.
    """
    import torch

    from skillsd.config import parse_config
    from skillsd.policy.loading import load_policy
    from skillsd.policy.positions import position_limit
    from skillsd.policy.selfcheck import WAYS, decoding
    from skillsd.runs.folder import versions

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
        policy = load_policy(parse_config({"model": {"path": model, "chat_template": chat_template}}).model)
    except SkillSDError as error:
        return {**findings, "model": str(error), **_with_chatml(model, chat_template), "ok": False}
    parameters = sum(p.numel() for p in policy.model.parameters())
    return {
        **findings,
        "model": f"{type(policy.model).__name__}, {parameters / 1e6:.1f} M parameters",
        "positions": position_limit(policy.model) or "no limit",
        "decoding": WAYS[decoding(policy.model)],
        "chat_template": "fits: keeps its prefix, has a generation prompt, turns end with one token",
        "stop_tokens": policy.tokenizer.convert_ids_to_tokens(sorted(policy.chat.stop_ids)),
        "ok": True,
    }


def _with_chatml(model: str, tried: str | None) -> dict[str, str]:
    """Whether ChatML is the remedy for a model that does not load."""
    if tried:
        return {}
    from skillsd.config import parse_config
    from skillsd.policy.loading import load_policy

    try:
        load_policy(parse_config({"model": {"path": model, "chat_template": "chatml"}}).model)
    except SkillSDError:
        return {}
    return {"remedy": "it fits with --set model.chat_template=chatml"}

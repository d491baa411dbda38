"""Settings from presets, files and command lines."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from skillsd.config.overrides import is_there, override, parse_toml, read_toml, without_what_belonged
from skillsd.config.schema import Config
from skillsd.errors import UsageError, one_line, shown

#: Settings into which somebody may have put a key.
_UNSHOWN = ("summarizer.api_key_env", "summarizer.base_url", "vllm.url")
#: Settings of version 0.1 that brought nothing; 0, their default, switched them off.
_GONE = (("loss", "anchor_weight"), ("loss", "view_reward_weight"))


def presets() -> dict[str, str]:
    """Preset names with their first comment line."""
    folder = resources.files("skillsd.config") / "presets"
    found = {}
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            found[entry.name[:-5]] = entry.read_text("utf-8").splitlines()[0].lstrip("# ")
    return found


def load_config(preset_or_path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """A :class:`Config` from a preset's name or a TOML file, with dotted overrides such as ``optim.lr=1e-4``.

    Of several overrides of one setting the last counts. One that chooses another environment, model, summariser or
    method drops what the preset or file says for its own choice (:data:`skillsd.config.overrides.BELONGS`). Raises
    :class:`UsageError` (one line that names the setting) for anything unknown or out of range.
    """
    return parse_config(override(read_tree(preset_or_path), overrides))


def with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """``config`` with dotted overrides, as in :func:`load_config`."""
    return parse_config(override(config.model_dump(exclude_none=True), overrides)) if overrides else config


def with_model(config: Config, path: str) -> Config:
    """``config`` with the model at ``path``. Raises :class:`UsageError` for what is no path."""
    tree = config.model_dump(exclude_none=True)
    return parse_config({**tree, "model": {**tree["model"], "path": path}})


def with_environment(config: Config, name: str, options: dict[str, Any]) -> Config:
    """``config`` with another environment, or its own with other ``options``. Raises :class:`UsageError`."""
    tree = without_what_belonged(config.model_dump(exclude_none=True), {"env.name": name})
    return parse_config({**tree, "env": {**tree["env"], "name": name, "options": options}})


def parse_config(tree: dict[str, Any]) -> Config:
    """Validate a plain tree. Raises :class:`UsageError`."""
    try:
        return Config.model_validate(_without_gone(tree))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UsageError(
                f"unknown setting {shown(where)}; `skillsd presets --show sokoban` lists them all"
            ) from None
        message = first["msg"].removeprefix("Value error, ")
        got = "" if where in _UNSHOWN else f" (got {shown(first['input'])})"
        raise UsageError(f"{one_line(where, 80)}: {message}{got}" if where else message) from None


def _without_gone(tree: dict[str, Any]) -> dict[str, Any]:
    """``tree`` of an older version, without what it had switched off and this version does not have."""
    for section, name in _GONE:
        found = tree.get(section)
        if isinstance(found, dict) and name in found:
            if found[name] != 0:
                raise UsageError(f"{section}.{name} was taken out after version 0.1 (docs/RESULTS.md says why)")
            tree = {**tree, section: {key: value for key, value in found.items() if key != name}}
    return tree


def read_tree(preset_or_path: str | Path) -> dict[str, Any]:
    """The plain tree of a preset or TOML file. Raises :class:`UsageError`."""
    name = str(preset_or_path)
    if name in presets():
        path = resources.files("skillsd.config") / "presets" / f"{name}.toml"
        tree = parse_toml(path.read_text("utf-8"), name)
    elif is_there(name):
        tree = read_toml(name)
    else:
        raise UsageError(f"no preset or file {shown(name)}; presets: {', '.join(presets())}")
    tree.pop("meta", None)  # versions that a run folder's config.toml records
    return tree

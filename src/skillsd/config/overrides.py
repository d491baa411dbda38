"""Settings as text: TOML files, and A.B=C from a command line. Anything may be in them."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from skillsd.errors import UsageError, one_line, shown
from skillsd.system.files import read_text

#: Characters of a file's name in a message.
LONGEST_PATH = 250
#: Levels and text lengths of settings.
DEEPEST, LONGEST_TEXT = 20, 100_000
#: A choice, and the settings that belong to what was chosen: another choice has its own, or the defaults.
BELONGS = {
    "env.name": ("env.options", "env.train_split", "env.test_split"),
    "model.path": ("model.chat_template", "model.lora_targets"),
    "rollout.engine": ("vllm",),
    "skills.summarizer": ("summarizer",),
    "method": ("teacher.weights",),
}
#: Only these summarisers have settings.
_WITH_SETTINGS = ("openai", "policy")
#: What a second setting looks like in a value that should be one word.
_ANOTHER = re.compile(r"[\s,;](?:--set\s+)?[A-Za-z_][\w-]*(?:\.[\w-]+)*\s*=")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

Tree = dict[str, Any]


def is_there(path: str | Path) -> bool:
    """Whether there is such a file."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # no file can have that name
        return False


def read_toml(path: str | Path) -> Tree:
    """The tree of a TOML file. Raises :class:`UsageError` (one line) for whatever is none."""
    name = one_line(repr(str(path)), LONGEST_PATH)
    try:
        text = read_text(path)
    except UsageError as error:
        raise UsageError(f"{name}: cannot be read: {error}") from None
    return parse_toml(text, name)


def parse_toml(text: str, name: str) -> Tree:
    """The tree of ``text``. Raises :class:`UsageError` that begins with ``name``."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name}: not valid TOML: {one_line(str(error))}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{name}: not usable TOML: a number is too long, or brackets are too deep") from None
    check(tree, name)
    return tree


def toml_value(raw: str) -> Any:
    """What ``raw`` is in TOML; a bare word is a string. Raises :class:`UsageError` for more than one value."""
    raw = raw.strip()
    several = f"{shown(raw)} holds more than one setting: give each an option of its own, or put a text into quotes"
    try:
        tree = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        if _ANOTHER.search(raw):
            raise UsageError(several) from None
        tree = {"value": raw}
    except (ValueError, RecursionError):
        raise UsageError(f"{shown(raw)}: the number is too long, or brackets are too deep") from None
    if set(tree) != {"value"}:
        raise UsageError(several)
    check(tree["value"], shown(raw))
    return tree["value"]


def check(value: Any, name: str, depth: int = 0) -> None:
    """Raise :class:`UsageError` for what could be neither written nor told: too deep, too large, control characters."""
    if depth > DEEPEST:
        raise UsageError(f"{name}: tables and lists are nested more than {DEEPEST} deep")
    if isinstance(value, str) and (len(value) > LONGEST_TEXT or _CONTROL.search(value)):
        raise UsageError(f"{name}: {shown(value)} is too long, no UTF-8, or holds control characters")
    if isinstance(value, int) and value.bit_length() > 63:
        raise UsageError(f"{name}: {shown(value)} is too large")
    if isinstance(value, Mapping):
        for key, item in value.items():
            check(key, name, depth + 1)
            check(item, name, depth + 1)
    elif isinstance(value, list):
        for item in value:
            check(item, name, depth + 1)


def parse(override: str) -> tuple[list[str], Any]:
    """``section.name=value``: the parts of the name, and the value. Raises :class:`UsageError`."""
    key, separator, raw = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise UsageError(f"override {shown(override)} is not of the form section.name=value")
    if len(parts) > DEEPEST:
        raise UsageError(f"override {shown(override)}: no setting has a name of {len(parts)} parts")
    check(key, "override")
    return parts, toml_value(raw)


def override(tree: Tree, overrides: Sequence[str]) -> Tree:
    """``tree`` with ``overrides``, the last one of a setting counting. Raises :class:`UsageError`."""
    parsed = [parse(each) for each in overrides]
    chosen = {".".join(parts): value for parts, value in parsed}
    result = without_what_belonged(tree, {choice: chosen[choice] for choice in BELONGS if choice in chosen})
    for (parts, value), told in zip(parsed, overrides, strict=True):
        _put(result, parts, value, told)
    return result


def without_what_belonged(tree: Tree, chosen: Mapping[str, Any]) -> Tree:
    """A copy of ``tree`` without the settings that belong to a choice which ``chosen`` changes."""
    result = copy.deepcopy(tree)
    for choice, new in chosen.items():
        old = find(tree, choice)
        kept = old is None or old == new or (choice == "skills.summarizer" and old not in _WITH_SETTINGS)
        for setting in () if kept else BELONGS[choice]:
            section, _, name = setting.rpartition(".")
            holder = find(result, section) if section else result
            if isinstance(holder, dict):
                holder.pop(name, None)
    return result


def find(tree: Any, setting: str) -> Any:
    """The value of a dotted ``setting``; None if it is not there."""
    for part in setting.split("."):
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(part)
    return tree


def only(overrides: Sequence[str], used: Sequence[str], command: str, instead: Mapping[str, str] | None = None) -> None:
    """Raise :class:`UsageError` for a setting that ``command`` does not use: it would change nothing.

    ``used``: settings, or sections of them. ``instead``: what does what such a setting might be meant for.
    """
    for parts, value in map(parse, overrides):
        for name in _leaves(".".join(parts), value):
            if not any(name == each or name.startswith(f"{each}.") for each in used):
                hint = f": use {instead[name]}" if instead and name in instead else f"; it uses {', '.join(used)}"
                raise UsageError(f"{command} does not use the setting {shown(name)}{hint}")


def _leaves(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value and name.count(".") < 1:  # a section; deeper ones are values
        for key, item in value.items():
            yield from _leaves(f"{name}.{key}", item)
    else:
        yield name


def _put(tree: Tree, parts: Sequence[str], value: Any, told: str) -> None:
    for part in parts[:-1]:
        child = tree.setdefault(part, {})
        if not isinstance(child, dict):
            raise UsageError(f"override {shown(told)}: {shown(part)} is a value, not a section")
        tree = child
    tree[parts[-1]] = value

"""What is compared: rows (a method and its settings) x seeds, from one TOML file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from skillsd.analysis.compare.primary import Measure
from skillsd.config import Config, Section, parse_config, read_tree
from skillsd.config.overrides import BELONGS, find, is_there, parse_toml, read_toml, without_what_belonged
from skillsd.errors import UsageError, shown

#: What a comparison may not vary: tasks, base model, episodes, evaluation.
_SAME = ("env", "model", "eval", "trainer.iterations")

#: The comparisons of docs/RESULTS.md, in the package too.
_SHIPPED = resources.files("skillsd.analysis.compare") / "shipped"

Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31, strict=True)]], Field(min_length=1)]


class Contrast(Section):
    """What a comparison was made to find out: how much better ``row`` is than ``against``, at the ``end`` or while it
    is in ``training``."""

    row: str
    against: str
    measure: Measure = "end"


class Matrix(Section):
    """The file. ``settings`` hold for every row; a row is a tree of settings, and may have ``seeds`` of its own."""

    preset: str
    seeds: Seeds
    rows: dict[str, dict[str, Any]] = Field(min_length=1)
    settings: dict[str, Any] = Field({}, description="for every row")
    vary: dict[str, list[Any]] = Field({}, description="settings with a value for each of the seeds, for every row")
    primary: list[Contrast] = Field(
        [], max_length=3, description="declared before a cell runs; the rest is exploratory"
    )
    baselines: list[str] = Field(["grpo", "opd"], description="rows that the others are measured against")
    splits: list[str] = Field(["test"], min_length=1)

    @model_validator(mode="after")
    def _no_base(self) -> Matrix:
        if "base" in self.rows:
            raise ValueError("'base' is the row of the untrained model: choose another name")
        return self

    @model_validator(mode="after")
    def _declared(self) -> Matrix:
        for contrast in self.primary:
            for name in (contrast.row, contrast.against):
                if name not in (*self.rows, "base"):
                    raise ValueError(f"primary: there is no row {shown(name)}")
        for name, values in self.vary.items():
            if len(values) != len(self.seeds) or len(set(self.seeds)) != len(self.seeds):
                raise ValueError(f"vary.{shown(name)}: give one value for each seed, and each seed once")
        return self


@dataclass(frozen=True)
class CellSpec:
    """One cell to run. The row "base" is the untrained model."""

    row: str
    seed: int
    config: Config
    overrides: dict[str, Any]

    @property
    def folder(self) -> str:
        """Where the cell lives: readable, and different for different rows."""
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", self.row).strip("-.") or "row"
        if slug != self.row:
            slug += "-" + hashlib.sha256(self.row.encode()).hexdigest()[:6]
        return f"{slug}/seed-{self.seed}"


def load_matrix(path: str | Path) -> Matrix:
    """A comparison from a file, or a shipped one by its name, such as ``smoke`` or ``comparisons/smoke.toml``.

    Raises :class:`UsageError` (one line that names the place) for anything that is not a comparison.
    """
    asked = Path(path)
    named = {file.name.removesuffix(".toml"): file for file in _SHIPPED.iterdir() if file.name.endswith(".toml")}
    shipped = named.get(asked.name.removesuffix(".toml")) if str(asked.parent) in (".", "comparisons") else None
    if is_there(asked):
        tree = read_toml(asked)
    elif shipped is not None:
        tree = parse_toml(shipped.read_text("utf-8"), asked.name)
    else:
        raise UsageError(
            f"there is no such file as {shown(str(path))}; comparisons that are shipped: {', '.join(sorted(named))}"
        )
    try:
        return Matrix.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = shown(".".join(map(str, first["loc"]))).strip("'")
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{path}: {where}: {message}" if where else f"{path}: {message}") from None


def expand(matrix: Matrix) -> list[CellSpec]:
    """All cells: the base model's, then seed by seed, so that a comparison cut short is still a paired one.

    Raises :class:`UsageError` for a row whose settings are wrong, or that would not be a fair comparison.
    """
    chosen = {choice: value for choice in BELONGS if (value := find(matrix.settings, choice)) is not None}
    base = _merged(without_what_belonged(read_tree(matrix.preset), chosen), matrix.settings)
    untrained = matrix.seeds if matrix.vary else [0]
    bases = {s: CellSpec("base", s, _config("settings", _varied(base, matrix, s)), {}) for s in untrained}
    cells = list(bases.values())
    rounds = max(len(row.get("seeds", matrix.seeds)) for row in matrix.rows.values())
    for number in range(rounds):
        for name, row in matrix.rows.items():
            overrides = {key: value for key, value in row.items() if key != "seeds"}
            seeds = row.get("seeds", matrix.seeds)
            if not (isinstance(seeds, list) and seeds and all(type(s) is int for s in seeds)):
                raise UsageError(f"rows.{name}.seeds: a list of whole numbers is wanted, not {shown(seeds)}")
            if matrix.vary and not {*seeds} <= {*matrix.seeds}:
                raise UsageError(f"rows.{name}.seeds: there are values in [vary] for {matrix.seeds} alone")
            if number < len(dict.fromkeys(seeds)):
                seed = list(dict.fromkeys(seeds))[number]
                config = _config(f"rows.{name}", _varied(_merged(base, overrides), matrix, seed))
                cells.append(CellSpec(name, seed, config, overrides))
    for cell in cells:
        first = bases[cell.seed if matrix.vary else 0]
        for setting in _SAME:
            if _get(cell.config, setting) != _get(first.config, setting):
                raise UsageError(f"rows.{cell.row}: {setting} must be the same for all rows: move it to [settings]")
        if _episodes(cell.config) != _episodes(first.config):
            raise UsageError(
                f"rows.{cell.row}: {_episodes(cell.config)} episodes an iteration (rollout.tasks_per_iteration x "
                f"rollout.group_size), and {_episodes(first.config)} elsewhere: they must be the same for all rows"
            )
    return cells


def _varied(tree: Mapping[str, Any], matrix: Matrix, seed: int) -> dict[str, Any]:
    """``tree`` with ``seed`` and what the comparison has vary with it."""
    result = {**tree, "seed": seed}
    for name, values in matrix.vary.items():
        section, parts = result, name.split(".")
        for part in parts[:-1]:
            inner = section.get(part)
            section[part] = section = {**inner} if isinstance(inner, Mapping) else {}
        section[parts[-1]] = values[matrix.seeds.index(seed)]
    return result


def _config(where: str, tree: dict[str, Any]) -> Config:
    try:
        return parse_config(tree)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _merged(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """``extra`` laid over ``base``, section by section; neither is changed."""
    result = dict(base)
    for key, value in extra.items():
        old = result.get(key)
        # A method's options are one value: those of another task set would not fit.
        merge = isinstance(old, Mapping) and isinstance(value, Mapping) and key != "options"
        result[key] = _merged(old, value) if merge else value  # type: ignore[arg-type]
    return result


def _episodes(config: Config) -> int:
    return config.rollout.tasks_per_iteration * config.rollout.group_size


def _get(config: Config, setting: str) -> Any:
    value: Any = config
    for part in setting.split("."):
        value = getattr(value, part)
    return value

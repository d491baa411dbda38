"""Sokoban as a task set: the paper's split, an easier one, or levels of one's own."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal, overload

from rich.text import Text

from skillsd.envs.sokoban.game import DIRECTIONS, GLYPHS, Board, canonical_hash, read_boxoban
from skillsd.envs.sokoban.generate import generate
from skillsd.envs.sokoban.make_levels import SPLITS
from skillsd.envs.sokoban.rules import SokobanRules, describe_solution, places
from skillsd.envs.sokoban.solver import best_moves, distances, solve
from skillsd.envs.sokoban.text import INVALID, PROMPT, format_action, parse_action
from skillsd.errors import SkillSDError, UsageError
from skillsd.seeding import derive_seed
from skillsd.system.files import read_text
from skillsd.types import Score, Skill, Step, Task

#: Bytes of a file of levels.
_LARGEST = 100_000_000
_MAX_TURNS = {"paper": 40, "one_box": 20}
_STYLES = {"#": "grey50", "_": "grey30", "O": "red", "X": "yellow", "T": "green", "P": "bold cyan", "S": "bold cyan"}
_COLOURS = {"#": "#6b7280", "X": "#d97706", "T": "#16a34a", "P": "#2563eb", "S": "#2563eb"}


class Sokoban:
    """One level at a time. A message without exactly one move makes no move, costs a turn, and is counted."""

    def __init__(self) -> None:
        self.board: Board | None = None

    def reset(self, task: Task) -> str:
        """The rules and the board. Raises :class:`SkillSDError` for a malformed level."""
        self.board = Board(str(task.data["level"]))
        return PROMPT + str(self.board)

    def step(self, action: str) -> Step:
        """Make the one move that ``action`` names in triple backticks; the board is the observation."""
        board = self._board()
        direction = parse_action(action)
        if direction is None:
            return Step(INVALID + str(board), False, {"valid": False, "action": None, "moved": False})
        moved = board.move(direction)
        return Step(str(board), board.solved, {"valid": True, "action": direction, "moved": moved})

    def score(self) -> Score:
        """Reward and completion: the share of boxes on targets; success: all of them."""
        board = self._board()
        share = (board.boxes - board.boxes_left) / board.boxes
        return Score(share, board.solved, share)

    def close(self) -> None:
        """Forget the level."""
        self.board = None

    def _board(self) -> Board:
        if self.board is None:
            raise SkillSDError("reset the environment before using it")
        return self.board


class SokobanTasks:
    """Splits of Sokoban levels.

    ``variant`` "paper": 96 training and 64 test levels of 6x6 with 2 boxes, 40 turns, and ``extra``, 512 more unseen
    ones; "one_box": 6x6 with 1 box, 20 turns, ``train`` / ``test`` / ``validation``. Both have ``warm_up``, 10,000
    levels of the same kind that are none of these, not even turned or mirrored. ``levels`` (and ``test_levels``) name
    Boxoban text files to use instead, as ``train`` and ``test`` (without ``test_levels`` both are the same), with 40
    turns. Raises :class:`UsageError` for a wrong option and :class:`SkillSDError` for a
    malformed file.
    """

    name = "sokoban"
    play_keys = MappingProxyType({key: f"```{move}```" for key, move in zip("wsad↑↓←→", DIRECTIONS * 2, strict=True)})

    def __init__(
        self,
        variant: Literal["paper", "one_box"] = "paper",
        levels: str | None = None,
        test_levels: str | None = None,
        max_turns: int | None = None,
    ) -> None:
        if variant not in _MAX_TURNS:
            raise UsageError(f"sokoban: unknown variant {variant!r}; choose one of {', '.join(_MAX_TURNS)}")
        if max_turns is not None and not (isinstance(max_turns, int) and max_turns >= 1):
            raise UsageError(f"sokoban: max_turns must be a whole number from 1 on, not {max_turns!r}")
        if test_levels is not None and levels is None:
            raise UsageError("sokoban: test_levels needs levels, the file to train on")
        self.max_turns = max_turns or _MAX_TURNS["paper" if levels is not None else variant]
        if levels is None:
            self._splits: dict[str, Sequence[Task]] = {**_fixed(variant), "warm_up": Generated(variant)}
            self.warm_up_split = "warm_up"
        else:
            self.warm_up_split = "train"
            train = _boxoban(levels)
            self._splits = {"train": train, "test": train if test_levels is None else _boxoban(test_levels)}

    def tasks(self, split: str) -> Sequence[Task]:
        """The levels of ``split``. Raises :class:`UsageError` for an unknown one."""
        if split not in self._splits:
            raise UsageError(f"sokoban: no split {split!r}; splits: {', '.join(self._splits)}")
        return self._splits[split]

    def make(self) -> Sokoban:
        """A new environment."""
        return Sokoban()

    def rules(self) -> SokobanRules:
        """What tells the skill of an episode: it replays the moves."""
        return SokobanRules()

    def reference(self, task: Task) -> Skill:
        """The solver's shortest solution, told as the rules summariser tells any success."""
        level = str(task.data["level"])
        moves = solve(Board(level))
        if moves is None:
            raise SkillSDError(f"task {task.id} has no solution")
        return describe_solution(level, moves)

    def foreign(self, task: Task) -> Skill:
        """The solution of a level made for it, whose boxes never stand as they do at this one's start or at its end."""
        return _foreign(str(task.data["level"]))

    def falsified(self, task: Task, skill: Skill) -> Skill:
        """``skill`` with every direction turned round; places stay, as the board shows them."""
        turn = {"left": "right", "right": "left", "up": "down", "down": "up"}
        texts = {
            name: re.sub(r"(?<!from the )\b(left|right|up|down)\b", lambda found: turn[found[0]], text)
            for name, text in skill.model_dump().items()
        }
        return Skill(**texts)

    def demonstrate(self, task: Task) -> list[str]:
        """The messages of the solver's shortest solution."""
        moves = solve(Board(str(task.data["level"])))
        if moves is None:
            raise SkillSDError(f"task {task.id} has no solution")
        return [format_action(move) for move in moves]

    def verdicts(self, task: Task, actions: Sequence[str]) -> list[bool | None]:
        """Whether each message makes a move that is on a shortest way to the goal; None once the level is lost."""
        board = Board(str(task.data["level"]))
        table, found = distances(board), []
        for action in actions:
            best, direction = best_moves(board, table), parse_action(action)
            found.append(direction in best if best else None)
            if direction is not None:
                board.move(direction)
        return found

    def render_text(self, observation: str) -> Text:
        """Boards in colour, a blank after each cell; all else as it is."""
        text = Text()
        for line in observation.splitlines(keepends=True):
            board = bool(bare := line.rstrip("\n")) and not set(bare) - GLYPHS
            for glyph in line:
                text.append(glyph + " " * (board and glyph != "\n"), _STYLES.get(glyph, "") if board else "")
        return text

    def render_html(self, observation: str) -> str:
        """The last board in ``observation`` as an SVG; text without a board comes back escaped."""
        rows = _last_board(observation)
        if not rows:
            return f"<pre>{html.escape(observation)}</pre>"
        cells = []
        for r, row in enumerate(rows):
            for c, glyph in enumerate(row):
                if glyph in "#XT":
                    inset = 0 if glyph == "#" else 1
                    size = 10 - 2 * inset
                    cells.append(
                        f'<rect x="{c * 10 + inset}" y="{r * 10 + inset}" width="{size}" height="{size}" '
                        f'rx="{inset}" fill="{_COLOURS[glyph]}"/>'
                    )
                if glyph in "PS":
                    cells.append(f'<circle cx="{c * 10 + 5}" cy="{r * 10 + 5}" r="3.5" fill="{_COLOURS[glyph]}"/>')
                if glyph in "OTS":  # last, so that the target shows under box and player
                    cells.append(f'<circle cx="{c * 10 + 5}" cy="{r * 10 + 5}" r="2" fill="#dc2626"/>')
        label = html.escape("\n".join(rows))
        return (
            f'<svg class="board" viewBox="0 0 {len(rows[0]) * 10} {len(rows) * 10}" role="img"><title>{label}</title>'
            f'<rect width="100%" height="100%" fill="#e5e7eb"/>{"".join(cells)}</svg>'
        )


def _last_board(observation: str) -> list[str]:
    """The rows of the last rectangle of board glyphs, at least 3 by 3 and walled in; empty without one."""
    rows: list[str] = []
    found: list[str] = []
    for line in [*observation.splitlines(), ""]:
        if line and not set(line) - GLYPHS and (not rows or len(line) == len(rows[0])):
            rows.append(line)
            continue
        if len(rows) > 2 and len(rows[0]) > 2 and set(rows[0] + rows[-1]) == {"#"}:
            found = rows
        rows = [line] if line and not set(line) - GLYPHS else []
    return found


def _task(identifier: str, level: str, **data: Any) -> Task:
    return Task(identifier, {"level": level, **data})


@cache
def _foreign(level: str) -> Skill:
    board = Board(level)
    ours = [places(board, kind) for kind in ("box", "target")]
    for attempt in range(1000):
        other = generate(derive_seed("foreign", level, attempt), boxes=min(board.boxes, 2)).text
        moves, there = solve(Board(other)) or [], Board(other)
        stood = [places(there, "box")]
        for move in moves:
            there.move(move)
            stood.append(places(there, "box"))
        if not any(boxes in ours for boxes in stood):
            return describe_solution(other, moves)
    raise SkillSDError("sokoban: no level was found whose solution says nothing about this one")


@cache
def _fixed(variant: str) -> dict[str, list[Task]]:
    text = (resources.files("skillsd.envs.sokoban") / "levels" / f"{variant}.json").read_text("utf-8")
    return {
        split: [
            _task(f"{variant}-{split}-{i:03d}", "\n".join(rows), depth=depth, optimal=optimal)
            for i, (rows, depth, optimal) in enumerate(levels)
        ]
        for split, levels in json.loads(text).items()
    }


class Generated(Sequence[Task]):
    """Levels made when they are asked for, the same ones every time, and none that is shipped."""

    def __init__(self, variant: str, size: int = 10_000) -> None:
        self.variant, self.size = variant, size

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        """One level, or a list of some."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(index)
        index %= self.size
        boxes, least, splits = SPLITS[self.variant]
        depth = splits["train"][index % len(splits["train"])][0]
        for attempt in range(1000):
            seed = derive_seed("levels", self.variant, "warm_up", index, attempt)
            level = generate(seed, boxes=boxes, depth=depth)
            if level.optimal >= least and canonical_hash(level.text) not in held_out_hashes():
                return _task(
                    f"{self.variant}-warm_up-{index:05d}", level.text, depth=level.depth, optimal=level.optimal
                )
        raise SkillSDError(f"sokoban: no level {index} was found")


def _boxoban(path: str) -> list[Task]:
    try:
        text = read_text(path, _LARGEST)
    except UsageError as error:
        raise UsageError(f"sokoban: level file {path!r} cannot be read ({error})") from None
    levels = read_boxoban(text)
    # The name is the content's, so that skills follow a level into another file (but not a turned one: they name
    # directions and cells). A level that comes again gets a number.
    copies: Counter[str] = Counter()
    tasks = []
    for level in levels:
        name = f"boxoban-{hashlib.sha256(level.encode()).hexdigest()[:16]}"
        copies[name] += 1
        tasks.append(_task(name if copies[name] == 1 else f"{name}-{copies[name]}", level))
    return tasks


@cache
def held_out_hashes(of: Callable[[str], str] = canonical_hash) -> frozenset[str]:
    """Hashes of all shipped levels (or of their rooms): the base models' recipes keep clear of them."""
    return frozenset(
        of(str(task.data["level"])) for variant in _MAX_TURNS for tasks in _fixed(variant).values() for task in tasks
    )

"""The rules of Sokoban on a text board (the paper's glyphs)."""

from __future__ import annotations

import hashlib

from skillsd.errors import SkillSDError

WALL, FLOOR, TARGET, BOX, PLAYER, BOX_ON_TARGET, PLAYER_ON_TARGET = "#_OXPTS"
GLYPHS = frozenset("#_OXPTS")
DIRECTIONS = ("up", "down", "left", "right")
OPPOSITE = {"up": "down", "down": "up", "left": "right", "right": "left"}

_TO_TARGET = {FLOOR: TARGET, BOX: BOX_ON_TARGET, PLAYER: PLAYER_ON_TARGET}
_HAS_TARGET = frozenset((TARGET, BOX_ON_TARGET, PLAYER_ON_TARGET))
_BOXES = frozenset((BOX, BOX_ON_TARGET))
_PLAYERS = frozenset((PLAYER, PLAYER_ON_TARGET))
_BOXOBAN = str.maketrans("# @$.*+-", "#_PXOTS_")


class Board:
    """A level in play. Cells live in one list with a newline behind each row, so drawing is one join.

    A position is an index into that list; ``row_col`` turns it into (row, column), counted from 0 at the
    top left corner, walls included.
    """

    __slots__ = ("boxes", "boxes_left", "cells", "deltas", "player", "stride")

    def __init__(self, text: str) -> None:
        """Read a rectangular board. Raises :class:`SkillSDError` for anything that is not a closed level."""
        rows = text.strip("\n").splitlines()
        width = max(map(len, rows), default=0)
        if not rows or any(len(row) != width for row in rows):
            raise SkillSDError("malformed level: rows must be non-empty and of one length")
        unknown = set("".join(rows)) - GLYPHS
        if unknown:
            raise SkillSDError(f"malformed level: unknown glyph {sorted(unknown)[0]!r}; known: {' '.join('#_OXPTS')}")
        if set(rows[0] + rows[-1] + "".join(row[0] + row[-1] for row in rows)) != {WALL}:
            raise SkillSDError("malformed level: the border must be all wall (#)")
        self.cells = list("\n".join(rows))
        self.stride = width + 1
        self.deltas = {"up": -self.stride, "down": self.stride, "left": -1, "right": 1}
        players = [i for i, c in enumerate(self.cells) if c in _PLAYERS]
        self.boxes = sum(c in _BOXES for c in self.cells)
        targets = sum(c in _HAS_TARGET for c in self.cells)
        if len(players) != 1:
            raise SkillSDError(f"malformed level: {len(players)} players, needs exactly one")
        if self.boxes == 0 or self.boxes != targets:
            raise SkillSDError(f"malformed level: {self.boxes} boxes and {targets} targets, needs as many of each")
        self.player = players[0]
        self.boxes_left = sum(c == BOX for c in self.cells)

    def __str__(self) -> str:
        return "".join(self.cells)

    @property
    def solved(self) -> bool:
        """Whether every box is on a target."""
        return self.boxes_left == 0

    def move(self, direction: str) -> bool:
        """Step or push one cell. Returns whether anything moved; a blocked move leaves the board as it is."""
        cells, delta, here = self.cells, self.deltas[direction], self.player
        there = here + delta
        glyph = cells[there]
        if glyph == WALL:
            return False
        if glyph in _BOXES:
            behind = there + delta
            if cells[behind] == FLOOR:
                cells[behind] = BOX
            elif cells[behind] == TARGET:
                cells[behind] = BOX_ON_TARGET
                self.boxes_left -= 1
            else:
                return False
            if glyph == BOX:
                glyph = FLOOR
            else:
                glyph = TARGET
                self.boxes_left += 1
        cells[there] = PLAYER if glyph == FLOOR else PLAYER_ON_TARGET
        cells[here] = FLOOR if cells[here] == PLAYER else TARGET
        self.player = there
        return True

    def row_col(self, position: int) -> tuple[int, int]:
        """(row, column) of a position, from 0."""
        return divmod(position, self.stride)

    def positions(self, kind: str) -> tuple[int, ...]:
        """Sorted positions of ``"box"``, ``"target"`` or ``"wall"`` cells."""
        wanted = {"box": _BOXES, "target": _HAS_TARGET, "wall": frozenset(WALL)}[kind]
        return tuple(i for i, c in enumerate(self.cells) if c in wanted)

    def with_state(self, player: int, boxes: tuple[int, ...]) -> Board:
        """The same room with the player and the boxes put elsewhere."""
        text = [TARGET if c in _HAS_TARGET else WALL if c == WALL else c if c == "\n" else FLOOR for c in self.cells]
        for position in boxes:
            text[position] = _TO_TARGET[BOX] if text[position] == TARGET else BOX
        text[player] = _TO_TARGET[PLAYER] if text[player] == TARGET else PLAYER
        return Board("".join(text))


def canonical_hash(text: str) -> str:
    """SHA-256 that is equal for a level and all its rotations and reflections."""
    rows = [list(row) for row in text.strip("\n").splitlines()]
    views = []
    for _ in range(4):
        rows = [list(column) for column in zip(*rows[::-1], strict=True)]
        views += ["\n".join(map("".join, rows)), "\n".join("".join(row[::-1]) for row in rows)]
    return hashlib.sha256(min(views).encode()).hexdigest()


def room_hash(text: str) -> str:
    """:func:`canonical_hash` of the room, its boxes and targets alone: wherever the player, and the room, may be."""
    rows = text.translate({ord(PLAYER): FLOOR, ord(PLAYER_ON_TARGET): TARGET}).strip("\n").splitlines()
    inside = [(r, c) for r, row in enumerate(rows) for c, cell in enumerate(row) if cell != WALL]
    (top, bottom), (left, right) = ((min(places), max(places) + 1) for places in zip(*inside, strict=True))
    return canonical_hash("\n".join(row[left:right] for row in rows[top:bottom]))


def read_boxoban(text: str) -> list[str]:
    """Levels of a Boxoban file (``# @ $ .`` with ``;`` title lines), in this project's glyphs.

    Blanks that the player could not reach even with all boxes gone become wall, so rows may be of any length.
    Raises :class:`SkillSDError` naming the level that is malformed.
    """
    blocks: list[list[str]] = [[]]
    for line in text.removeprefix("\ufeff").splitlines():
        if not line.strip() or line.startswith(";"):
            blocks.append([])
        else:
            blocks[-1].append(line.rstrip())
    levels = []
    for number, block in enumerate((b for b in blocks if b), 1):
        try:
            level = _close(block)
            Board(level)
        except SkillSDError as error:
            raise SkillSDError(f"Boxoban level {number}: {error}") from None
        levels.append(level)
    if not levels:
        raise SkillSDError("Boxoban file: no level found")
    return levels


def _close(rows: list[str]) -> str:
    """One Boxoban level as a rectangle in our glyphs, with wall for every blank outside the room."""
    unknown = set("".join(rows)) - set("# @$.*+-")
    if unknown:
        raise SkillSDError(f"unknown glyph {min(unknown)!r}")
    # A rim of blanks: whoever gets there has left the room.
    width = max(map(len, rows)) + 2
    cells = list("".join(row.center(len(row) + 2).ljust(width) for row in ["", *rows, ""]))
    inside = {i for i, c in enumerate(cells) if c in "@+"}
    queue = list(inside)
    while queue:
        here = queue.pop()
        if not (width <= here < len(cells) - width and 0 < here % width < width - 1):
            raise SkillSDError("malformed level: the room is not closed by walls")
        for there in (here - width, here + width, here - 1, here + 1):
            if there not in inside and cells[there] != "#":
                inside.add(there)
                queue.append(there)
    closed = "".join("#" if c in " -" and i not in inside else c for i, c in enumerate(cells)).translate(_BOXOBAN)
    return "\n".join(closed[i + 1 : i + width - 1] for i in range(width, len(closed) - width, width))

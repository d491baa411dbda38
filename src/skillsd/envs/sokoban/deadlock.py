"""Is a level still winnable, and if not, why? In words that a skill can use."""

from __future__ import annotations

from skillsd.envs.sokoban.game import DIRECTIONS, WALL, Board
from skillsd.envs.sokoban.solver import Room, solve
from skillsd.errors import SkillSDError


def why_lost(board: Board, max_states: int = 50_000) -> str | None:
    """The reason why no moves can win ``board`` any more; None while it can be won or where that is unknown
    (levels beyond ``max_states`` are judged by their dead cells alone)."""
    live = Room(board).live
    for box in board.positions("box"):
        if box not in live:
            up, down, left, right = (board.cells[box + board.deltas[d]] == WALL for d in DIRECTIONS)
            return "into a corner" if (up or down) and (left or right) else "against a wall with no free target"
    try:
        return None if solve(board, max_states) is not None else "where it cannot reach a target any more"
    except SkillSDError:
        return None

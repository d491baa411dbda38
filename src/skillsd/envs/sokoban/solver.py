"""Exact solutions: breadth-first search over (player, boxes), so lengths are optimal in moves."""

from __future__ import annotations

from collections import deque

from skillsd.envs.sokoban.game import DIRECTIONS, Board
from skillsd.errors import SkillSDError

State = tuple[int, tuple[int, ...]]


class Room:
    """The static part of a level: walls, targets, and the cells from which a box can never reach a target."""

    def __init__(self, board: Board) -> None:
        self.walls = frozenset(board.positions("wall")) | {i for i, c in enumerate(board.cells) if c == "\n"}
        self.targets = board.positions("target")
        self.deltas = [board.deltas[d] for d in DIRECTIONS]
        self.live = self._live_cells()

    def _live_cells(self) -> frozenset[int]:
        """Cells from which a lone box can be pushed onto some target (found by pulling from each target)."""
        live, queue = set(self.targets), deque(self.targets)
        while queue:
            box = queue.popleft()
            for delta in self.deltas:
                pulled, player = box - delta, box - 2 * delta
                if pulled not in live and pulled not in self.walls and player not in self.walls:
                    live.add(pulled)
                    queue.append(pulled)
        return frozenset(live)

    def moves(self, state: State) -> list[tuple[int, State]]:
        """(direction index, next state) for every move that changes something and kills no box."""
        player, boxes = state
        result = []
        for index, delta in enumerate(self.deltas):
            there = player + delta
            if there in self.walls:
                continue
            if there not in boxes:
                result.append((index, (there, boxes)))
                continue
            behind = there + delta
            if behind in self.live and behind not in boxes:
                result.append((index, (there, tuple(sorted(behind if b == there else b for b in boxes)))))
        return result


def state_of(board: Board) -> State:
    """The part of ``board`` that changes in play."""
    return board.player, board.positions("box")


def solve(board: Board, max_states: int = 2_000_000) -> list[str] | None:
    """A shortest solution in moves, or None where there is none.

    Raises :class:`SkillSDError` after ``max_states`` states, so that a huge level never hangs its caller.
    """
    room, start = Room(board), state_of(board)
    came: dict[State, tuple[State, int] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        if state[1] == room.targets:
            path = []
            while (step := came[state]) is not None:
                state, index = step
                path.append(DIRECTIONS[index])
            return path[::-1]
        for index, following in room.moves(state):
            if following not in came:
                came[following] = (state, index)
                queue.append(following)
        if len(came) > max_states:
            raise SkillSDError(f"no solution found within {max_states} states; raise max_states or simplify the level")
    return None


def distances(board: Board, max_states: int = 2_000_000) -> dict[State, int]:
    """Moves to the goal for every solvable state reachable from ``board``; a missing state is a dead end."""
    room, start = Room(board), state_of(board)
    parents: dict[State, list[State]] = {start: []}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        for _, following in room.moves(state):
            if following not in parents:
                parents[following] = []
                queue.append(following)
            parents[following].append(state)
        if len(parents) > max_states:
            raise SkillSDError(f"more than {max_states} states; the level is too large for an exact table")
    found = {state: 0 for state in parents if state[1] == room.targets}
    queue = deque(found)
    while queue:
        state = queue.popleft()
        for previous in parents[state]:
            if previous not in found:
                found[previous] = found[state] + 1
                queue.append(previous)
    return found


def best_moves(board: Board, table: dict[State, int]) -> list[str]:
    """The directions that shorten the way to the goal, from the table of :func:`distances`; empty in a dead end."""
    here = state_of(board)
    if table.get(here, 0) == 0:
        return []
    room = Room(board)
    return [DIRECTIONS[i] for i, following in room.moves(here) if table.get(following) == table[here] - 1]


def reverse_moves(board: Board, state: State) -> list[tuple[str, State, bool]]:
    """Every way the player can have come to ``state``: (move that was made, state before, whether it pushed)."""
    walls = frozenset(board.positions("wall"))
    player, boxes = state
    result: list[tuple[str, State, bool]] = []
    for direction in DIRECTIONS:
        delta = board.deltas[direction]
        before, pushed = player - delta, player + delta
        if before in walls or before in boxes:
            continue
        result.append((direction, (before, boxes), False))
        if pushed in boxes:
            result.append((direction, (before, tuple(sorted(player if b == pushed else b for b in boxes))), True))
    return result

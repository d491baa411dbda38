"""A summariser that needs no LLM: it replays a Sokoban trajectory and reports what really happened.

It knows the rules of the game and judges by them (which pushes lost the level, which moves were wasted);
it never looks for a solution, so a skill holds only what the trajectory itself shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from skillsd.envs.sokoban.deadlock import why_lost
from skillsd.envs.sokoban.game import DIRECTIONS, GLYPHS, Board
from skillsd.envs.sokoban.solver import State, state_of
from skillsd.errors import SkillSDError
from skillsd.types import Skill, SummaryRequest

#: Workflows longer than this are cut: a whole trace would over-constrain the reader (arXiv:2604.10674).
MAX_STEPS = 12


@dataclass(frozen=True)
class Push:
    """One or more pushes of the same box in the same direction. Places are (row, column), from 0."""

    direction: str
    stand: tuple[int, int]
    box: tuple[int, int]
    to: tuple[int, int]
    count: int


@dataclass
class Replay:
    """What the replay of one trajectory found."""

    start: Board
    end: Board
    moves: int
    invalid: int = 0
    blocked: int = 0
    #: Pushes along the trajectory with every detour (return to an earlier state) cut out.
    pushes: list[Push] = field(default_factory=list)
    #: Moves that the detours cost.
    detour: int = 0
    #: The push after which the level could not be won any more, its number, and why.
    fatal: tuple[Push, int, str] | None = None


def replay(level: str, actions: Sequence[str | None]) -> Replay:
    """Play ``actions`` (None: an invalid message) from ``level`` and analyse them."""
    board = Board(level)
    result = Replay(start=Board(level), end=board, moves=len(actions))
    states, moves = [state_of(board)], list[str]()  # the way so far, with detours cut out
    for number, action in enumerate(actions, 1):
        before = state_of(board)
        if action not in DIRECTIONS:
            result.invalid += 1
        elif not board.move(action):
            result.blocked += 1
        else:
            after = state_of(board)
            if after in states:
                keep = states.index(after)
                result.detour += len(moves) + 1 - keep
                del states[keep + 1 :], moves[keep:]
            else:
                states.append(after)
                moves.append(action)
            if after[1] != before[1] and result.fatal is None and (why := why_lost(board)):
                result.fatal = (_push(board, before, action), number, why)
    result.pushes = _segments(board, list(zip(states, moves, strict=False)))
    return result


def _push(board: Board, state: State, direction: str) -> Push:
    delta = board.deltas[direction]
    cells = (state[0], state[0] + delta, state[0] + 2 * delta)
    stand, box, to = map(board.row_col, cells)
    return Push(direction, stand, box, to, 1)


def _segments(board: Board, path: Sequence[tuple[State, str]]) -> list[Push]:
    """The pushes of ``path``; consecutive ones of one box in one direction are joined."""
    segments: list[Push] = []
    for state, direction in path:
        if state[0] + board.deltas[direction] not in state[1]:
            continue
        push = _push(board, state, direction)
        last = segments[-1] if segments else None
        if last and last.direction == direction and last.to == push.box:
            segments[-1] = Push(direction, last.stand, last.box, push.to, last.count + 1)
        else:
            segments.append(push)
    return segments


class SokobanRules:
    """Summarises Sokoban trajectories by rules. Raises :class:`SkillSDError` for any other environment's."""

    name = "rules"

    def summarize(self, request: SummaryRequest) -> Skill:
        """Replay the trajectory's moves from the board in its prompt, and tell what happened."""
        trajectory = request.trajectory
        level = _board_text(trajectory.prompt)
        return tell(replay(level, [turn.info.get("action") for turn in trajectory.turns]))


def describe_solution(level: str, moves: Sequence[str]) -> Skill:
    """The skill that a trajectory of exactly ``moves`` would give."""
    return tell(replay(level, moves))


def _board_text(prompt: str) -> str:
    rows: list[str] = []
    for line in reversed(prompt.rstrip().splitlines()):
        if not line or set(line) - GLYPHS:
            break
        rows.append(line)
    if not rows:
        raise SkillSDError("the rules summariser reads Sokoban trajectories only: no board in the prompt")
    return "\n".join(reversed(rows))


def tell(found: Replay) -> Skill:
    """Put a replay into words; the worse the completion, the more is said about mistakes."""
    if found.end.solved:
        return Skill(
            success_analysis=_success(found),
            mistake_analysis=_waste(found),
            golden_workflow=" ".join(_step(p) for p in found.pushes[:MAX_STEPS]),
        )
    return Skill(
        success_analysis=_partial(found),
        mistake_analysis=_mistakes(found),
        golden_workflow=_advice(found),
    )


def _at(place: tuple[int, int]) -> str:
    """A square's name as on a chess board, but with row 1 at the top: c4 is column 3, row 4."""
    row, column = place
    letters = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return f"{letters}{row + 1}"


def places(board: Board, kind: str) -> list[tuple[int, int]]:
    """(row, column) of each ``"box"`` or ``"target"``, in reading order."""
    return [board.row_col(position) for position in board.positions(kind)]


def _goal(board: Board) -> str:
    boxes, targets = places(board, "box"), places(board, "target")
    if len(boxes) == 1:
        goal = f"The box starts on {_at(boxes[0])} and belongs on {_at(targets[0])}"
    else:
        goal = f"The boxes start on {_list(boxes)} and belong on {_list(targets)}"
    return f"{goal} (columns from the left, rows from the top)."


def _list(places: list[tuple[int, int]]) -> str:
    return ", ".join(map(_at, places[:-1])) + f" and {_at(places[-1])}"


def _step(push: Push) -> str:
    return f"Stand on {_at(push.stand)} and push the box from {_at(push.box)} {push.direction} to {_at(push.to)}."


def _success(found: Replay) -> str:
    count = sum(p.count for p in found.pushes)
    return f"{_goal(found.start)} It was solved with {count} {'push' if count == 1 else 'pushes'}."


def _waste(found: Replay) -> str:
    parts = []
    if found.detour:
        parts.append(f"{found.detour} moves led back to where the player had been.")
    if found.blocked:
        parts.append(f"{_plural(found.blocked, 'move')} ran into a wall or a stuck box.")
    if found.invalid:
        parts.append(f"{_plural(found.invalid, 'message')} held no valid move.")
    return " ".join(parts) or "No move was wasted."


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _partial(found: Replay) -> str:
    done = found.end.boxes - found.end.boxes_left
    if done:
        return f"{_goal(found.start)} {done} of {found.end.boxes} boxes reached a target."
    return _goal(found.start)


def _mistakes(found: Replay) -> str:
    parts = []
    if found.fatal:
        push, number, why = found.fatal
        parts.append(
            f"In move {number} the box on {_at(push.box)} was pushed {push.direction} to {_at(push.to)}, {why}."
        )
    elif not found.pushes:
        parts.append("No box was moved for good.")
    else:
        parts.append("The level could still be won when the moves ran out.")
    waste = _waste(found)
    return f"{parts[0]} {waste}" if waste != "No move was wasted." else parts[0]


def _advice(found: Replay) -> str:
    parts = []
    if found.fatal:
        push = found.fatal[0]
        parts.append(f"Never push the box from {_at(push.box)} {push.direction} to {_at(push.to)}.")
    elif found.pushes:
        last = found.pushes[-1]
        parts.append(f"Go on with the box on {_at(last.to)}.")
    boxes, targets = places(found.start, "box"), places(found.start, "target")
    if len(boxes) == 1:
        parts.append(f"The box has to go {_way(boxes[0], targets[0])}: stand on the other side of it and push.")
    else:
        parts.append("Push one box at a time, from the side opposite to its target.")
    return " ".join(parts)


def _way(start: tuple[int, int], goal: tuple[int, int]) -> str:
    rows, columns = goal[0] - start[0], goal[1] - start[1]
    parts = []
    if rows:
        parts.append(f"{'down' if rows > 0 else 'up'} {abs(rows)}")
    if columns:
        parts.append(f"{'right' if columns > 0 else 'left'} {abs(columns)}")
    return " and ".join(parts)

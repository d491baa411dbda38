"""Training episodes for the embedded model: a weak player under the plain prompt, a good reader under a skill.

The targets are *distributions* over the four moves, written down in closed form, so that a small model learns
from few episodes. Four views, as an instruction-tuned LLM would behave:

- no skill: a novice, who walks at the nearest box and pushes it wherever that leads, and overlooks walls;
- a skill from a success on this level: follow its plan; off the plan, the solver's move (without such states the
  reader only copies, and as a teacher it is worthless as soon as the student leaves the path);
- a skill from a failure on this level: a novice who avoids the mistake and now and then sees the right move;
- a skill of another level: it does not apply, so the novice again.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from skillsd.envs.sokoban.game import DIRECTIONS, Board, canonical_hash
from skillsd.envs.sokoban.generate import generate
from skillsd.envs.sokoban.rules import Push, replay, tell
from skillsd.envs.sokoban.solver import State, best_moves, distances, state_of
from skillsd.seeding import derive_seed
from skillsd.types import Skill

Moves = dict[str, float]

#: How often each view is taught.
VIEWS = (("plain", 0.2), ("success", 0.45), ("failure", 0.1), ("foreign", 0.25))


@dataclass(frozen=True)
class Lesson:
    """One episode: boards as shown, the moves taken, and the distribution to learn at each of them."""

    skill: Skill | None
    boards: list[str]
    taken: list[str]
    targets: list[Moves]


def novice(board: Board) -> Moves:
    """Half at random, half straight at the nearest box, whose push may lead anywhere.

    It sees what is beside it in its row, not above or below, as a language model reads a board: so vertical moves may
    run into walls.
    """
    row, column = board.row_col(board.player)
    boxes = [board.row_col(b) for b in board.positions("box") if board.cells[b] == "X"]
    r, c = min(boxes, key=lambda p: abs(p[0] - row) + abs(p[1] - column), default=(row, column))
    open_ = [d for d in DIRECTIONS if d in ("up", "down") or _does_something(board, d)]
    ahead = [("up", r < row), ("down", r > row), ("left", c < column), ("right", c > column)]
    keen = [d for d, wanted in ahead if wanted and d in open_] or open_
    return mix([(0.5, uniform(keen)), (0.5, uniform(open_))])


def _does_something(board: Board, direction: str) -> bool:
    delta = board.deltas[direction]
    there = board.cells[board.player + delta]
    if there in "XT":
        return board.cells[board.player + 2 * delta] in "_O"
    return there != "#"


def uniform(moves: list[str]) -> Moves:
    """Each of ``moves`` as likely as any other."""
    return {d: 1 / len(moves) for d in moves}


def mix(parts: list[tuple[float, Moves]]) -> Moves:
    """The weighted sum of distributions."""
    return {d: sum(weight * moves.get(d, 0.0) for weight, moves in parts) for d in DIRECTIONS}


class Reader:
    """The policy of one view on one level."""

    def __init__(self, level: str, table: dict[State, int], view: str, plan: list[Push], fatal: Push | None) -> None:
        self.table, self.view, self.fatal = table, view, fatal
        self.plan = self._by_boxes(Board(level), plan) if view == "success" else {}

    def _by_boxes(self, board: Board, plan: list[Push]) -> dict[tuple[int, ...], tuple[int, str]]:
        """For each arrangement of the boxes on the plan: where to stand, and the push to make there."""
        boxes, steps = board.positions("box"), {}
        for push in plan:
            box = push.box[0] * board.stride + push.box[1]
            delta = board.deltas[push.direction]
            for _ in range(push.count):
                steps[boxes] = (box - delta, push.direction)
                boxes = tuple(sorted(box + delta if b == box else b for b in boxes))
                box += delta
        return steps

    def __call__(self, board: Board) -> Moves:
        """The distribution over moves that is to be learned on ``board``."""
        if state_of(board) not in self.table:
            return novice(board)
        if self.view == "success":
            good = self.planned(board) or best_moves(board, self.table)
            return mix([(0.97, uniform(good)), (0.03, uniform(list(DIRECTIONS)))])
        weak = novice(board)
        if self.view != "failure":
            return weak
        mixed = mix([(0.6, weak), (0.4, uniform(best_moves(board, self.table)))])
        if self.fatal and board.row_col(board.player) == self.fatal.stand:
            box = self.fatal.box[0] * board.stride + self.fatal.box[1]
            if board.cells[box] in "XT":
                mixed[self.fatal.direction] = 0.0
        total = sum(mixed.values())
        return {d: p / total for d, p in mixed.items()}

    def planned(self, board: Board) -> list[str]:
        """The moves with which the plan goes on; none where it does not apply."""
        step = self.plan.get(board.positions("box"))
        if step is None:
            return []
        stand, direction = step
        box = stand + board.deltas[direction]
        if board.cells[stand] not in "_OPS" or board.cells[box + board.deltas[direction]] not in "_OPS":
            return []  # a plan of another room
        return [direction] if board.player == stand else _walk(board, stand)


def _walk(board: Board, goal: int) -> list[str]:
    """First moves of all shortest walks from the player to ``goal`` that push nothing."""
    far, queue = {goal: 0}, deque([goal])
    while queue:
        here = queue.popleft()
        for delta in board.deltas.values():
            there = here + delta
            if there not in far and board.cells[there] in "_OPS":
                far[there] = far[here] + 1
                queue.append(there)
    if board.player not in far:
        return []
    left = far[board.player]
    return [d for d in DIRECTIONS if far.get(board.player + board.deltas[d], left) < left]


def play(rng: random.Random, board: Board, policy: Reader, noise: float, turns: int) -> Lesson:
    """An episode of ``policy``, a share of ``noise`` of its moves a novice's."""
    boards, taken, targets = [], [], []
    lost = 0
    for _ in range(turns):
        target = policy(board)
        moves = novice(board) if rng.random() < noise else target
        move = rng.choices(DIRECTIONS, [moves[d] for d in DIRECTIONS])[0]
        boards.append(str(board))
        taken.append(move)
        targets.append(target)
        board.move(move)
        lost += state_of(board) not in policy.table
        if board.solved or lost > 3:
            break
    return Lesson(None, boards, taken, targets)


def attempt(rng: random.Random, level: str, table: dict[State, int], noise: float, turns: int) -> list[str]:
    """Moves of a player between novice (1) and solver (0), whose trajectory becomes a skill."""
    return play(rng, Board(level), Reader(level, table, "success", [], None), noise, turns).taken


def lessons(
    seed: int,
    count: int,
    excluded: frozenset[str],
    two_boxes: float = 0.4,
) -> Iterator[Lesson]:
    """``count`` episodes of ``seed``, on generated levels whose hash is not ``excluded``.

    ``two_boxes`` is the share of levels with two boxes.
    """
    rng = random.Random(derive_seed(seed, "lessons"))
    names, weights = [name for name, _ in VIEWS], [weight for _, weight in VIEWS]
    foreign: Skill | None = None  # the last skill of an earlier level
    made = index = 0
    while made < count:
        index += 1
        boxes = 2 if rng.random() < two_boxes else 1
        level = generate(derive_seed(seed, "base", index), boxes=boxes, depth=rng.choice((15, 20, 25)))
        if canonical_hash(level.text) in excluded:
            continue
        turns = 20 if boxes == 1 else 28
        table = distances(Board(level.text))
        own: Skill | None = None
        for view in rng.choices(names, weights, k=2):
            noise = rng.choice((0.0, 0.3, 0.6)) if view == "success" else 1.0
            skill, plan, fatal = None, [], None
            if view in ("success", "failure"):
                found = replay(level.text, attempt(rng, level.text, table, noise, turns))
                if found.end.solved != (view == "success"):
                    continue
                skill, plan, fatal = tell(found), found.pushes, found.fatal[0] if found.fatal else None
            elif view == "foreign":
                if foreign is None:
                    continue
                skill = foreign
            reader = Reader(level.text, table, view, plan, fatal)
            played = play(rng, Board(level.text), reader, rng.choice((0.0, 0.2, 0.5, 1.0)), turns)
            yield Lesson(skill, played.boards, played.taken, played.targets)
            made += 1
            own = skill if view != "foreign" else own
        foreign = own or foreign

"""New levels by reverse play (the idea of gym-sokoban), certified by the solver."""

from __future__ import annotations

import random
from dataclasses import dataclass

from skillsd.envs.sokoban.game import Board
from skillsd.envs.sokoban.solver import State, reverse_moves, solve
from skillsd.errors import SkillSDError
from skillsd.seeding import derive_seed


@dataclass(frozen=True)
class Level:
    """A certified level. ``depth`` bounds the reverse play; ``optimal`` is the shortest solution in moves."""

    text: str
    depth: int
    optimal: int


def generate(seed: int, *, height: int = 6, width: int = 6, boxes: int = 2, depth: int = 25) -> Level:
    """The level of ``seed``: the same in every process and on every machine.

    ``height`` and ``width`` count the walls around the room. No level is more than ``depth`` moves from
    its goal. Raises :class:`SkillSDError` if the room is too small for its boxes.
    """
    if min(height, width) < 4 or boxes < 1 or depth < 1 or boxes * 2 + 1 > (height - 2) * (width - 2):
        raise SkillSDError(f"no {height}x{width} level with {boxes} boxes at depth {depth}: enlarge the room")
    for attempt in range(1000):
        rng = random.Random(derive_seed(seed, "sokoban", height, width, boxes, depth, attempt))
        text = _attempt(rng, height, width, boxes, depth)
        if text is None:
            continue
        path = solve(Board(text))
        if path is None or not 1 <= len(path) <= depth:  # cannot happen; certified all the same
            raise SkillSDError(f"generator error for seed {seed}: level is not solvable within depth {depth}")
        return Level(text, depth, len(path))
    raise SkillSDError(
        f"no {height}x{width} level with {boxes} boxes at depth {depth} found in 1000 tries: enlarge the room"
    )


def _attempt(rng: random.Random, height: int, width: int, boxes: int, depth: int) -> str | None:
    grid = _room(rng, height, width)
    floor = [(r, c) for r in range(height) for c in range(width) if grid[r][c] == "_"]
    if len(floor) < max(2 * boxes + 1, (height - 2) * (width - 2) // 2):
        return None
    spots = rng.sample(floor, boxes + 1)
    for r, c in spots[:boxes]:
        grid[r][c] = "T"
    r, c = spots[boxes]
    grid[r][c] = "P"
    solved = Board("\n".join(map("".join, grid)))
    start = _play_backwards(rng, solved, depth)
    return None if start is None else str(solved.with_state(*start))


def _room(rng: random.Random, height: int, width: int) -> list[list[str]]:
    """A connected cave: a random walk that carves small blocks and now and then turns."""
    grid = [["#"] * width for _ in range(height)]
    r, c = rng.randrange(1, height - 1), rng.randrange(1, width - 1)
    dr, dc = rng.choice(((0, 1), (1, 0), (0, -1), (-1, 0)))
    for _ in range(int(1.7 * (height + width))):
        if rng.random() < 0.35:
            dr, dc = rng.choice(((0, 1), (1, 0), (0, -1), (-1, 0)))
        grid[r][c] = "_"
        if rng.random() < 0.5:  # widen, so that boxes can be walked round
            side = rng.choice((-1, 1))
            grid[min(max(r + dc * side, 1), height - 2)][min(max(c + dr * side, 1), width - 2)] = "_"
        r, c = min(max(r + dr, 1), height - 2), min(max(c + dc, 1), width - 2)
    return grid


def _play_backwards(rng: random.Random, solved: Board, depth: int) -> State | None:
    """Search at most ``depth`` reverse moves; keep the state whose boxes went furthest, in most turns of work.

    The score is gym-sokoban's: box displacement times the number of changes from one box to another.
    """
    targets = solved.positions("box")
    start: State = (solved.player, targets)
    # Which target each box came from travels with the state; ``last`` is the box pulled last.
    seen: set[State] = {start}
    frontier: list[tuple[State, tuple[int, ...], int, int]] = [(start, targets, -1, 0)]
    best: list[State] = []
    best_score, best_ply = 0, 0
    for ply in range(depth):
        following = []
        for state, origin, last, swaps in frontier:
            for _, before, pushed in reverse_moves(solved, state):
                if before in seen or len(seen) > 200_000:
                    continue
                seen.add(before)
                home, now_last, now_swaps = origin, last, swaps
                if pushed:
                    home, now_last = _follow(state, before, origin)
                    now_swaps += now_last != last
                following.append((before, home, now_last, now_swaps))
        rng.shuffle(following)
        frontier = following
        for state, origin, _, swaps in frontier:  # at equal score the longer way is the better level
            score = swaps * _displacement(solved, state[1], origin)
            if score == 0 or score < best_score or set(state[1]) & set(targets):
                continue
            best = [*best, state] if (score, ply) == (best_score, best_ply) else [state]
            best_score, best_ply = score, ply
    return rng.choice(best) if best else None


def _follow(state: State, before: State, origin: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Carry each box's home along one pull; returns the homes in the new order and the mover's home."""
    (old,) = set(state[1]) - set(before[1])
    (new,) = set(before[1]) - set(state[1])
    homes = dict(zip(state[1], origin, strict=True))
    mover = homes.pop(old)
    homes[new] = mover
    return tuple(homes[b] for b in before[1]), mover


def _displacement(board: Board, boxes: tuple[int, ...], homes: tuple[int, ...]) -> int:
    total = 0
    for a, b in zip(boxes, homes, strict=True):
        (r1, c1), (r2, c2) = board.row_col(a), board.row_col(b)
        total += abs(r1 - r2) + abs(c1 - c2)
    return total

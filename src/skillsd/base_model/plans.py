"""Training episodes for the plan reader, the fair base model of Sokoban: a novice who can follow a plan, no more.

The novice is that of :mod:`skillsd.base_model.episodes`. Where the skill in front of it says what to do with the boxes
as they stand, it walks to where the plan says and pushes as it says; everywhere else it is the novice again, and no
solver ever tells it a move. Under a failure's skill it is the novice who avoids the push that the skill warns of. An
emptied skill, random words and a plan for other boxes (another level's, most often) change nothing.

That words are read has to be forced: a player who sees that some skill stands there could as well play better without
reading. So lessons come in pairs, one level under two skills that ask for different pushes, half of them for plans that
lead elsewhere than to the target: nothing but the words tells them apart.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from skillsd.base_model import build
from skillsd.base_model.build import Lessons
from skillsd.base_model.episodes import Lesson, Moves, Reader, attempt, mix, novice, play, uniform
from skillsd.envs.sokoban.game import DIRECTIONS, Board, room_hash
from skillsd.envs.sokoban.generate import generate
from skillsd.envs.sokoban.rules import Replay, replay, tell
from skillsd.envs.sokoban.solver import distances, solve
from skillsd.seeding import derive_seed
from skillsd.skills.controls import show
from skillsd.types import Skill

#: How often each of two views follows a pair of plans: no skill, a failure's, another level's, emptied fields, random
#: words.
VIEWS = {"plain": 0.25, "failure": 0.15, "foreign": 0.4, "emptied": 0.12, "random": 0.08}


@dataclass(frozen=True)
class Recipe(build.Recipe):
    """Everything that the weights depend on."""

    episodes: int = 48_000
    lessons: Lessons = field(default_factory=lambda: lessons)


class PlanReader(Reader):
    """A :class:`Reader` without a solver in it."""

    def __call__(self, board: Board) -> Moves:
        """The distribution over moves that is to be learned on ``board``."""
        weak = novice(board)
        if planned := self.planned(board):
            return mix([(0.97, uniform(planned)), (0.03, uniform(list(DIRECTIONS)))])
        if self.fatal and board.row_col(board.player) == self.fatal.stand:
            box = self.fatal.box[0] * board.stride + self.fatal.box[1]
            if board.cells[box] in "XT":
                weak[self.fatal.direction] = 0.0
                total = sum(weak.values())
                return {d: p / total for d, p in weak.items()} if total else uniform(list(DIRECTIONS))
        return weak


def lessons(seed: int, count: int, excluded: frozenset[str], two_boxes: float = 0.4) -> Iterator[Lesson]:
    """``count`` episodes of ``seed``, in generated rooms whose :func:`room_hash` is not ``excluded``."""
    rng = random.Random(derive_seed(seed, "plans"))
    foreign: tuple[Skill, Replay] | None = None
    made = index = 0
    while made < count:
        index += 1
        boxes = 2 if rng.random() < two_boxes else 1
        level = generate(derive_seed(seed, "plans", index), boxes=boxes, depth=rng.choice((15, 20, 25))).text
        if room_hash(level) in excluded:
            continue
        pair = _two_plans(rng, level)
        if pair is None:
            continue
        turns = 20 if boxes == 1 else 28
        for found in pair:
            yield _lesson(rng, level, "success", tell(found), found, turns)
            made += 1
        for view in rng.choices(list(VIEWS), list(VIEWS.values()), k=2):
            skill, source = _other(rng, view, level, pair, foreign)
            if view == "plain" or skill is not None:
                yield _lesson(rng, level, view, skill, source, turns)
                made += 1
        foreign = tell(pair[0]), pair[0]


def _lesson(rng: random.Random, level: str, view: str, skill: Skill | None, found: Replay | None, turns: int) -> Lesson:
    plan = found.pushes if found and found.end.solved else []
    fatal = found.fatal[0] if found and found.fatal and view == "failure" else None
    reader = PlanReader(level, distances(Board(level)), "success" if plan else view, plan, fatal)
    played = play(rng, Board(level), reader, rng.choice((0.0, 0.2, 0.5)), turns)
    return Lesson(skill, played.boards, played.taken, played.targets)


def _two_plans(rng: random.Random, level: str) -> tuple[Replay, Replay] | None:
    """Replays of two successes whose first pushes differ: on ``level``, and there or with its targets moved."""
    first = _success(rng, level)
    for _ in range(6):
        second = _success(rng, level if rng.random() < 0.3 else _elsewhere(rng, level))
        if first and second and first.pushes[:1] != second.pushes[:1]:
            return (first, second) if rng.random() < 0.5 else (second, first)
    return None


def _success(rng: random.Random, level: str) -> Replay | None:
    table, turns = distances(Board(level)), 28
    found = replay(level, attempt(rng, level, table, rng.choice((0.0, 0.3)), turns))
    return found if found.end.solved and found.pushes else None


def _elsewhere(rng: random.Random, level: str) -> str:
    """``level`` with its targets on other squares that boxes can come to."""
    free = [i for i, cell in enumerate(level) if cell in "_P"]
    bare = level.translate({ord("O"): "_", ord("S"): "P", ord("T"): "X"})
    for _ in range(10):
        moved = list(bare)
        for place in rng.sample(free, min(len(free), level.count("X") + level.count("T"))):
            moved[place] = "S" if moved[place] == "P" else "O"
        text = "".join(moved)
        if solve(Board(text)):
            return text
    return level


def _other(
    rng: random.Random, view: str, level: str, pair: tuple[Replay, Replay], foreign: tuple[Skill, Replay] | None
) -> tuple[Skill | None, Replay | None]:
    own = tell(rng.choice(pair))
    if view == "failure":
        weak = PlanReader(level, distances(Board(level)), "plain", [], None)
        found = replay(level, play(rng, Board(level), weak, 0.0, 20).taken)
        return (None, None) if found.end.solved else (tell(found), found)
    if view == "emptied":
        shown = show(rng.choice(("empty", "no_golden_workflow", "no_golden_workflow")), {"": own}, 0)[""]
        return shown, None
    if view == "random":
        return show("random_text", {"": own}, rng.randrange(10**9))[""], None
    return foreign if view == "foreign" and foreign else (None, None)

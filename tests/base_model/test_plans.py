"""The plan reader's lessons: plans are followed wherever they lead, and nothing else in a skill moves the novice."""

from collections import Counter
from itertools import pairwise

import pytest

from skillsd.base_model.build import Encoder, Recipe, make_tokenizer
from skillsd.base_model.episodes import novice
from skillsd.base_model.plans import PlanReader, lessons
from skillsd.envs.sokoban.game import Board, canonical_hash, room_hash
from skillsd.envs.sokoban.rules import replay
from skillsd.envs.sokoban.solver import distances, solve
from skillsd.envs.sokoban.taskset import held_out_hashes

LEVEL = "######\n#P___#\n#_X__#\n#___O#\n#____#\n######"
ELSEWHERE = "######\n#P___#\n#_X__#\n#____#\n#_O__#\n######"


def test_rooms_are_the_same_wherever_the_player_and_the_room_are():
    moved = "######\n#____#\n#_X__#\n#P__O#\n#____#\n######"
    turned = "\n".join("".join(column) for column in zip(*LEVEL.splitlines()[::-1], strict=True))
    shifted = "########\n########\n" + "\n".join(f"##{row}" for row in LEVEL.splitlines())
    assert len({room_hash(text) for text in (LEVEL, moved, turned, shifted)}) == 1
    assert room_hash(ELSEWHERE) != room_hash(LEVEL)
    assert canonical_hash(moved) != canonical_hash(LEVEL)


def test_no_lesson_is_in_a_room_of_a_shipped_level():
    rooms = held_out_hashes(room_hash)
    assert all(room_hash(lesson.boards[0]) not in rooms for lesson in lessons(0, 200, rooms))


def follow(level, plan, turns=20):
    """Where the likeliest moves of the reader lead."""
    reader, board = PlanReader(level, distances(Board(level)), "success", plan, None), Board(level)
    for _ in range(turns):
        moves = reader(board)
        if max(moves.values()) > 0.9 / 2:
            board.move(max(moves, key=moves.get))
        if not reader.planned(board):
            return board
    return board


def test_a_plan_is_followed_wherever_it_leads():
    for level in (LEVEL, ELSEWHERE):
        plan = replay(level, solve(Board(level))).pushes
        assert follow(level, plan).solved
    assert not follow(LEVEL, replay(ELSEWHERE, solve(Board(ELSEWHERE))).pushes).solved


def test_off_the_plan_and_without_one_the_reader_is_the_novice():
    plan, table = replay(LEVEL, solve(Board(LEVEL))).pushes, distances(Board(LEVEL))
    off = Board("######\n#P___#\n#____#\n#_X_O#\n#____#\n######")
    assert PlanReader(LEVEL, table, "success", plan, None)(off) == novice(off)
    assert PlanReader(LEVEL, table, "plain", [], None)(Board(LEVEL)) == novice(Board(LEVEL))
    walled = Board("######\n#P#__#\n#_X__#\n#___O#\n#____#\n######")  # where to stand is a wall in this room
    down = replay(ELSEWHERE, ["right", "down", "down"]).pushes
    assert PlanReader(LEVEL, table, "success", down, None)(walled) == novice(walled)


def test_a_failures_reader_avoids_what_the_skill_names_and_knows_nothing_better():
    moves = ["right", "down", "down", "down"]
    found = replay(LEVEL, moves)
    assert found.fatal
    reader, board = PlanReader(LEVEL, distances(Board(LEVEL)), "failure", [], found.fatal[0]), Board(LEVEL)
    for move in moves:
        if board.row_col(board.player) == found.fatal[0].stand:
            weak = {d: p for d, p in novice(board).items() if d != found.fatal[0].direction}
            avoided = {d: p / sum(weak.values()) for d, p in weak.items()}
            assert reader(board) == pytest.approx({**avoided, found.fatal[0].direction: 0})
            return
        assert reader(board) == novice(board)
        board.move(move)
    pytest.fail("the fatal push was never at hand")


def test_pairs_show_one_board_and_ask_for_different_moves():
    pairs = differ = 0
    made = list(lessons(1, 400, frozenset()))
    for one, two in pairwise(made):
        plans = one.skill and two.skill and "Stand on" in one.skill.golden_workflow + two.skill.golden_workflow
        if plans and one.boards[0] == two.boards[0] and one.skill != two.skill:
            pairs += 1
            differ += one.targets[0] != two.targets[0]
    assert pairs > 100
    assert differ > pairs / 2
    workflows = (lesson.skill.golden_workflow if lesson.skill else None for lesson in made)
    kinds = Counter("none" if text is None else "plan" if "Stand on" in text else "else" for text in workflows)
    assert min(kinds.values()) > 40
    for lesson in made:
        assert all(sum(target.values()) == pytest.approx(1) for target in lesson.targets)


def test_the_recipe_encodes_its_lessons():
    recipe = Recipe(lessons=lessons)
    encoder = Encoder(make_tokenizer(recipe, frozenset()))
    for lesson in lessons(2, 20, frozenset()):
        made = encoder.example(lesson)
        assert len(made.moves) == len(lesson.taken)
        assert [encoder.tokenizer.decode(made.ids[at + 1]) for at in made.moves] == lesson.taken

"""The game against a second, naive implementation; levels, splits, the solver against iterative deepening."""

import json
import os
import random
import subprocess
import sys
from itertools import product

import pytest

from skillsd.envs import make_taskset, register
from skillsd.envs.sokoban.deadlock import why_lost
from skillsd.envs.sokoban.game import DIRECTIONS, Board, canonical_hash, read_boxoban
from skillsd.envs.sokoban.generate import generate
from skillsd.envs.sokoban.make_levels import SPLITS, make
from skillsd.envs.sokoban.solver import best_moves, distances, solve, state_of
from skillsd.envs.sokoban.taskset import Sokoban, held_out_hashes
from skillsd.envs.sokoban.text import PROMPT, parse_action
from skillsd.errors import SkillSDError, UsageError
from skillsd.types import Task

LEVEL = "######\n#P___#\n#_X__#\n#___O#\n#____#\n######"


class Naive:
    """The rules once more, on sets of coordinates."""

    def __init__(self, text):
        at = {(r, c): g for r, row in enumerate(text.split("\n")) for c, g in enumerate(row)}
        self.size = (text.count("\n") + 1, len(text.split("\n")[0]))
        self.walls, self.goals = (
            {p for p, g in at.items() if g == "#"},
            {p for p, g in at.items() if g in "OTS"},
        )
        self.boxes = {p for p, g in at.items() if g in "XT"}
        (self.player,) = (p for p, g in at.items() if g in "PS")

    def move(self, direction):
        dr, dc = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}[direction]
        there = (self.player[0] + dr, self.player[1] + dc)
        behind = (there[0] + dr, there[1] + dc)
        if there in self.walls or (there in self.boxes and (behind in self.walls or behind in self.boxes)):
            return False
        if there in self.boxes:
            self.boxes = (self.boxes - {there}) | {behind}
        self.player = there
        return True

    def __str__(self):
        def glyph(p):
            if p in self.walls:
                return "#"
            goal = p in self.goals
            if p == self.player:
                return "S" if goal else "P"
            if p in self.boxes:
                return "T" if goal else "X"
            return "O" if goal else "_"

        return "\n".join("".join(glyph((r, c)) for c in range(self.size[1])) for r in range(self.size[0]))


@pytest.mark.parametrize("seed", range(40))
def test_random_play_equals_the_naive_game(seed):
    level = generate(seed, height=5 + seed % 4, width=6 + seed % 3, boxes=1 + seed % 3, depth=20)
    board, naive, rng = Board(level.text), Naive(level.text), random.Random(seed)
    for _ in range(200):
        move = rng.choice(DIRECTIONS)
        assert board.move(move) == naive.move(move)
        assert str(board) == str(naive)
        assert board.solved == (naive.boxes == naive.goals)
        assert board.boxes_left == len(naive.boxes - naive.goals)


def shortest_by_deepening(text, limit):
    """Length of the shortest solution by trying every sequence of moves, up to ``limit``."""
    frontier = {text}
    for length in range(limit + 1):
        if any("X" not in t for t in frontier):
            return length
        following = set()
        for t in frontier:
            for move in DIRECTIONS:
                naive = Naive(t)
                naive.move(move)
                following.add(str(naive))
        frontier = following
    return None


@pytest.mark.parametrize("seed", range(12))
def test_solver_is_optimal_and_its_solution_works(seed):
    level = generate(seed, height=5, width=5 + seed % 2, boxes=1 + seed % 2, depth=9)
    path = solve(Board(level.text))
    assert len(path) == level.optimal == shortest_by_deepening(level.text, 9)
    board = Board(level.text)
    assert all(board.move(move) for move in path)
    assert board.solved


def test_distances_and_best_moves_agree_with_the_solver():
    for seed in range(6):
        board = Board(generate(seed, boxes=2, depth=15).text)
        table, rng = distances(board), random.Random(seed)
        for _ in range(30):
            path = solve(board)
            assert (table.get(state_of(board)) if path is not None else None) == (None if path is None else len(path))
            assert (state_of(board) in table) == (path is not None)
            if path:
                assert path[0] in best_moves(board, table)
            board.move(rng.choice(DIRECTIONS))


def test_lost_levels_have_no_solution_and_say_why():
    assert solve(Board("#####\n#X__#\n#P_O#\n#####")) is None
    assert why_lost(Board("#####\n#X__#\n#P_O#\n#####")) == "into a corner"
    assert why_lost(Board(LEVEL)) is None
    edge = "######\n#_X__#\n#P___#\n#___O#\n######"
    assert why_lost(Board(edge)) == "against a wall with no free target"
    with pytest.raises(SkillSDError, match="within 10 states"):
        solve(Board(LEVEL), max_states=10)


@pytest.mark.parametrize(("boxes", "depth"), product((1, 2, 3), (8, 15, 25)))
def test_depth_bounds_the_solution(boxes, depth):
    for seed in range(8):
        level = generate(seed, boxes=boxes, depth=depth)
        assert 1 <= level.optimal <= depth
        assert level.optimal == len(solve(Board(level.text)))
        assert "T" not in level.text
        assert level.text.count("X") == boxes


def test_every_process_makes_the_same_level():
    code = "from skillsd.envs.sokoban.generate import generate; print([generate(s).text for s in range(5)])"
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str([generate(s).text for s in range(5)])


def test_rooms_too_small_are_refused():
    for shape in ({"height": 3}, {"height": 4, "width": 4, "boxes": 2}, {"boxes": 0}, {"depth": 0}):
        with pytest.raises(SkillSDError, match="enlarge"):
            generate(0, **shape)


def test_shipped_levels_are_what_the_script_makes():
    from importlib import resources

    for variant in SPLITS:
        text = (resources.files("skillsd.envs.sokoban") / "levels" / f"{variant}.json").read_text("utf-8")
        assert json.dumps(make(variant), separators=(",", ":")) + "\n" == text


@pytest.mark.parametrize(
    ("variant", "counts", "boxes"),
    [
        ("paper", {"train": 96, "test": 64, "extra": 512}, 2),
        ("one_box", {"train": 128, "test": 256, "validation": 64}, 1),
    ],
)
def test_splits_hold_as_many_levels_as_promised_all_different_and_solvable(variant, counts, boxes):
    taskset = make_taskset("sokoban", variant=variant)
    tasks = [task for split in counts for task in taskset.tasks(split)]
    assert {split: len(taskset.tasks(split)) for split in counts} == counts
    assert len({canonical_hash(task.data["level"]) for task in tasks}) == len(tasks) == len({t.id for t in tasks})
    assert {canonical_hash(task.data["level"]) for task in tasks} <= held_out_hashes()
    for task in tasks:
        level = task.data["level"]
        assert (level.count("X"), len(level), level.count("\n")) == (boxes, 41, 5)
        assert len(solve(Board(level))) == task.data["optimal"] <= task.data["depth"] <= taskset.max_turns
    if variant == "paper":
        depths = [task.data["depth"] for task in taskset.tasks("train")]
        assert [depths.count(d) for d in (15, 20, 25)] == [29, 48, 19]
        assert {task.data["depth"] for task in taskset.tasks("test")} == {25}


def test_hash_ignores_rotation_and_reflection():
    rows = LEVEL.split("\n")
    turned = "\n".join("".join(column) for column in zip(*rows[::-1], strict=True))
    mirrored = "\n".join(row[::-1] for row in rows)
    assert canonical_hash(LEVEL) == canonical_hash(turned) == canonical_hash(mirrored)
    assert canonical_hash(LEVEL) != canonical_hash(LEVEL.replace("#___O#", "#__O_#"))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("```up```", "up"),
        ("I think the box is on the left.\nSo: ```\n Right \n```", "right"),
        ("don't go up", None),
        ("```don't go up```", None),
        ("```up``` or ```down```", None),
        ("```up", None),
        ("```up``` ```", None),
        ("up", None),
        ("", None),
        ("```上```", None),
        ("``` ```", None),
        ("```" * 300_000, None),
        ("x" * 1_000_000 + "```left```", "left"),
    ],
)
def test_an_action_is_one_direction_alone_in_the_only_block(message, expected):
    assert parse_action(message) == expected


def test_an_episode_needs_a_reset_and_is_won_by_the_solution():
    world = Sokoban()
    with pytest.raises(SkillSDError, match="reset"):
        world.step("```up```")
    assert world.reset(Task("t", {"level": LEVEL})) == PROMPT + LEVEL
    step = world.step("up we go")
    assert step.info == {"valid": False, "action": None, "moved": False}
    assert "exactly one of" in step.observation
    assert step.observation.endswith(LEVEL)
    assert world.step("```up```").info == {"valid": True, "action": "up", "moved": False}
    assert world.score().reward == 0.0
    for move in solve(Board(LEVEL)):
        step = world.step(f"```{move}```")
    assert step.done
    assert world.score().success
    world.close()


def test_half_of_the_boxes_is_half_of_the_reward():
    world = Sokoban()
    world.reset(Task("t", {"level": "######\n#PXO_#\n#_X_O#\n#____#\n######"}))
    world.step("```right```")
    assert (world.score().reward, world.score().success, world.score().completion) == (0.5, False, 0.5)


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        ("", "non-empty"),
        ("####\n#P#\n####", "one length"),
        ("####\n#P?#\n####", "unknown glyph"),
        ("####\n#PX_\n####", "border"),
        ("#####\n#_XO#\n#####", "0 players"),
        ("#####\n#PX_#\n#####", "1 boxes and 0 targets"),
        ("#####\n#P__#\n#####", "0 boxes"),
    ],
)
def test_malformed_levels_are_refused_with_the_reason(level, reason):
    with pytest.raises(SkillSDError, match=reason):
        Board(level)


BOXOBAN = "; 0\n#####\n#@$.#\n#####\n\n; 1\r\n######\r\n#+$* #\r\n######\r\n;2\n  ####\n###@ #\n# $. #\n######\n"


def test_boxoban_files_are_read_and_bad_ones_are_refused(tmp_path):
    levels = read_boxoban(BOXOBAN)
    assert levels[0] == "#####\n#PXO#\n#####"
    assert levels[1] == "######\n#SXT_#\n######"
    assert levels[2] == "######\n###P_#\n#_XO_#\n######"
    path = tmp_path / "levels.txt"
    path.write_text(BOXOBAN, encoding="utf-8")
    assert len(make_taskset("sokoban", levels=str(path)).tasks("test")) == 3
    for text, reason in (
        ("", "no level"),
        ("####\n#@?#\n####", "level 1: unknown"),
        ("#####\n#@$.#\n#####\n\n####\n#@ #\n####", "level 2"),
    ):
        with pytest.raises(SkillSDError, match=reason):
            read_boxoban(text)
    with pytest.raises(UsageError, match="cannot be read"):
        make_taskset("sokoban", levels=str(tmp_path / "none.txt"))


def test_task_sets_are_made_by_name_and_mistakes_are_told():
    for name, options, reason in [
        ("chess", {}, "no task set"),
        ("sokoban", {"colour": "red"}, "colour"),
        ("sokoban", {"variant": "huge"}, "unknown variant"),
        ("nowhere.at.all:Tasks", {}, "cannot be imported"),
    ]:
        with pytest.raises(UsageError, match=reason):
            make_taskset(name, **options)
    with pytest.raises(UsageError, match="no split"):
        make_taskset("sokoban").tasks("dev")
    register("mine", lambda **options: make_taskset("sokoban", **options))
    assert make_taskset("mine", variant="one_box").max_turns == 20
    assert make_taskset("skillsd.envs.sokoban.taskset:SokobanTasks").max_turns == 40


def test_environments_load_without_torch():
    code = (
        "import sys, skillsd.envs, skillsd.envs.sokoban.taskset as t; t.SokobanTasks().make();"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_drawing_is_escaped():
    taskset = make_taskset("sokoban")
    assert "<script>" not in taskset.render_html("<script>alert(1)</script>")
    assert taskset.render_html(PROMPT + LEVEL).count("<rect") == 1 + LEVEL.count("#") + LEVEL.count("X")

"""The Sokoban task set: options, turns, names of tasks, reference solutions, drawings."""

import re

import pytest

from skillsd.envs import HasReference, HasRender, TaskSet, make_taskset
from skillsd.envs.sokoban.game import Board, canonical_hash
from skillsd.envs.sokoban.rules import describe_solution
from skillsd.envs.sokoban.solver import solve
from skillsd.envs.sokoban.text import INVALID, PROMPT, format_action
from skillsd.errors import UsageError

FIRST = "#####\n#@$.#\n#####"
SECOND = "######\n#+$* #\n######"
BOARD = "#####\n#PXO#\n#####"


def test_the_task_set_has_references_and_drawings():
    taskset = make_taskset("sokoban")
    assert isinstance(taskset, TaskSet)
    assert isinstance(taskset, HasReference)
    assert isinstance(taskset, HasRender)


@pytest.mark.parametrize("variant", ["paper", "one_box"])
def test_every_shipped_level_is_won_by_its_reference(variant):
    taskset = make_taskset("sokoban", variant=variant)
    world = taskset.make()
    for task in taskset.tasks("test")[:20]:
        moves = solve(Board(task.data["level"]))
        assert len(moves) == task.data["optimal"]
        assert world.reset(task) == PROMPT + task.data["level"]
        steps = [world.step(f"Thinking.\n{format_action(move)}") for move in moves]
        assert [step.done for step in steps] == [False] * (len(moves) - 1) + [True]
        assert (world.score().reward, world.score().success, world.score().completion) == (1.0, True, 1.0)
        assert taskset.reference(task) == describe_solution(task.data["level"], moves)


def test_an_invalid_answer_moves_nothing():
    taskset = make_taskset("sokoban")
    task = taskset.tasks("train")[0]
    world, other = taskset.make(), taskset.make()
    world.reset(task)
    for message in ("", "up", "```up``` ```up```", "```up and left```", "```" + "x" * 1_000_000):
        step = world.step(message)
        assert step.info == {"valid": False, "action": None, "moved": False}
        assert (step.observation, step.done) == (INVALID + task.data["level"], False)
    other.reset(taskset.tasks("train")[1])  # another world is another world
    assert world.step("``` ```").observation.endswith(task.data["level"])


@pytest.mark.parametrize("turns", [0, -1, "many", 2.5])
def test_turns_must_be_positive(turns):
    with pytest.raises(UsageError, match="max_turns must be a whole number"):
        make_taskset("sokoban", max_turns=turns)


def test_each_variant_has_its_turn_limit_unless_another_is_given():
    assert make_taskset("sokoban").max_turns == 40
    assert make_taskset("sokoban", variant="one_box").max_turns == 20
    assert make_taskset("sokoban", variant="one_box", max_turns=7).max_turns == 7


def test_levels_of_files_have_steady_ids_and_unreadable_files_are_refused(tmp_path):
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    turned = "\n".join("".join(column) for column in zip(*FIRST.split("\n")[::-1], strict=True))
    train.write_text(f"; 0\n{FIRST}\n\n; 1\n{SECOND}\n\n; 2\n{FIRST}\n\n; 3\n{turned}\n", encoding="utf-8")
    test.write_text(f"{SECOND}\n", encoding="utf-8-sig")
    taskset = make_taskset("sokoban", levels=str(train), test_levels=str(test))
    first, second, again, sideways = taskset.tasks("train")
    assert [task.id for task in taskset.tasks("test")] == [second.id]  # a level keeps its name in another file
    assert len({first.id, second.id, again.id, sideways.id}) == 4
    # A turned level is the same by hash, but a skill that says "left" is of no use to it.
    assert canonical_hash(first.data["level"]) == canonical_hash(sideways.data["level"])
    assert again.id == f"{first.id}-2"
    alone = make_taskset("sokoban", levels=str(train))
    assert alone.tasks("train") == alone.tasks("test")
    with pytest.raises(UsageError, match="test_levels needs levels"):
        make_taskset("sokoban", test_levels=str(test))
    for path in (str(tmp_path), "", "a\0b"):
        with pytest.raises(UsageError, match="cannot be read"):
            make_taskset("sokoban", levels=path)
    train.write_bytes(b"\xff\xfe#")
    with pytest.raises(UsageError, match="cannot be read"):
        make_taskset("sokoban", levels=str(train))


def test_the_last_board_is_drawn():
    draw = make_taskset("sokoban").render_html
    assert draw(f"{PROMPT}{BOARD}") == draw(BOARD) == draw(f"####\n####\n####\n####\n\ntext\n{BOARD}\nmore text")
    assert 'viewBox="0 0 50 30"' in draw(BOARD)


@pytest.mark.parametrize(
    "text", ["", "XXX", "#", "####", "###\n###", "___\n_P_\n___", "<b>&\n" + "x" * 1000, "###\n#P#\n##", PROMPT]
)
def test_text_without_a_board_is_escaped(text):
    drawn = make_taskset("sokoban").render_html(text)
    assert drawn.startswith("<pre>")
    assert not re.search("<(?!/?pre>)", drawn)


def test_a_player_on_a_target_shows_both():
    draw = make_taskset("sokoban").render_html
    on, off = draw("####\n#S_#\n#XO#\n####"), draw("####\n#P_#\n#XO#\n####")
    assert on.count('fill="#dc2626"') == off.count('fill="#dc2626"') + 1
    assert on.index('cx="15" cy="15" r="3.5"') < on.index('cx="15" cy="15" r="2"')  # the dot is drawn on the player


@pytest.mark.parametrize("variant", ["one_box", "paper"])
def test_a_foreign_plan_is_about_boxes_that_never_stand_like_these(variant):
    taskset = make_taskset("sokoban", variant=variant)
    for task in taskset.tasks("test")[:8]:
        board, skill = Board(task.data["level"]), taskset.foreign(task)
        assert skill == taskset.foreign(task)
        starts = re.findall(r"\b[a-f][1-6]\b", skill.success_analysis)
        ours = [f"{'abcdef'[column]}{row + 1}" for row, column in map(board.row_col, board.positions("box"))]
        assert sorted(starts[: len(ours)]) != sorted(ours)
        assert "push the box" in skill.golden_workflow


def test_a_false_plan_pushes_the_other_way():
    taskset = make_taskset("sokoban", variant="one_box")
    task = taskset.tasks("test")[0]
    true = taskset.reference(task)
    false = taskset.falsified(task, true)
    turned = {"left": "right", "right": "left", "up": "down", "down": "up"}
    told, altered = (re.findall("left|right|up|down", skill.golden_workflow) for skill in (true, false))
    assert told
    assert [turned[word] for word in told] == altered
    assert "from the left" in false.success_analysis
    assert taskset.falsified(task, false) == true
